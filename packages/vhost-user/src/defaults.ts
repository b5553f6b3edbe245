import type { ConnectionOptions } from './machine/connection.js'

/** The most that `maxConnections` may be: of a device, and of one direction in a policy. */
export const MAX_CONNECTIONS = 1023

/** What a device has by default, and what connections with guests of other networks have. */
export const DEFAULTS: Pick<ConnectionOptions, 'handshakeMs' | 'lingerMs' | 'allocate'> = {
  handshakeMs: 2_000,
  lingerMs: 8_000,
  allocate: (size) => Buffer.allocUnsafe(size),
}
