/**
 * Why a connection ended:
 * - `client`: the client closed it, or ended its half and received every reply.
 * - `service-byte-timeout`: no service byte arrived in time. `write-timeout`: the client did not read what was written to it.
 * - `unknown-service`: no service has that byte. `unavailable`: the service is not registered yet.
 * - `service-error`: the service threw or rejected. `stream-error`: the stream failed.
 * - `limit`: as many connections as allowed were open. `server-closed`: the server, or this connection, was closed on this side.
 */
export type Disconnect =
  | { readonly reason: 'client' | 'service-byte-timeout' | 'write-timeout' | 'limit' | 'server-closed' }
  | { readonly reason: 'unknown-service' | 'unavailable'; readonly byte: number }
  | { readonly reason: 'service-error' | 'stream-error'; readonly error: unknown }
