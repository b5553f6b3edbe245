import type { Binding, Descriptor } from '../native/binding.js'
import { AF_VSOCK, LITTLE_ENDIAN } from '../native/sockaddr.js'

export interface Limits {
  /** The longest message that can be sent, as far as this end knows. */
  readonly send: number
  /** The longest message that can come. */
  readonly receive: number
  /** Whether the kernel tells how long the next message is, while that is still in its queue. */
  readonly tellsLength: boolean
  /** Whether a send that would have to wait may have left a part of its message: see native/sender.h. */
  readonly partial: boolean
}

const SO_VM_SOCKETS_BUFFER_SIZE = 0
/** What Linux keeps of the send buffer of a Unix socket for itself, for each message. */
const UNIX_OVERHEAD = 32

/** Asked for on each Unix socket: as long a message as the default buffer of AF_VSOCK holds. The kernel caps it at net.core.wmem_max. */
const SEND_BUFFER = 0x40000

/** Prepares a connected socket, and says what it carries. */
export function limitsOf(binding: Binding, descriptor: Descriptor, vsock: boolean): Limits {
  if (vsock) {
    const bytes = binding.getsockopt(descriptor, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, 8)
    const size = Number(new DataView(bytes.buffer).getBigUint64(0, LITTLE_ENDIAN))
    // Linux sends no message that its own buffer or the peer's does not hold, and before 6.7 does not tell a length in advance.
    return { send: size, receive: size, tellsLength: false, partial: true }
  }
  const { SOL_SOCKET, SO_SNDBUF, SO_TIMESTAMP } = binding
  binding.setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMP, int(1))
  binding.setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, int(SEND_BUFFER))
  const size = new DataView(binding.getsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, 4).buffer).getInt32(0, LITTLE_ENDIAN)
  return { send: size - UNIX_OVERHEAD, receive: Number.MAX_SAFE_INTEGER, tellsLength: true, partial: false }
}

function int(value: number): Uint8Array {
  return new Uint8Array(Int32Array.of(value).buffer)
}
