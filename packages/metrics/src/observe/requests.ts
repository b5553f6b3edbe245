import type { ClientTrace, Outcome, Ticket, UpcallClient } from '@upcall/client'
import { BoundedLabel } from './label.js'

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

export interface RequestListener<T extends object> {
  /** Called in the context of the caller. The result is kept with the request. */
  begun(request: RequestBegun): T
  /** Its bytes are written: it waits no more in the queue. */
  written?(kept: T, request: RequestBegun, at: number): void
  /** @param error - Of a request that has no reply. */
  ended(kept: T, request: RequestBegun, outcome: RequestOutcome, at: number, error: unknown): void
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

  #follow(client: UpcallClient<unknown, unknown>, effect: Extract<ClientTrace, { effect: object }>['effect']): void {
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
      const outcome = effect.type === 'fail' ? effect.error.outcome : effect.failed ? 'guest-error' : 'ok'
      const error = effect.type === 'fail' ? effect.error : undefined
      this.#listener.ended(found.kept, found.request, outcome, this.#now(), error)
    }
  }

  /** A request of the device manager has its name as `type`. */
  #methodOf(request: unknown): string | undefined {
    const type = (request as { type?: unknown } | null | undefined)?.type
    return typeof type === 'string' ? this.#methods.of(type) : undefined
  }
}
