import { type Address, toAddress } from '../address.js'
import { type CreateSocketOptions, createSocket } from '../create-socket.js'
import { VsockError } from '../errors.js'
import { checkDestination, planOf } from '../plan.js'
import type { VsockSocket } from '../socket.js'

/** What a request says of its destination. */
export interface RequestTarget {
  /** `vm-42` of `http://vm-42:8080/`. */
  readonly hostname: string
  /** The port of the URL, with the default of its protocol. */
  readonly port: number
  /** `http:`, or what else the URL has. */
  readonly protocol: string
}

/**
 * One address for all requests, or a function that finds the address of each. If the function throws, or what it returns is not an
 * address, that request fails with the error.
 */
export type AddressOf = Address | string | ((target: RequestTarget) => Address | string)

/** What Node, `ws` and undici say of a request. */
interface GivenRequest {
  readonly hostname?: string | null | undefined
  readonly host?: string | null | undefined
  readonly port?: number | string | null | undefined
  readonly protocol?: string | null | undefined
  /** Node's https has no `protocol` here: it names its agent. */
  readonly _defaultAgent?: { readonly protocol?: unknown } | undefined
}

export interface Destination {
  /** @throws what the function of the caller throws; {AddressError}, {RangeError} for an address that cannot be used; {VsockError} */
  addressOf(request: object): Address
  /** @throws as `addressOf` */
  open(remote: Address): VsockSocket
}

/**
 * Where requests go. A fixed address and the options are checked at once.
 *
 * @throws {AddressError}, {RangeError} or {TypeError}
 */
export function destination(address: AddressOf, options: CreateSocketOptions, what: string): Destination {
  planOf(options)
  const find = finderOf(address)
  return {
    addressOf(request) {
      const target = targetOf(request)
      const remote = find(target)
      if (target.protocol === 'https:') throw plainOnly(remote, what)
      return remote
    },
    open: (remote) => createSocket(remote, options),
  }
}

function finderOf(address: AddressOf): (target: RequestTarget) => Address {
  if (typeof address === 'function') return (target) => checked(address(target))
  const remote = checked(address)
  return () => remote
}

function checked(address: Address | string): Address {
  const remote = toAddress(address)
  checkDestination(remote)
  return remote
}

function targetOf(request: GivenRequest): RequestTarget {
  const protocol = String(request.protocol ?? request._defaultAgent?.protocol ?? 'http:')
  return {
    hostname: request.hostname ?? request.host ?? 'localhost',
    port: Number(request.port || (protocol === 'https:' ? 443 : 80)),
    protocol,
  }
}

function plainOnly(remote: Address, what: string): VsockError {
  return new VsockError({
    code: 'ENOTSUP',
    op: 'connect',
    remote,
    what: `${what} speaks http:, not https:`,
    next: 'Use an http: origin, or wrap the socket: tls.connect({ socket: createSocket(address) }).',
  })
}
