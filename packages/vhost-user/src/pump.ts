import type { Clock } from '@upcall/foundation/clock'
import { Alarm } from './alarm.js'
import { Lookout, type Recovery } from './lookout.js'
import { type Rings, RX_RING, TX_RING, type VsockDevice } from './machine/device.js'
import { type DeviceError, toDeviceError } from './machine/errors.js'

/** How long an interrupt for used transmit buffers may wait for an interrupt that has packets to tell of. A shorter timer costs more than it saves. */
const SETTLE_MS = 10

/** Trips to the rings that callbacks may bring about, one after the other, before the event loop has to turn. */
const TRIPS_PER_TURN = 4

export interface PumpOptions {
  readonly device: VsockDevice
  readonly rings: Rings
  readonly clock: Clock
  /** Interrupts the guest for a ring. */
  readonly notify: (ring: number) => void
  /** Connections may have news. */
  readonly onNews: () => void
  /** The guest broke a rule: its rings are not to be touched again. */
  readonly onFault: (fault: DeviceError) => void
  readonly onRecovery: (recovery: Recovery) => void
}

/** The one place that runs the device: it decides when there is a trip to the rings, and interrupts the guest afterwards. */
export class Pump {
  readonly #options: PumpOptions
  readonly #lookout: Lookout
  readonly #alarm: Alarm
  /**
   * The next trip: none is planned, one comes after the current callback, or one comes after a turn of the event loop. Until that turn
   * there is no other trip.
   */
  #next: 'none' | 'callback' | 'turn' = 'none'
  #trips = 0
  #closed = false
  #cancelSettle: (() => void) | undefined

  constructor(options: PumpOptions) {
    this.#options = options
    const { device, clock } = options
    this.#alarm = new Alarm(clock, () => {
      device.wake(clock.now())
      this.trip()
    })
    this.#lookout = new Lookout({
      ...options,
      isTripPlanned: () => this.#next !== 'none',
      trip: () => this.trip(),
      onError: (error) => options.onFault(toDeviceError(error)),
    })
  }

  /** No trip comes any more, and no timer is left. */
  close(): void {
    this.#closed = true
    this.#alarm.cancel()
    this.#cancelSettle?.()
    this.#lookout.close()
  }

  /** The guest has kicked. */
  kicked(): void {
    this.#trips = 0
    this.trip()
  }

  /** The event loop brings something for the connections, which `tell` tells them: what comes of it is one trip, now. */
  arrived(tell: () => void): void {
    if (this.#next !== 'none') {
      tell()
      return
    }
    this.#next = 'callback'
    tell()
    this.#next = 'none'
    this.kicked()
  }

  /**
   * Plans a trip after the current callback, so that all it does to connections is one trip. A trip may bring bytes to a reader who takes
   * them at once, and so the next trip: a fast guest could go on like that for ever, so after some trips the event loop turns first.
   */
  schedule(): void {
    if (this.#next !== 'none') return
    if (this.#trips++ >= TRIPS_PER_TURN) {
      this.#postpone()
      return
    }
    this.#next = 'callback'
    process.nextTick(() => {
      if (this.#next !== 'callback') return
      this.#next = 'none'
      this.trip()
    })
  }

  /** One trip to the rings, unless the event loop has to turn first. */
  trip(): void {
    if (this.#closed || this.#next === 'turn') return
    const { device, rings, clock, onNews, onFault } = this.#options
    const { rx, tx } = rings
    if (rx !== undefined || tx !== undefined) {
      try {
        const now = clock.now()
        this.#lookout.tripBegins()
        const more = device.process(rx, tx, now)
        this.#lookout.tripEnds(now)
        this.#announce()
        if (more) this.#postpone()
      } catch (error) {
        onFault(toDeviceError(error))
        return
      }
    }
    onNews()
    this.#alarm.set(device.wakeAt)
  }

  /** Interrupts the guest for all that was done, also where an interrupt was put off: the rings may be about to go. */
  settle(): void {
    this.#announce()
    this.#sendPutOff()
  }

  #postpone(): void {
    if (this.#next === 'turn') return
    this.#next = 'turn'
    setImmediate(() => {
      this.#next = 'none'
      this.#trips = 0
      this.trip()
    })
  }

  #announce(): void {
    const { device, rings, clock, notify } = this.#options
    const { rx, tx, owed } = device.announce(rings.rx, rings.tx)
    if (rx) notify(RX_RING)
    if (tx) notify(TX_RING)
    if (owed) this.#cancelSettle ??= clock.setTimer(SETTLE_MS, () => this.#sendPutOff())
  }

  #sendPutOff(): void {
    const { device, rings, notify } = this.#options
    this.#cancelSettle?.()
    this.#cancelSettle = undefined
    if (device.settle(rings.tx)) notify(TX_RING)
  }
}
