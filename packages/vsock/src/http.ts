import http, { type AgentOptions, type ClientRequestArgs } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Address, toAddress } from './address.js'
import { type CreateSocketOptions, createSocket } from './create-socket.js'
import { VsockError } from './errors.js'
import type { VsockSocket } from './socket.js'

/** What a request says of its destination. */
export interface RequestTarget {
  /** `vm-42` of `http://vm-42:8080/`. */
  readonly hostname: string
  /** The port of the URL, with the default of its protocol. */
  readonly port: number
  readonly protocol: string
}

/** One address for all requests, or a function that finds the address of each. */
export type AddressOf = Address | string | ((target: RequestTarget) => Address | string)

/** `createConnection` of `http.Agent`, of `http.request` and of `ws`. */
export type CreateConnection = (request: ClientRequestArgs) => VsockSocket

/**
 * An `http.Agent` whose connections lead to an address: `http.get({ agent: new VsockAgent('hvsock:///run/vm.sock:80'), path: '/' })`.
 * Its options are those of `http.Agent` and of `connect`.
 */
export class VsockAgent extends http.Agent {
  readonly #connect: CreateConnection

  constructor(address: AddressOf, { connect, ...options }: AgentOptions & { connect?: CreateSocketOptions | undefined } = {}) {
    super(options)
    this.#connect = createConnection(address, connect)
  }

  override createConnection(request: ClientRequestArgs): Duplex {
    return this.#connect(request)
  }
}

export function createConnection(address: AddressOf, options: CreateSocketOptions = {}): CreateConnection {
  const find = finder(address)
  return (request) => {
    const { host, hostname, port, protocol, timeout } = request
    const socket = createSocket(
      find({ hostname: hostname ?? host ?? 'localhost', port: Number(port ?? 80), protocol: protocol ?? 'http:' }),
      options,
    )
    // As net.connect does it: the timeouts of an agent depend on it.
    if (timeout) socket.setTimeout(timeout)
    return socket
  }
}

/** What undici hands to a connector; the fields it has beyond these do not matter here. */
export interface ConnectorOptions {
  hostname: string
  protocol: string
  port: string
}

export type ConnectorCallback = (...result: [error: null, socket: VsockSocket] | [error: Error, socket: null]) => void

/**
 * The `connect` option of undici's `Client`, `Pool` and `Agent`:
 * `new Client('http://guest', { connect: connector('hvsock://…') })`. Plain HTTP only; `https:` is refused, never sent in the clear.
 */
export function connector(address: AddressOf, options: CreateSocketOptions = {}) {
  const find = finder(address)
  return ({ hostname, protocol, port }: ConnectorOptions, callback: ConnectorCallback): void => {
    let socket: VsockSocket
    try {
      const remote = toAddress(find({ hostname, protocol, port: Number(port || 80) }))
      if (protocol !== 'http:') throw plainOnly(remote, protocol)
      socket = createSocket(remote, options)
    } catch (error) {
      callback(error as Error, null)
      return
    }
    const onConnect = () => {
      socket.off('error', onError)
      callback(null, socket)
    }
    const onError = (error: Error) => {
      socket.off('connect', onConnect)
      callback(error, null)
    }
    socket.once('connect', onConnect).once('error', onError)
  }
}

function finder(address: AddressOf): (target: RequestTarget) => Address | string {
  if (typeof address === 'function') return address
  const remote = toAddress(address)
  return () => remote
}

function plainOnly(remote: Address, protocol: string): VsockError {
  return new VsockError({
    code: 'ENOTSUP',
    op: 'connect',
    remote,
    what: `the connector speaks http:, not ${protocol}`,
    next: 'Use an http: origin, or wrap the socket of connect() with tls.connect({ socket }).',
  })
}
