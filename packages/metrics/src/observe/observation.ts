import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { ClientTrace, ReconnectEvent } from '@upcall/client'
import { errnoOf } from '@upcall/foundation/error'
import type { VhostUserVsock } from '@upcall/vhost-user'
import type { CountedKey, Detail, Labels, ReadKey, Sample } from '../catalog.js'
import { Devices, type ObservedDevice } from './devices.js'
import { BoundedLabel } from './label.js'
import { type RequestOutcome, Requests } from './requests.js'
import { Sessions } from './sessions.js'

/** Where what is counted goes. */
export interface Recorder {
  /** @param more - 0: nothing has happened yet. */
  count(key: CountedKey, labels: Labels, more: 0 | 1): void
  /** How long a request took, in seconds. */
  took(op: string, seconds: number): void
}

export interface ObservationOptions extends Detail {
  /** The time in milliseconds. Default: `performance.now()`. */
  now?: (() => number) | undefined
}

/** What the channel `upcall:vsock` tells of. */
interface VsockTrace {
  readonly type: string
  readonly reason?: unknown
  readonly error?: unknown
}

/** What the channel `upcall:vhost-user` tells of. */
interface DeviceTrace {
  readonly type: string
  readonly device?: VhostUserVsock
  readonly refusal?: { readonly reason: string }
  readonly ring?: string
}

/** Listens to the diagnostics channels of this process, and makes numbers of what it hears, until it is disposed of. */
export class Observation implements Disposable {
  readonly #recorder: Recorder
  readonly #perRemote: boolean
  readonly #sessions = new Sessions()
  readonly #devices: Devices
  readonly #requests: Requests<object>
  readonly #reasons = new BoundedLabel()
  readonly #codes = new BoundedLabel()
  /** Operations that have a zero for each outcome. */
  readonly #expected = new Set<string>()
  #hasReconnects = false
  readonly #listeners: readonly (readonly [channel: string, listener: (message: unknown) => void])[] = [
    ['upcall:client', (message) => this.#client(message as ClientTrace)],
    ['upcall:vsock', (message) => this.#vsock(message as VsockTrace)],
    ['upcall:vhost-user', (message) => this.#device(message as DeviceTrace)],
  ]

  constructor(recorder: Recorder, { perRemote = false, perGuest = false, now = () => performance.now() }: ObservationOptions) {
    this.#recorder = recorder
    this.#perRemote = perRemote
    this.#devices = new Devices(perGuest)
    const kept = {}
    const failed = (op: string, code: string) => recorder.count('failures', { op, code: this.#codes.of(code) }, 1)
    this.#requests = new Requests<object>(
      {
        begun: ({ op }) => {
          this.#expect(op)
          return kept
        },
        ended: (_, { op, at }, { outcome, code, at: end }) => {
          recorder.count('requests', { op, outcome }, 1)
          if (code !== undefined) failed(op, code)
          recorder.took(op, (end - at) / 1000)
        },
        refused: (_, error) => {
          recorder.count('requests', { op: 'invalid', outcome: 'not-sent' }, 1)
          failed('invalid', errnoOf(error))
        },
      },
      now,
    )
    for (const [channel, listener] of this.#listeners) subscribe(channel, listener)
  }

  /** A device that began before. Idempotent. */
  observeDevice(device: ObservedDevice): void {
    this.#devices.see(device)
  }

  /** The values now. */
  read(key: ReadKey): Sample[] {
    return key === 'state' ? this.#sessions.states(this.#perRemote) : this.#devices.samples(key)
  }

  /** Idempotent. */
  [Symbol.dispose](): void {
    for (const [channel, listener] of this.#listeners) unsubscribe(channel, listener)
  }

  /**
   * A counter that begins with 1 has not grown in the eyes of Prometheus: the first request with an unknown outcome would be on no
   * dashboard. So a counter begins with 0 where it is known before what may happen.
   */
  #expect(op: string): void {
    if (this.#expected.has(op)) return
    this.#expected.add(op)
    for (const outcome of OUTCOMES) this.#recorder.count('requests', { op, outcome }, 0)
  }

  #expectReconnects(): void {
    if (this.#hasReconnects) return
    this.#hasReconnects = true
    for (const reason of REASONS) this.#recorder.count('reconnects', { reason }, 0)
  }

  #client(message: ClientTrace): void {
    this.#expectReconnects()
    this.#sessions.see(message)
    this.#requests.see(message)
    if ('effect' in message && message.effect.type === 'reconnect')
      this.#recorder.count('reconnects', { reason: message.effect.reason }, 1)
  }

  #vsock({ type, reason, error }: VsockTrace): void {
    if (type === 'refused') this.#recorder.count('handshakeFailures', { reason: this.#reasons.of(reason) }, 1)
    if (type !== 'connect-failed' && type !== 'pass-failed') return
    const code = (error as { code?: unknown } | undefined)?.code
    // The caller did not want it any more: nothing has failed.
    if (code !== 'ABORTED') this.#recorder.count('handshakeFailures', { reason: this.#reasons.of(code) }, 1)
  }

  #device({ type, device, refusal, ring }: DeviceTrace): void {
    if (device === undefined) return
    this.#devices.see(device)
    if (type === 'refused') this.#devices.hear(device, 'refusals', { reason: this.#reasons.of(refusal?.reason) })
    if (type === 'recovery') this.#devices.hear(device, 'recoveries', { ring: this.#reasons.of(ring) })
  }
}

const named = <T extends string>(all: Record<T, true>): T[] => Object.keys(all) as T[]

const OUTCOMES = named<RequestOutcome>({ ok: true, 'guest-error': true, 'not-sent': true, indeterminate: true })

const REASONS = named<ReconnectEvent['reason']>({
  'dial-failed': true,
  'dial-timeout': true,
  'greeting-timeout': true,
  disconnected: true,
  protocol: true,
  'request-timeout': true,
  'request-aborted': true,
  'clean-channel': true,
})
