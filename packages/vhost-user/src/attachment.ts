import type { Duplex } from 'node:stream'
import { Channel } from './channel.js'
import type { Clock } from './clock.js'
import { outcomeError, VsockDeviceError } from './errors.js'
import { Leavers } from './join.js'
import type { ConnectionSnapshot, VsockConnection } from './machine/connection.js'
import { RX_RING, TX_RING, VsockDevice } from './machine/device.js'
import { type DeviceError, toDeviceError } from './machine/errors.js'
import type { MuxerOptions } from './machine/muxer.js'
import { BackendSession, type SessionResult } from './machine/session.js'
import type { Overdue, RingSnapshot } from './machine/vring.js'
import type { Binding, Descriptor } from './native/binding.js'
import { BindingPlatform } from './platform.js'
import { VsockStream } from './stream.js'

/** A connection that the guest asks for. */
export interface IncomingConnection {
  /** Aborts when the guest gives up, when the handshake’s deadline passes, and when the device goes away. */
  readonly signal: AbortSignal
  /** The port that the guest’s socket has. */
  readonly guestPort: number
  readonly guestCid: number
  /** Lets the guest in and returns the stream; what the handler resolves with is then of no account. */
  accept(): VsockStream
}

/**
 * Answers a guest that connects to `port` on the host. What it resolves with is joined with the guest both ways; undefined, without a
 * call of `accept()`, refuses the guest (RST), as does a rejection.
 */
export type ConnectionHandler = (port: number, incoming: IncomingConnection) => Promise<Duplex | undefined> | Duplex | undefined

/**
 * The guest and the device seemed to wait for each other. `interrupt`: the guest had not caught up with a ring for 100 ms and was
 * interrupted once more. `lost`: it had not been interrupted for what it waits for; otherwise it had been, and is perhaps only busy or
 * paused. (A guest without EVENT_IDX does not say whether it waits: it counts as `lost` if it wanted no interrupt for the last packets and
 * wants one now.) `kick`: the guest had put something into a ring, and no kick came (`lost` is always true).
 */
export interface Recovery {
  readonly ring: 'rx' | 'tx'
  readonly by: 'interrupt' | 'kick'
  readonly lost: boolean
}

/** How things stand between the guest and the device, as plain data. A ring is absent while it does not run. */
export interface DeviceSnapshot {
  readonly rx: RingSnapshot | undefined
  readonly tx: RingSnapshot | undefined
  readonly connections: readonly ConnectionSnapshot[]
}

export interface AttachmentHandlers {
  readonly onConnection: ConnectionHandler | undefined
  /** Something that `running` or `fault` shows may have changed. */
  readonly onChange: () => void
  /** A new driver has begun; `connections` of the old one were cut. */
  readonly onReset: (connections: number) => void
  /** The guest and the device waited for each other, and the device has ended that. */
  readonly onRecovery: (recovery: Recovery) => void
  /** The front end has gone, or broke the protocol. Called once; everything is released by then. */
  readonly onEnd: (error: DeviceError | undefined) => void
}

/** How long an interrupt for used transmit buffers may wait for one that has packets to tell of. A shorter timer costs more than it saves. */
const SETTLE_MS = 10

/**
 * How long a guest may take to catch up before it is interrupted again, and how often the rings are looked at without a kick while
 * connections are open.
 */
const LOOK_MS = 100

/** Trips to the rings that callbacks may bring about, one after the other, before the event loop has to turn. */
const TRIPS_PER_TURN = 4

interface Watcher {
  news(): void
}

/** One VMM on the line, from its first message to its last: the session, the rings, the connections, and the one place that runs them. */
export class Attachment {
  /** Why the rings are left alone, until the driver begins anew or the front end starts them again. */
  fault: DeviceError | undefined
  readonly #options: MuxerOptions
  readonly #clock: Clock
  readonly #handlers: AttachmentHandlers
  readonly #platform: BindingPlatform
  readonly #session: BackendSession
  readonly #device: VsockDevice
  readonly #channel: Channel
  readonly #leavers: Leavers
  readonly #watchers = new Map<VsockConnection, Watcher>()
  #scheduled = false
  /** There is more to do, and the event loop turns first. */
  #postponed = false
  #trips = 0
  #closed = false
  #wakeAt = Number.POSITIVE_INFINITY
  #cancelWake: () => void = () => {}
  #cancelSettle: (() => void) | undefined
  /** When to look next, by the clock: whether the guest has taken what each ring gave it, and whether a kick was missed. */
  readonly #lookAt = { rx: 0, tx: 0, kick: 0 }
  /** Nothing was done since the last look. */
  #quiet = false
  #cancelLook: (() => void) | undefined

