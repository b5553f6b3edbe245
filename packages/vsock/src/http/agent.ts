import http, { type AgentOptions, type ClientRequest, type ClientRequestArgs } from 'node:http'
import type { Duplex } from 'node:stream'
import { checkObject } from '@upcall/foundation/check'
import { type Address, formatAddress } from '../address.js'
import type { CreateSocketOptions } from '../create-socket.js'
import { timed } from './create-connection.js'
import { type AddressOf, type Destination, destination } from './target.js'

export interface VsockAgentOptions extends AgentOptions {
  /** How the agent's sockets connect. */
  connect?: CreateSocketOptions | undefined
}

/** Where a request goes. It travels with the options of the request, which the agent copies several times. */
const ADDRESS = Symbol('address')

type Options = ClientRequestArgs & { [ADDRESS]?: Address }

/** What Node's agent and client request have beyond their types. Each agent on npm builds on these two. */
interface AgentInternals {
  addRequest(request: ClientRequest, options: Options): void
}
interface RequestInternals {
  onSocket(socket: null, error: unknown): void
}

/**
 * An `http.Agent` whose connections lead to an address: `http.get({ agent: new VsockAgent('hvsock:///run/vm.sock:80'), path: '/' })`.
 * All else is as in `http.Agent`: `keepAlive`, `maxSockets`, `maxTotalSockets`, `maxFreeSockets`, `timeout`, aborts.
 *
 * Sockets are pooled by address. One agent serves many VMs if the address is a function:
 * `new VsockAgent(({ hostname }) => `hvsock:///run/${hostname}.sock:80`)`. It is called once for each request.
 *
 * An `https:` request is refused, by Node with `ERR_INVALID_PROTOCOL`.
 */
export class VsockAgent extends http.Agent {
  readonly #to: Destination

  /** @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an option that is wrong. */
  constructor(address: AddressOf, options: VsockAgentOptions = {}) {
    checkObject('options', options)
    const { connect = {}, ...ofAgent } = options
    super(ofAgent)
    this.#to = destination(address, connect, 'the agent')
  }

  /** @internal Called by Node for each request. */
  addRequest(request: ClientRequest, options: Options): void {
    let address: Address
    try {
      address = this.#to.addressOf(options)
    } catch (error) {
      ;(request as unknown as RequestInternals).onSocket(null, error)
      return
    }
    ;(http.Agent.prototype as unknown as AgentInternals).addRequest.call(this, request, { ...options, [ADDRESS]: address })
  }

  /** The name of a pool of sockets: the text of the address. */
  override getName(options: ClientRequestArgs = {}): string {
    return formatAddress(this.#addressOf(options))
  }

  override createConnection(options: ClientRequestArgs): Duplex {
    return timed(this.#to.open(this.#addressOf(options)), options)
  }

  #addressOf(options: Options): Address {
    return options[ADDRESS] ?? this.#to.addressOf(options)
  }
}
