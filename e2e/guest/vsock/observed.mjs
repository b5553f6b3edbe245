// Stands between @upcall/vsock and the kernel and notes what the kernel was told. Import it before a socket is made.
//
// `process.dlopen` is how the library loads its addon; the functions that take part in connecting and listening are wrapped there.

/** One entry per socket at the moment it is connected, or listens. */
export const sockets = []
/** The addon itself. */
export let binding

const AF_VSOCK = 40
const OPTIONS = { size: 0, min: 1, max: 2 }
const CONNECT_TIMEOUT = 6

const load = process.dlopen
process.dlopen = (module, path, ...rest) => {
  load.call(process, module, path, ...rest)
  if (!path.endsWith('upcall_vsock.node')) return
  binding = { ...module.exports }
  const note = (role, descriptor) => sockets.push({ role, ...readOptions(descriptor) })
  module.exports = {
    ...binding,
    connect(descriptor, sockaddr) {
      sockets.push({ role: 'connecting', flags: sockaddr[12], ...readOptions(descriptor) })
      return binding.connect(descriptor, sockaddr)
    },
    listen(descriptor, backlog) {
      note('listening', descriptor)
      return binding.listen(descriptor, backlog)
    },
    accept(descriptor) {
      const accepted = binding.accept(descriptor)
      if (accepted) note('accepted', accepted.descriptor)
      return accepted
    },
  }
}

function readOptions(descriptor) {
  const read = (option, length) => new DataView(binding.getsockopt(descriptor, AF_VSOCK, option, length).buffer)
  const timeval = read(CONNECT_TIMEOUT, 16)
  return {
    ...Object.fromEntries(Object.entries(OPTIONS).map(([name, option]) => [name, Number(read(option, 8).getBigUint64(0, true))])),
    timeoutMs: Number(timeval.getBigInt64(0, true)) * 1_000 + Number(timeval.getBigInt64(8, true)) / 1_000,
  }
}
