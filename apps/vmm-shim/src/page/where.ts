// Where the page is served: on this machine, for this machine.

import { isIPv4 } from 'node:net'
import { InvalidArgumentError } from 'commander'

export interface PageAddress {
  /** `127.0.0.1`, `::1` or another address of the loopback interface. */
  host: string
  /** 0: any that is free. */
  port: number
}

/** Reads `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`, or a port alone. @throws InvalidArgumentError that says what is allowed. */
export function parsePageAddress(text: string): PageAddress {
  const [, bracketed, plain, digits = ''] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d{1,5})$/.exec(text) ?? []
  const port = digits === '' ? Number.NaN : Number(digits)
  if (!(port <= 0xffff)) throw new InvalidArgumentError('Write <address>:<port>, such as 127.0.0.1:8080.')
  const host = (bracketed ?? plain ?? '127.0.0.1').toLowerCase()
  if (host === 'localhost') return { host: '127.0.0.1', port }
  if (host === '::1' || (host.startsWith('127.') && isIPv4(host))) return { host, port }
  throw new InvalidArgumentError(
    'The page is for this machine alone: write 127.0.0.1, [::1] or localhost. From elsewhere, use "ssh -L 8080:127.0.0.1:8080".',
  )
}

/** As it stands in a URL. */
export function hostText({ host, port }: PageAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** What a Host header may say of this address. Browsers leave the port of HTTP out. */
export function hostNames(at: PageAddress): string[] {
  const names = [hostText(at), `localhost:${at.port}`]
  return at.port === 80 ? [...names, ...names.map((name) => name.replace(/:80$/, ''))] : names
}
