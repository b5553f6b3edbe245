// Where the page is served: on this machine, for this machine.

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
  if (host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host)) return { host, port }
  throw new InvalidArgumentError(
    'The page is for this machine alone: write 127.0.0.1, [::1] or localhost. From elsewhere, use "ssh -L 8080:127.0.0.1:8080".',
  )
}

/** As it stands in a URL and in a Host header. */
export function hostText({ host, port }: PageAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}
