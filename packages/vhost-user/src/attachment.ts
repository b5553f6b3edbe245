import type { Clock } from '@upcall/foundation/clock'
import { Channel } from './channel.js'
import { type ConnectionHandler, Connections } from './connections.js'
import type { Recovery } from './lookout.js'
import type { ConnectionSnapshot } from './machine/connection.js'
import { type DeviceOptions, RX_RING, VsockDevice } from './machine/device.js'
import { type DeviceError, toDeviceError } from './machine/errors.js'
import { F_SEQPACKET } from './machine/features.js'
import { BackendSession, type SessionResult } from './machine/session.js'
import type { SwitchPort } from './machine/switch/port.js'
import type { Tally } from './machine/tally.js'
import type { Tap } from './machine/tap.js'
import type { RingSnapshot } from './machine/vring.js'
import type { VsockMessageStream } from './message-stream.js'
import type { Binding, Descriptor } from './native/binding.js'
import { BindingPlatform } from './platform.js'
import { Pump } from './pump.js'
import type { VsockStream } from './stream.js'

/** How things stand between the guest and the device, as plain data. A ring is absent while it does not run. */
export interface DeviceSnapshot {
  readonly rx: RingSnapshot | undefined
  readonly tx: RingSnapshot | undefined
  readonly connections: readonly ConnectionSnapshot[]
}

/**
 * How long the rings may be without their memory. A front end changes its table region by region, and takes away before it adds: what
 * is missing for longer is a fault.
 */
const DISPLACED_MS = 1_000

export interface AttachmentHandlers {
  /** Leads to the other guests. */
  readonly port: SwitchPort
  readonly tally: Tally
  readonly tap: Tap
  readonly onConnection: ConnectionHandler | undefined
  /** Something that `running` or `fault` shows may have changed. */
  readonly onChange: () => void
  /** A new driver has begun; `connections` of the old one were cut. */
  readonly onReset: (connections: number) => void
  /** The guest and the device waited for each other, and the device has ended that. */
  readonly onRecovery: (recovery: Recovery) => void
  /** The front end asked for what cannot be done. It was told, and the conversation goes on. */
  readonly onRefused: (error: DeviceError) => void
  /** The front end has gone, or broke the protocol. Called once; everything is released by then. */
  readonly onEnd: (error: DeviceError | undefined) => void
}

/** One VMM, from its first message to its last: the conversation with it, the pump for the rings, and the connections. */
export class Attachment {
  /** Why the rings are left alone, until a new driver begins or the front end starts them again. */
  fault: DeviceError | undefined
  readonly #handlers: AttachmentHandlers
  readonly #platform: BindingPlatform
  readonly #session: BackendSession
  readonly #device: VsockDevice
  readonly #pump: Pump
  readonly #connections: Connections
  readonly #channel: Channel
  readonly #clock: Clock
  #cancelDisplaced: (() => void) | undefined
  #closed = false

  constructor(binding: Binding, descriptor: Descriptor, limits: DeviceOptions, clock: Clock, handlers: AttachmentHandlers) {
    this.#handlers = handlers
    this.#clock = clock
    // The code that came upon it is still at work.
    const onBroken = (error: DeviceError) => process.nextTick(() => this.#end(error))
    const { tally, port, tap } = handlers
    const onKick = () => {
      tally.kicks++
      this.#pump.kicked()
    }
    this.#platform = new BindingPlatform(binding, onKick, onBroken)
    this.#session = new BackendSession(this.#platform, configSpace(limits.guestCid))
    this.#device = new VsockDevice(limits, { onTouch: () => this.#pump.schedule(), port, tap })
    const { onConnection } = handlers
    const direct = { binding, arrive: (tell: () => void) => this.#pump.arrived(tell) }
    this.#connections = new Connections({ device: this.#device, limits, clock, onConnection, direct })
    this.#pump = new Pump({
      device: this.#device,
      rings: this.#session,
      clock,
      notify: (ring) => {
        tally.interrupts[ring === RX_RING ? 'rx' : 'tx']++
        this.#platform.notify(ring)
      },
      onNews: () => this.#connections.deliverNews(),
      onFault: (fault) => {
        this.#stop(fault)
        handlers.onChange()
      },
      onRecovery: handlers.onRecovery,
    })
    this.#channel = new Channel(binding, descriptor, {
      onMessage: (header, payload, descriptors) => {
        // The message may end a ring, and the interrupts that are due for it would be lost.
        this.#pump.settle()
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
    return this.#device.size
  }

  snapshot(): DeviceSnapshot {
    const { rx, tx } = this.#session
    return { rx: rx?.snapshot(), tx: tx?.snapshot(), connections: this.#device.muxer.snapshot() }
  }

  /** The connection opens, or the promise rejects with `VsockDeviceError`; the handshake has a deadline of its own. */
  connect(port: number, signal: AbortSignal | undefined): Promise<VsockStream> {
    return this.#connections.connect(port, signal)
  }

  /** As `connect`, for messages. */
  connectSeqpacket(port: number, signal: AbortSignal | undefined): Promise<VsockMessageStream> {
    return this.#connections.connectSeqpacket(port, signal)
  }

  /** What the device may do has changed: it looks at the rings soon. */
  touch(): void {
    this.#pump.schedule()
  }

  /** Goes back to rings that a fault stopped. Every connection was cut then. */
  restart(): void {
    if (this.fault === undefined || this.#closed) return
    this.fault = undefined
    const fault = this.#session.restart()
    if (fault !== undefined) this.#stop(fault)
    else this.#pump.trip()
    this.#handlers.onChange()
  }

  /** Every connection ends as if the guest had reset it, without a packet. */
  resetConnections(): number {
    return this.#connections.reset()
  }

  /** Hangs up and releases everything. `onEnd` is not called. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#cancelDisplaced?.()
    this.#pump.close()
    this.#channel.close()
    this.#connections.reset()
    this.#session.close()
  }

  #apply({ reply, fault, reset, refused }: SessionResult): Uint8Array | undefined {
    this.#device.muxer.seqpacket = (this.#session.features & F_SEQPACKET) !== 0n
    if (refused !== undefined) this.#handlers.onRefused(refused)
    this.#followMemory()
    if (reset === true) {
      this.fault = undefined
      this.#handlers.onReset(this.resetConnections())
    }
    // The front end has started the rings again, for a new driver or the same: whether they are still bad will show.
    if (fault === undefined && this.#session.running) this.fault = undefined
    if (fault !== undefined) this.#stop(fault)
    else this.#pump.trip()
    this.#handlers.onChange()
    return reply
  }

  #followMemory(): void {
    if (this.#session.displaced === undefined) {
      this.#cancelDisplaced?.()
      this.#cancelDisplaced = undefined
      return
    }
    this.#cancelDisplaced ??= this.#clock.setTimer(DISPLACED_MS, () => {
      this.#cancelDisplaced = undefined
      const { displaced } = this.#session
      if (displaced === undefined) return
      this.#stop(displaced)
      this.#handlers.onChange()
    })
  }

  #end(error: DeviceError | undefined): void {
    if (this.#closed) return
    this.close()
    this.#handlers.onEnd(error)
  }

  /** The guest broke a rule. Its rings are left alone; the VMM is still listened to. */
  #stop(fault: DeviceError): void {
    this.fault = fault
    this.#pump.settle()
    this.#session.halt()
    this.#platform.reportFault()
    this.resetConnections()
  }
}

/** struct virtio_vsock_config: le64 guest_cid. */
function configSpace(guestCid: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(guestCid), true)
  return bytes
}
