import type { ClientTrace, Outcome, Ticket, UpcallClient } from '@upcall/client'
import { errnoName } from '@upcall/device-manager'
import { BoundedLabel } from './label.js'

type Effect = Extract<ClientTrace, { effect: object }>['effect']

/** `ok`, or what is known of a request that failed. */
export type RequestOutcome = 'ok' | Outcome

/** A request from its call to its end. */
export interface RequestBegun {
  /** The kind of request in few words: `cpu.add`, or `request` for a raw one. Never an address. */
  readonly op: string
  /** Its name in the protocol, where the request has one: `ADD_CPU`. Otherwise `op`. */
  readonly method: string
  readonly remote: string
  /** Milliseconds. */
  readonly at: number
}

/** How a request has ended. */
export interface RequestEnd {
  readonly outcome: RequestOutcome
  /** Milliseconds. */
  readonly at: number
  /** The guest's errno (`EEXIST`) or `GUEST_ERROR`, where the guest refused; otherwise the error's code. Undefined if all is well. */
  readonly code: string | undefined
  /** Of a request that has no reply. */
  readonly error: unknown
}

export interface RequestListener<T extends object> {
  /** Called in the context of the caller. The result is kept with the request. */
  begun(request: RequestBegun): T
  /** Its bytes are written: it waits no more in the queue. */
  written?(kept: T, request: RequestBegun, at: number): void
  ended(kept: T, request: RequestBegun, end: RequestEnd): void
  /** It was wrong and was never queued. */
  refused?(remote: string, error: unknown): void
}

interface Pending<T> {
  readonly request: RequestBegun
  readonly bytes: Uint8Array
  readonly kept: T
}

/** Follows the requests of all clients. It keeps nothing of a client that is gone. */
export class Requests<T extends object> {
  readonly #listener: RequestListener<T>
  readonly #now: () => number
  readonly #pending = new WeakMap<UpcallClient<unknown, unknown>, Map<number, Pending<T>>>()
  readonly #ops = new BoundedLabel()
  readonly #methods = new BoundedLabel()

  constructor(listener: RequestListener<T>, now: () => number) {
    this.#listener = listener
    this.#now = now
  }

  see(message: ClientTrace): void {
    if ('event' in message) {
      if (message.event.type === 'request') this.#begin(message, message.event.ticket)
    } else if ('effect' in message) {
      this.#follow(message.client, message.effect)
    } else if ('error' in message) {
      this.#listener.refused?.(message.remote, message.error)
    }
  }

  #begin({ client, remote }: ClientTrace, ticket: Ticket): void {
    const op = this.#ops.of(ticket.op.split(' ', 1)[0])
    const request = { op, method: this.#methodOf(ticket.request) ?? op, remote, at: this.#now() }
    let pending = this.#pending.get(client)
    if (pending === undefined) {
      pending = new Map()
      this.#pending.set(client, pending)
    }
    pending.set(ticket.id, { request, bytes: ticket.bytes, kept: this.#listener.begun(request) })
  }

  #follow(client: UpcallClient<unknown, unknown>, effect: Effect): void {
    const pending = this.#pending.get(client)
    if (pending === undefined) return
    if (effect.type === 'write') {
      if (this.#listener.written === undefined) return
      // In the order of the calls, in which they are written. Several may have the same bytes, and many may wait.
      for (const { request, bytes, kept } of pending.values()) {
        if (bytes !== effect.bytes) continue
        this.#listener.written(kept, request, this.#now())
        break
      }
    } else if (effect.type === 'reply' || effect.type === 'fail') {
      const found = pending.get(effect.id)
      if (found === undefined) return
      pending.delete(effect.id)
      this.#listener.ended(found.kept, found.request, { ...endOf(effect), at: this.#now() })
    }
  }

  /** A request of the device manager has its name as `type`. */
  #methodOf(request: unknown): string | undefined {
    const type = (request as { type?: unknown } | null | undefined)?.type
    return typeof type === 'string' ? this.#methods.of(type) : undefined
  }
}

function endOf(effect: Extract<Effect, { type: 'reply' | 'fail' }>): Omit<RequestEnd, 'at'> {
  if (effect.type === 'fail') return { outcome: effect.error.outcome, code: effect.error.code, error: effect.error }
  if (!effect.failed) return { outcome: 'ok', code: undefined, error: undefined }
  // A reply of the device manager has the guest's errno, negative. A positive one is not an errno.
  const result = (effect.reply as { result?: unknown } | null | undefined)?.result
  const code = typeof result === 'number' && result < 0 ? errnoName(result) : 'GUEST_ERROR'
  return { outcome: 'guest-error', code, error: undefined }
}
