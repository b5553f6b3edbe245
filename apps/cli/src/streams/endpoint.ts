import { isIPv6 } from 'node:net'
import { type Address, formatAddress } from '@upcall/vsock'
import { UsageError } from '../errors.js'
import { parseEndpoint } from '../options.js'

/** A port of TCP, where `vsock forward` leads out of the world of guests. */
export interface TcpAddress {
  readonly transport: 'tcp'
  readonly host: string
  /** 0 to listen on a port that the kernel chooses. */
  readonly port: number
}

/** Where a stream comes from or goes to. */
export type Endpoint = Address | TcpAddress

/** Other machines do not reach it unless the user names a host. */
const LOOPBACK = '127.0.0.1'

/**
 * The three forms of @upcall/vsock, and `tcp:<host>:<port>` with or without `//`, an IPv6 host in brackets, and without a host this
 * machine's loopback.
 *
 * @throws UsageError for anything else; `source` is where the user wrote it.
 */
export function parseStreamEndpoint(text: string, source: string): Endpoint {
  const tcp = /^tcp:(?:\/\/)?(.*)$/s.exec(text)
  if (tcp !== null) return parseTcp(tcp[1]!, text, source)
  if (/^(?:hvsock:\/\/|unix:|vsock:\/\/)/.test(text)) return parseEndpoint(text, source)
  const hint = text.startsWith('/') ? ` Did you mean "unix:${text}"?` : ''
  throw new UsageError(
    source,
    `address ${JSON.stringify(text)}: the form is unknown`,
    `Write hvsock://<path>:<port>, unix:<path>, vsock://<cid>:<port> or tcp:<host>:<port>.${hint}`,
  )
}

/** Text that `parseStreamEndpoint` reads back. */
export function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.transport !== 'tcp') return formatAddress(endpoint)
  const { host, port } = endpoint
  return `tcp://${isIPv6(host) ? `[${host}]` : host}:${port}`
}

function parseTcp(rest: string, text: string, source: string): TcpAddress {
  const match = /^(?:(?:\[([^\]]+)\]|([^:/[\]\s]*)):)?(any|0|[1-9]\d{0,4})$/.exec(rest)
  const port = match?.[3] === 'any' ? 0 : Number(match?.[3])
  const [, bracketed, plain] = match ?? []
  if (match === null || port > 0xffff || (bracketed !== undefined && !isIPv6(bracketed)))
    throw new UsageError(
      source,
      `address ${JSON.stringify(text)}: not a tcp address`,
      'Write tcp:<host>:<port>, with an IPv6 host in brackets and a port from 1 to 65535, or any for a free one. ' +
        "Without a host it is this machine's loopback.",
    )
  return { transport: 'tcp', host: bracketed ?? (plain || LOOPBACK), port }
}
