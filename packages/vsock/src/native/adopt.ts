import type { Socket } from 'node:net'
import type { Binding, Descriptor } from './binding.js'

/** Both ends of a connection, as raw sockaddr bytes. */
export interface Names {
  readonly local: Uint8Array
  readonly remote: Uint8Array
}

/**
 * Makes the socket on a number that is not its own yet: `new Socket({ fd, readable: true, writable: true, … })` and nothing else.
 * Node begins to read only when the event loop turns; by then the connection is behind the number.
 */
export type CreateSocket<T extends Socket> = (fd: number, names: Names) => T

/**
 * Turns a connected descriptor into a `net.Socket` of the caller's making. Both descriptors are spent or closed afterwards, also
 * when it throws.
 */
export function adopt<T extends Socket>(
  binding: Binding,
  connection: Descriptor,
  placeholder: Descriptor,
  remote: Uint8Array | undefined,
  create: CreateSocket<T>,
): T {
  let socket: T | undefined
  try {
    const names = { local: binding.getsockname(connection), remote: remote ?? binding.getpeername(connection) }
    return binding.adopt(connection, placeholder, (fd) => {
      socket = create(fd, names)
      return socket
    })
  } catch (error) {
    binding.close(connection)
    // The number belongs to the socket if there is one, to the placeholder if not; the placeholder knows which.
    binding.close(placeholder)
    socket?.destroy()
    throw error
  }
}
