import { isIPv6 } from 'node:net'
import { show } from '@upcall/foundation/show'
import { MetricsError } from '../errors.js'

/** Where a server listens. */
export interface ListenAddress {
  readonly host: string
  readonly port: number
}

export const LOOPBACK = '127.0.0.1'

/**
 * Reads `9100`, `:9100`, `127.0.0.1:9100`, `name:9100` or `[::1]:9100`. A port alone is one of the loopback interface: other machines
 * reach the server only if the address says so. Port 0 is any free port.
 *
 * @throws MetricsError `ARGUMENT`
 */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:(?:\[([^\]]*)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text)
  const [, ipv6, name, digits] = match ?? []
  const port = Number(digits)
  const isHost = ipv6 === undefined ? name === undefined || /^[A-Za-z0-9._-]*$/.test(name) : isIPv6(ipv6)
  if (match !== null && port <= 0xffff && isHost) return { host: ipv6 ?? (name || LOOPBACK), port }
  throw new MetricsError({
    code: 'ARGUMENT',
    subject: 'address',
    what: `must be a port, <host>:<port> or [<IPv6 address>]:<port>, got ${show(text)}`,
    next: 'Ports go from 0, any free port, to 65535.',
  })
}
