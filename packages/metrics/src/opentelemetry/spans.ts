import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Attributes, Span, Tracer } from '@opentelemetry/api'
import type { ClientTrace, UpcallClient } from '@upcall/client'
import { errnoOf, textOf } from '@upcall/foundation/error'
import { type RequestBegun, type RequestEnd, Requests } from '../observe/requests.js'

type Api = typeof import('@opentelemetry/api')

const CHANNEL = 'upcall:client'

/** The span of a request, and when its bytes were written. */
interface RequestSpan {
  readonly span: Span
  writtenAt: number | undefined
}

/**
 * A span for each request: from the call to the end, as a child of the span that is active where the call is made. And one for each attempt
 * to reach the guest: from the dial to the greeting. Attributes follow OpenTelemetry's conventions for remote procedure calls.
 */
export class Spans implements Disposable {
  readonly #api: Api
  readonly #tracer: Tracer
  readonly #requests: Requests<RequestSpan>
  readonly #connecting = new WeakMap<UpcallClient<unknown, unknown>, Span>()
  readonly #listener = (message: unknown) => this.#see(message as ClientTrace)

  constructor(api: Api, tracer: Tracer, now: () => number = () => performance.now()) {
    this.#api = api
    this.#tracer = tracer
    this.#requests = new Requests<RequestSpan>(
      {
        begun: (request) => ({ span: this.#begin(request), writtenAt: undefined }),
        written: (kept, { at }, writtenAt) => {
          kept.writtenAt = writtenAt
          kept.span.addEvent('written', { 'upcall.queue_ms': writtenAt - at })
        },
        ended: (kept, request, end) => this.#end(kept, request, end),
      },
      now,
    )
    subscribe(CHANNEL, this.#listener)
  }

  /** Spans that are open stay so, and are not exported. Idempotent. */
  [Symbol.dispose](): void {
    unsubscribe(CHANNEL, this.#listener)
  }

  #begin({ op, method, remote }: RequestBegun): Span {
    const { SpanKind } = this.#api
    const attributes = { ...aboutGuest(remote), 'rpc.method': method, 'upcall.op': op }
    return this.#tracer.startSpan(`upcall/${method}`, { kind: SpanKind.CLIENT, attributes })
  }

  #end({ span, writtenAt }: RequestSpan, request: RequestBegun, { outcome, at, code, error }: RequestEnd): void {
    span.setAttribute('upcall.outcome', outcome)
    span.setAttribute('upcall.queue_ms', (writtenAt ?? at) - request.at)
    if (error === undefined) span.addEvent('reply')
    if (outcome === 'guest-error') span.setAttribute('upcall.errno', code!)
    if (code !== undefined) this.#failed(span, code, error ?? 'the guest refused')
    span.end()
  }

  #see(message: ClientTrace): void {
    this.#requests.see(message)
    if ('effect' in message) this.#connect(message, message.effect)
  }

  /** An attempt begins with the dial. It ends when the service has greeted, or with the reason why there is to be another, or none. */
  #connect({ client, remote }: ClientTrace, effect: Extract<ClientTrace, { effect: object }>['effect']): void {
    const span = this.#connecting.get(client)
    switch (effect.type) {
      case 'dial': {
        const { SpanKind } = this.#api
        const options = { kind: SpanKind.CLIENT, attributes: aboutGuest(remote), root: true }
        this.#connecting.set(client, this.#tracer.startSpan('upcall/connect', options))
        return
      }
      case 'reconnect':
        if (span !== undefined) this.#failed(span, effect.reason, effect.cause)
        break
      case 'state':
        if (effect.state === 'WaitingService') span?.addEvent('dialed')
        if (effect.state === 'WaitingServer' || effect.state === 'WaitingService') return
        if (effect.state === 'ReconnectError' && span !== undefined) this.#failed(span, errnoOf(effect.cause), effect.cause)
        if (effect.state === 'Closed' && span !== undefined) this.#failed(span, 'CLOSED', undefined)
        break
      default:
        return
    }
    span?.end()
    this.#connecting.delete(client)
  }

  #failed(span: Span, code: string, error: unknown): void {
    span.setAttribute('error.type', code)
    span.setStatus({ code: this.#api.SpanStatusCode.ERROR, message: error === undefined ? code : `${code}: ${textOf(error)}` })
  }
}

const aboutGuest = (remote: string): Attributes => ({ 'rpc.system': 'upcall', 'server.address': remote })
