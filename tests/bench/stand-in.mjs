import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const AF_UNIX = 1
const AF_VSOCK = 40
const PORT = 4
const CID = 8
const CID_LOCAL = 1

/**
 * From here on vsock:// addresses of this process mean AF_UNIX, so that a host can measure what it must not connect: the library runs as
 * published, the addon makes AF_UNIX sockets out of its sockaddrs (in the abstract namespace, one name per port). Only what the
 * bench uses is there. Returns why it cannot be, if so.
 */
export function unixForVsock() {
  const path = fileURLToPath(new URL('../../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))
  if (!existsSync(path)) return 'skipped: no addon; node scripts/build-addons.mjs makes it'
  const module = { exports: {} }
  const load = process.dlopen
  load.call(process, module, path)
  const binding = overUnix(module.exports)
  process.dlopen = (target, file, ...rest) => {
    if (file === path) target.exports = binding
    else load.call(process, target, file, ...rest)
  }
  // It may name another addon, or none at all for fear of AF_VSOCK.
  process.env.UPCALL_VSOCK_ADDON = path
  return undefined
}

function overUnix(binding) {
  const port = (sockaddr) => new DataView(sockaddr.buffer, sockaddr.byteOffset).getUint32(PORT, true)
  const bytes = new DataView(new ArrayBuffer(16))
  bytes.setUint16(0, AF_VSOCK, true)
  bytes.setUint32(CID, CID_LOCAL, true)
  const anyName = new Uint8Array(bytes.buffer)
  return {
    ...binding,
    socket: () => binding.socket(AF_UNIX),
    bind: (descriptor, sockaddr) => binding.bind(descriptor, unixName(port(sockaddr))),
    connect: (descriptor, sockaddr) => binding.connect(descriptor, unixName(port(sockaddr))),
    accept(descriptor) {
      const accepted = binding.accept(descriptor)
      return accepted && { ...accepted, peer: anyName }
    },
    getsockname: () => anyName,
    getpeername: () => anyName,
    setsockopt: () => {},
    localCid: () => CID_LOCAL,
  }
}

function unixName(port) {
  const text = Buffer.from(`upcall-bench-${process.pid}-${port}`)
  const bytes = Buffer.alloc(3 + text.length)
  bytes.writeUInt16LE(AF_UNIX, 0)
  text.copy(bytes, 3)
  return bytes
}
