import type { SocketConstructorOpts } from 'node:net'
import { errnoOf } from '@upcall/foundation/error'
import { type InheritedSocket, type Inspection, inspectInherited, isTcpSocket, notTaken, wrongDescriptor } from './inherited.js'
import { adopt } from './native/adopt.js'
import type { Binding } from './native/binding.js'
import type { ConnectOptions } from './plan.js'
import { VsockSocket } from './socket.js'

/** The socket of a connection that another program made. It is connected already. Throws what `inspectInherited` does. */
export function inheritedSocket(
  inherited: InheritedSocket,
  options: ConnectOptions,
  buffers: SocketConstructorOpts,
): VsockSocket {
  const found = inspectInherited('connect', inherited)
  const create = (fd: number) => make(found, fd, options, buffers)
  return found.transport === 'vsock' && found.binding ? overVsock(found, found.binding, create) : overUnix(found, create)
}

function overUnix(found: Inspection, create: (fd: number) => VsockSocket): VsockSocket {
  const { fd, binding, why } = found
  binding?.closeOnExec(fd)
  let socket: VsockSocket
  try {
    socket = create(fd)
  } catch (error) {
    throw notTaken('connect', fd, why, error)
  }
  // Only for want of the addon this was not known before.
  if (socket.remoteAddress === undefined) return socket
  socket.destroy()
  throw isTcpSocket('connect', fd)
}

function overVsock(found: Inspection, binding: Binding, create: (fd: number) => VsockSocket): VsockSocket {
  try {
    const placeholder = binding.placeholder()
    const connection = binding.inherit(found.fd)
    return adopt(binding, connection, placeholder, undefined, create)
  } catch (error) {
    const errno = errnoOf(error)
    throw wrongDescriptor('connect', found.fd, errno, `it cannot be taken over (${errno})`, 'See the cause.', error)
  }
}

function make({ local, remote }: Inspection, fd: number, options: ConnectOptions, buffers: SocketConstructorOpts): VsockSocket {
  const { halfClose = true, allowHalfOpen = false, lingerMs, clock } = options
  return new VsockSocket(
    { local, remote, halfClose, lingerMs, clock },
    { fd, readable: true, writable: true, allowHalfOpen, ...buffers },
  )
}
