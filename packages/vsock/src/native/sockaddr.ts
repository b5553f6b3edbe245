import { integer } from '@upcall/foundation/check'

/**
 * `struct sockaddr_vm` (linux/vm_sockets.h) as bytes: u16 family 40, u16 reserved, u32 port, u32 CID, u8 flags, 3 zero bytes, in
 * the machine's own byte order.
 */

/** Length of a `sockaddr_vm` in bytes. */
const SOCKADDR_VM_SIZE = 16

/** The address family's number, which is also the level of its socket options. */
export const AF_VSOCK = 40

/** VMADDR_FLAG_TO_HOST: hand the connection to the host even though the CID is not 2, so that it can forward it to a sibling VM. */
const FLAG_TO_HOST = 1

const OFFSET = { family: 0, port: 4, cid: 8, flags: 12 } as const

/** Whether this machine stores the low byte first; the kernel reads its structures in the machine's own order. */
export const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

export interface SockaddrVm {
  /** u32; 0xffffffff means any, at bind. */
  readonly cid: number
  /** u32; 0xffffffff means any, at bind. */
  readonly port: number
  /** Whether VMADDR_FLAG_TO_HOST is set. Default false. */
  readonly toHost?: boolean | undefined
}

/** @throws {RangeError} for a CID or port that is not a u32. */
export function encodeSockaddrVm({ cid, port, toHost = false }: SockaddrVm, littleEndian = LITTLE_ENDIAN): Uint8Array {
  integer('cid', cid, { max: 0xffffffff })
  integer('port', port, { max: 0xffffffff })
  const bytes = new Uint8Array(SOCKADDR_VM_SIZE)
  const view = new DataView(bytes.buffer)
  view.setUint16(OFFSET.family, AF_VSOCK, littleEndian)
  view.setUint32(OFFSET.port, port, littleEndian)
  view.setUint32(OFFSET.cid, cid, littleEndian)
  view.setUint8(OFFSET.flags, toHost ? FLAG_TO_HOST : 0)
  return bytes
}

/** @throws {RangeError} for bytes that are not a `sockaddr_vm`: fewer than 16, or of another family. Unknown flags are ignored. */
export function decodeSockaddrVm(bytes: Uint8Array, littleEndian = LITTLE_ENDIAN): Required<SockaddrVm> {
  if (bytes.length < SOCKADDR_VM_SIZE) {
    throw new RangeError(`sockaddr_vm: must be ${SOCKADDR_VM_SIZE} bytes, got ${bytes.length}`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, SOCKADDR_VM_SIZE)
  const family = view.getUint16(OFFSET.family, littleEndian)
  if (family !== AF_VSOCK) throw new RangeError(`sockaddr_vm: the family must be AF_VSOCK (${AF_VSOCK}), got ${family}`)
  return {
    cid: view.getUint32(OFFSET.cid, littleEndian),
    port: view.getUint32(OFFSET.port, littleEndian),
    toHost: (view.getUint8(OFFSET.flags) & FLAG_TO_HOST) !== 0,
  }
}

const AF_UNIX = 1

/** `struct sockaddr_un`, of a path that it has room for, or of an abstract name: NUL and the name, without a final NUL. */
export function encodeSockaddrUn(name: string): Uint8Array {
  const bytes = Buffer.from(`__${name}${name.startsWith('\0') ? '' : '\0'}`)
  new DataView(bytes.buffer, bytes.byteOffset).setUint16(0, AF_UNIX, LITTLE_ENDIAN)
  return bytes
}