  constructor(binding: Binding, descriptor: Descriptor, options: MuxerOptions, clock: Clock, handlers: AttachmentHandlers) {
    this.#options = options
    this.#clock = clock
    this.#handlers = handlers
    const onKick = () => {
      this.#trips = 0
      this.#pump()
    }
    // Whoever came upon it is still at work.
    const onBroken = (error: DeviceError) => process.nextTick(() => this.#end(error))
    this.#platform = new BindingPlatform(binding, onKick, onBroken)
    this.#session = new BackendSession(this.#platform, configSpace(options.guestCid))
    this.#device = new VsockDevice(options)
    this.#leavers = new Leavers(options.maxConnections)
    this.#channel = new Channel(binding, descriptor, {
      onMessage: (header, payload, descriptors) => {
        // It may end a ring, and what is owed for it would be lost.
        this.#announce()
        this.#settle()
        return this.#apply(this.#session.receive(header, payload, descriptors))
      },
      onEnd: (error) => this.#end(error === undefined ? undefined : toDeviceError(error)),
    })
  }

  get running(): boolean {
    return this.#session.running
  }

  /** Where the next attachment's host ports begin. */
  get nextHostPort(): number {
    return this.#device.muxer.nextHostPort
  }

  get connections(): number {
    return this.#device.muxer.size
  }

  snapshot(): DeviceSnapshot {
    const { rx, tx } = this.#session
    return { rx: rx?.snapshot(), tx: tx?.snapshot(), connections: this.#device.muxer.snapshot() }
  }

  /** The connection opens or the promise rejects with `VsockDeviceError`; the handshake has a deadline of its own. */
  connect(port: number, signal: AbortSignal | undefined): Promise<VsockStream> {
    return new Promise((resolve, reject) => {
      const subject = this.#subject(port)
      const connection = this.#device.muxer.connect(port, this.#clock.now())
      if (connection === undefined) {
        const what = `all ${this.#options.maxConnections} connections are taken`
        reject(
          new VsockDeviceError({ code: 'EAGAIN', subject, what, next: 'close some, or raise maxConnections', retryable: true }),
        )
        return
      }
      const onAbort = () => {
        connection.reset()
        this.#touch(connection)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      this.#watchers.set(connection, {
        news: () => {
          if (connection.state === 'connecting') return
          signal?.removeEventListener('abort', onAbort)
          this.#watchers.delete(connection)
          // It may have spoken and closed since.
          if (connection.answered && connection.outcome !== 'aborted') resolve(this.#open(connection))
          else reject(outcomeError(subject, connection.outcome ?? 'reset', signal?.aborted ? signal.reason : undefined))
        },
      })
      this.#schedule()
    })
  }

  /** Goes back to rings that a fault stopped. Every connection was cut then. */
  restart(): void {
    if (this.fault === undefined || this.#closed) return
    this.fault = undefined
    const fault = this.#session.restart()
    if (fault !== undefined) this.#stop(fault)
    else this.#pump()
    this.#handlers.onChange()
  }

  /** Every connection ends as if the guest had reset it, without a packet. */
  resetConnections(): number {
    const connections = this.#device.muxer.size
    this.#device.muxer.abandon()
    this.#deliverNews()
    return connections
  }

  /** Hangs up and releases everything. `onEnd` is not called. Twice is once. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#cancelWake()
    this.#cancelSettle?.()
    this.#cancelLook?.()
    this.#channel.close()
    this.#device.muxer.abandon()
    this.#deliverNews()
    this.#session.close()
  }

  #apply({ reply, fault, reset }: SessionResult): Uint8Array | undefined {
    if (reset === true) {
      this.fault = undefined
      this.#handlers.onReset(this.resetConnections())
    }
    // The front end has started the rings again, for a new driver or the same: whether they are still bad will show.
    if (fault === undefined && this.#session.running) this.fault = undefined
    if (fault !== undefined) this.#stop(fault)
    else this.#pump()
    this.#handlers.onChange()
    return reply
  }

  #end(error: DeviceError | undefined): void {
    if (this.#closed) return
    this.close()
    this.#handlers.onEnd(error)
  }

  /** The guest did what no honest one does. Its rings are left alone; the VMM is still listened to. */
  #stop(fault: DeviceError): void {
    this.fault = fault
    this.#announce()
    this.#settle()
    this.#session.halt()
    this.#platform.reportFault()
    this.resetConnections()
  }

  // ── the one place that runs the device ─────────────────────────────────────────────────────────────────────────────────

  /**
   * Soon: after the current callback, so that all it does to connections is one trip to the rings. A trip may bring bytes to a reader
   * who takes them at once, and so the next trip: a fast guest could go on like that for ever, so after some it is somebody else's turn.
   */
  #schedule(): void {
    if (this.#scheduled || this.#postponed) return
    if (this.#trips++ >= TRIPS_PER_TURN) {
      this.#postpone()
      return
    }
    this.#scheduled = true
    process.nextTick(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  /** After a turn of the event loop. However many ask for it, it is one trip. */
  #postpone(): void {
    if (this.#postponed) return
    this.#postponed = true
    setImmediate(() => {
      this.#postponed = false
      this.#trips = 0
      this.#pump()
    })
  }

  #touch(connection: VsockConnection): void {
    this.#device.muxer.touch(connection)
    this.#schedule()
  }

  #pump(): void {
    if (this.#closed || this.#postponed) return
    const { rx, tx } = this.#session
    if (rx !== undefined || tx !== undefined) {
      try {
        const now = this.#clock.now()
        this.#quiet = false
        const more = this.#device.process(rx, tx, now)
        const later = now + LOOK_MS
        this.#lookAt.kick = later
        if (rx !== undefined && rx.unannounced > 0) this.#lookAt.rx = later
        if (tx !== undefined && tx.unannounced > 0) this.#lookAt.tx = later
        this.#announce()
        this.#lookAfter(LOOK_MS)
        if (more) this.#postpone()
      } catch (error) {
        this.#stop(toDeviceError(error))
        this.#handlers.onChange()
        return
      }
    }
    this.#deliverNews()
    this.#armTimer()
  }

  #announce(): void {
    const { rx, tx, owed } = this.#device.announce(this.#session.rx, this.#session.tx)
    if (rx) this.#platform.notify(RX_RING)
    if (tx) this.#platform.notify(TX_RING)
    if (owed) this.#cancelSettle ??= this.#clock.setTimer(SETTLE_MS, () => this.#settle())
  }

  #settle(): void {
    this.#cancelSettle?.()
    this.#cancelSettle = undefined
    if (this.#device.settle(this.#session.tx)) this.#platform.notify(TX_RING)
  }

  /**
   * Ends a wait of guest and device for each other, whoever is to blame: QEMU before 8.1 leaves out the memory barriers of a guest with
   * one emulated CPU, so that the guest's wish and the device's look at it can miss each other. 100 ms after a ring gave the guest
   * something, the guest is interrupted again if it has not caught up; 100 ms after the last trip its kicks are looked after. And so on
   * while connections are open or it is behind. Each has a time of its own: what goes on elsewhere puts off no ring's look.
   */
  #look(): void {
    this.#cancelLook = undefined
    const { rx, tx } = this.#session
    if (this.#closed || (rx === undefined && tx === undefined)) return
    const now = this.#clock.now()
    const at = this.#lookAt
    const due = { rx: now >= at.rx, tx: now >= at.tx, kick: now >= at.kick }
    try {
      const behind = this.#device.look(due.rx ? rx : undefined, due.tx ? tx : undefined)
      // What is about to be done anyway needs no help.
      const unkicked = due.kick && !this.#scheduled && !this.#postponed ? this.#device.unkicked(rx, tx) : undefined
      if (behind.rx) this.#interruptAgain(RX_RING, behind.rx)
      if (behind.tx) this.#interruptAgain(TX_RING, behind.tx)
      if (unkicked !== undefined) this.#lookTwice(unkicked)
      const again = behind.rx || behind.tx || this.connections > 0 || !(due.rx && due.tx && due.kick)
      for (const each of ['rx', 'tx', 'kick'] as const) if (due[each]) at[each] = now + LOOK_MS
      if (again) this.#lookAfter(Math.min(at.rx, at.tx, at.kick) - now)
    } catch (error) {
      this.#stop(toDeviceError(error))
      this.#handlers.onChange()
    }
  }

  #lookAfter(ms: number): void {
    if (!this.#closed) this.#cancelLook ??= this.#clock.setTimer(ms, () => this.#look())
  }

  #interruptAgain(ring: typeof RX_RING | typeof TX_RING, { lost, looks }: Overdue): void {
    // A guest that is paused or busy is interrupted ever more rarely: after 100, 200, 400 ms and so on.
    if ((looks & (looks - 1)) !== 0) return
    this.#platform.notify(ring)
    if (looks === 1) this.#tellRecovery(ring, 'interrupt', lost)
  }

  /** A kick that is on its way comes first: the event loop hears of it before this. */
  #lookTwice(ring: typeof RX_RING | typeof TX_RING): void {
    this.#quiet = true
    setImmediate(() => {
      if (this.#closed || !this.#quiet) return
      this.#tellRecovery(ring, 'kick', true)
      this.#pump()
    })
  }

  #tellRecovery(ring: typeof RX_RING | typeof TX_RING, by: Recovery['by'], lost: boolean): void {
    this.#handlers.onRecovery({ ring: ring === RX_RING ? 'rx' : 'tx', by, lost })
  }

  #deliverNews(): void {
    for (const connection of this.#device.muxer.takeNews()) {
      try {
        const watcher = this.#watchers.get(connection)
        if (watcher !== undefined) watcher.news()
        else if (connection.state === 'accepting') this.#incoming(connection)
      } catch (error) {
        // A listener of the stream threw. That is the application's, as with any emitter; the other connections' news come first.
        process.nextTick(() => {
          throw error
        })
      }
    }
  }

  #armTimer(): void {
    const next = this.#device.muxer.nextTimeout()
    if (next >= this.#wakeAt) return
    this.#cancelWake()
    this.#wakeAt = next
    this.#cancelWake = this.#clock.setTimer(Math.max(0, next - this.#clock.now()), () => {
      this.#wakeAt = Number.POSITIVE_INFINITY
      this.#device.muxer.handleTimeout(this.#clock.now())
      this.#pump()
    })
  }

  // ── connections ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #open(connection: VsockConnection): VsockStream {
    const owner = {
      touch: (it: VsockConnection) => this.#touch(it),
      now: () => this.#clock.now(),
      setTimer: (ms: number, fn: () => void) => this.#clock.setTimer(ms, fn),
      forget: (it: VsockConnection) => this.#watchers.delete(it),
    }
    const stream = new VsockStream(connection, owner, {
      subject: this.#subject(connection.guestPort),
      highWaterMark: Math.min(this.#options.bufferBytes, 64 * 1024),
      lingerMs: this.#options.lingerMs,
    })
    this.#watchers.set(connection, stream)
    return stream
  }

  #incoming(connection: VsockConnection): void {
    const gone = new AbortController()
    let stream: VsockStream | undefined
    this.#watchers.set(connection, {
      news: () => {
        if (connection.state !== 'closed') return
        this.#watchers.delete(connection)
        gone.abort(ended())
      },
    })
    const refuse = () => {
      connection.reset()
      this.#touch(connection)
    }
    const ended = () => outcomeError(this.#subject(connection.guestPort), connection.outcome ?? 'reset')
    const accept = (): VsockStream => {
      if (stream !== undefined) return stream
      // It may have ended a moment ago, and the signal does not tell of it yet.
      if (connection.state !== 'accepting') throw ended()
      connection.accept()
      stream = this.#open(connection)
      this.#touch(connection)
      return stream
    }
    const { onConnection } = this.#handlers
    if (onConnection === undefined) {
      refuse()
      return
    }
    const { guestPort, hostPort } = connection
    const incoming = { signal: gone.signal, guestPort, guestCid: this.#options.guestCid, accept }
    // Inside a promise, so that a handler that throws is a handler that rejects.
    Promise.resolve()
      .then(() => onConnection(hostPort, incoming))
      .then((host) => {
        if (stream !== undefined) return
        if (host === undefined) refuse()
        else if (connection.state !== 'accepting')
          this.#leavers.breakOff(
            host.on('error', () => {}),
            ended(),
          )
        else if (host.destroyed) refuse()
        else this.#leavers.join(accept(), host)
      })
      .catch((error: unknown) => (stream === undefined ? refuse() : stream.destroy(error instanceof Error ? error : undefined)))
  }

  #subject(port: number): string {
    return `connect guest ${this.#options.guestCid} port ${port}`
  }
}

/** struct virtio_vsock_config: le64 guest_cid. */
function configSpace(guestCid: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(guestCid), true)
  return bytes
}
