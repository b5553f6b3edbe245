import { isIPv6 } from 'node:net'
import { integer } from '@upcall/foundation/check'
import { show } from '@upcall/foundation/show'
import { type Address, AddressError, checkAddress, formatAddress, type ParseAddressOptions, parseAddress } from '../address.js'

/** A port of TCP, where `forward` leads out of the world of guests. Written `tcp:<host>:<port>`. */
export interface TcpAddress {
  readonly transport: 'tcp'
  /** A name or an IP address, without brackets. */
  readonly host: string
  /** 0 to listen on a port that the kernel chooses. Written `any`. */
  readonly port: number
}

/** Where a stream comes from or goes to: an address, or a port of TCP. `connect` and `listen` take addresses only. */
export type Endpoint = Address | TcpAddress

/** An endpoint as a caller gives it. A value without a transport is TCP; without a host it is this machine's loopback. */
export type EndpointInit =
  | string
  | Endpoint
  | { readonly transport?: undefined; readonly host?: string | undefined; readonly port: number }

/** Other machines do not reach it unless the caller names a host. */
const LOOPBACK = '127.0.0.1'

const FORMS = 'hvsock://<path>:<port>, unix:<path>, vsock://<cid>:<port> or tcp:<host>:<port>'

/**
 * The three forms of `parseAddress`, and `tcp:<host>:<port>` with or without `//`: an IPv6 host in brackets, the port `any` for a free
 * one, and without a host this machine's loopback.
 *
 * @throws {AddressError} for anything else.
 */
export function parseEndpoint(text: string, options: ParseAddressOptions = {}): Endpoint {
  const tcp = /^tcp:(?:\/\/)?(.*)$/s.exec(text)
  if (tcp !== null) return parseTcp(tcp[1]!, text)
  if (typeof text !== 'string' || /^(?:hvsock:\/\/|unix:|vsock:\/\/)/.test(text)) return parseAddress(text, options)
  const hint = text.startsWith('/') ? ` Did you mean "unix:${text}"?` : ''
  throw new AddressError(`address ${JSON.stringify(text)}`, 'the form is unknown', `Write ${FORMS}.${hint}`)
}

/** Writes an endpoint so that `parseEndpoint` reads the same one back. */
export function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.transport !== 'tcp') return formatAddress(endpoint)
  const { host, port } = endpoint
  return `tcp://${isIPv6(host) ? `[${host}]` : host}:${port}`
}

/** @throws {AddressError} for an endpoint that cannot be used; {RangeError} for a TCP port that cannot be. */
export function toEndpoint(given: EndpointInit): Endpoint {
  if (typeof given === 'string') return parseEndpoint(given)
  if (typeof given !== 'object' || given === null)
    throw new AddressError('address', `must be text or an object, got ${show(given)}`, `Write ${FORMS}.`)
  const { transport } = given
  if (transport !== undefined && transport !== 'tcp') return checkAddress(given)
  const { host = LOOPBACK, port } = given
  if (typeof host !== 'string' || host === '')
    throw new AddressError('address', `the host ${show(host)} is not allowed`, 'It is a name or an IP address.')
  return Object.freeze({ transport: 'tcp', host, port: integer('port', port, { max: 0xffff }) })
}

function parseTcp(rest: string, text: string): TcpAddress {
  const match = /^(?:(?:\[([^\]]+)\]|([^:/[\]\s]*)):)?(any|0|[1-9]\d{0,4})$/.exec(rest)
  const port = match?.[3] === 'any' ? 0 : Number(match?.[3])
  const [, bracketed, plain] = match ?? []
  if (match === null || port > 0xffff || (bracketed !== undefined && !isIPv6(bracketed)))
    throw new AddressError(
      `address ${JSON.stringify(text)}`,
      'not a tcp address',
      'Write tcp:<host>:<port>, with an IPv6 host in brackets and a port from 1 to 65535, or any for a free one. ' +
        "Without a host it is this machine's loopback.",
    )
  return Object.freeze({ transport: 'tcp', host: bracketed ?? (plain || LOOPBACK), port })
}
