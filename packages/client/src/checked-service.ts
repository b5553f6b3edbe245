import { checkFunction, checkObject, integer } from '@upcall/foundation/check'
import { textOf } from '@upcall/foundation/error'
import { ignoreRejection, isPromise, synchronous } from '@upcall/foundation/returned'
import { show } from '@upcall/foundation/show'
import { MESSAGE_SIZE } from '@upcall/wire'
import { UpcallError } from './error.js'
import type { Ticket } from './machine/state.js'
import type { Service } from './service.js'

/** More than any message needs, and less than a buffer can hold. */
const MAX_MESSAGE_SIZE = 2 ** 30

/** What the service has to say of a request before it is queued. */
export type Prepared = Pick<Ticket, 'request' | 'bytes' | 'op' | 'needsClean' | 'replyTimeoutMs'>

/**
 * A service as the session uses it. Services come from outside, some of them without types: the members are checked once, when the
 * client is made, and what the functions return is checked each time, before it can do harm.
 */
export class CheckedService implements Service<unknown, unknown> {
  readonly byte: number
  readonly messageSize: number
  readonly #service: Service<unknown, unknown>

  /** @throws TypeError or RangeError that names the member. */
  constructor(service: Service<unknown, unknown>) {
    checkObject('service', service, 'a Service object')
    const { byte, messageSize = MESSAGE_SIZE } = service
    this.byte = integer('service.byte', byte, { max: 0xff })
    this.messageSize = integer('service.messageSize', messageSize, { min: 1, max: MAX_MESSAGE_SIZE })
    for (const name of ['checkGreeting', 'encode', 'decode', 'failed', 'replyTimeoutMs'] as const)
      checkFunction(`service.${name}`, service[name])
    for (const name of ['needsCleanChannel', 'describe'] as const)
      if (service[name] !== undefined) checkFunction(`service.${name}`, service[name], 'a function or left out')
    this.#service = service
  }

  /**
   * Prepares a request to be queued.
   *
   * @throws What `encode` throws, for an invalid request; UpcallError `CALLBACK`, `not-sent`, if the service does not keep to its contract.
   */
  prepare(request: unknown, remote: string): Prepared {
    const bytes = this.encode(request, new Uint8Array(this.messageSize))
    const checked = <T>(name: string, ask: () => T): T => {
      try {
        return ask()
      } catch (cause) {
        throw callbackError(`${name}: ${textOf(cause)}`, remote, cause)
      }
    }
    const size = this.messageSize
    if (!(bytes instanceof Uint8Array) || bytes.length !== size) {
      const what = isPromise(bytes)
        ? 'must not return a promise'
        : `must return a Uint8Array of ${size} bytes, got ${show(bytes)}`
      throw callbackError(`encode: ${what}`, remote, new TypeError(what))
    }
    return {
      request,
      bytes,
      op: checked('describe', () => this.describe(request)),
      needsClean: checked('needsCleanChannel', () => this.needsCleanChannel(request)),
      replyTimeoutMs: checked('replyTimeoutMs', () => this.replyTimeoutMs(request)),
    }
  }

  checkGreeting(frame: Uint8Array): void {
    synchronous('checkGreeting', this.#service.checkGreeting(frame))
  }

  encode(request: unknown, into: Uint8Array): Uint8Array {
    const bytes = this.#service.encode(request, into)
    if (!(bytes instanceof Uint8Array)) ignoreRejection(bytes)
    // A buffer of the service's own may hold the next request before this one is sent. (The slice of a Buffer would be a view of it.)
    else if (bytes.buffer !== into.buffer) return new Uint8Array(bytes)
    return bytes
  }

  decode(frame: Uint8Array, request: unknown): unknown {
    const reply = synchronous('decode', this.#service.decode(frame, request))
    if (reply === undefined) throw new TypeError('decode: must return the reply or throw, got undefined')
    return reply
  }

  failed(reply: unknown): boolean {
    const failed = synchronous('failed', this.#service.failed(reply))
    if (typeof failed !== 'boolean') throw new TypeError(`failed: must return true or false, got ${show(failed)}`)
    return failed
  }

  needsCleanChannel(request: unknown): boolean {
    const needsClean = this.#service.needsCleanChannel?.(request) ?? false
    ignoreRejection(needsClean)
    if (typeof needsClean !== 'boolean') throw new TypeError(`must return true or false, got ${show(needsClean)}`)
    return needsClean
  }

  replyTimeoutMs(request: unknown): number {
    const ms: unknown = this.#service.replyTimeoutMs(request)
    ignoreRejection(ms)
    // No request waits for ever: a guest that hangs would hold up all requests after it.
    if (typeof ms !== 'number' || !(ms > 0) || ms === Number.POSITIVE_INFINITY)
      throw new RangeError(`must be a number of milliseconds above 0, got ${show(ms)}`)
    return ms
  }

  describe(request: unknown): string {
    const words: unknown = this.#service.describe === undefined ? 'request' : this.#service.describe(request)
    ignoreRejection(words)
    if (typeof words !== 'string') throw new TypeError(`must return a string, got ${show(words)}`)
    return words
  }
}

function callbackError(what: string, remote: string, cause: unknown): UpcallError {
  return new UpcallError({
    code: 'CALLBACK',
    outcome: 'not-sent',
    op: 'request',
    subject: remote,
    what: `the service's ${what}`,
    next: 'Nothing was sent. Correct the service.',
    cause,
  })
}
