import type { Clock } from '@upcall/foundation/clock'
import { type Rings, RX_RING, TX_RING, type VsockDevice } from './machine/device.js'
import type { Overdue } from './machine/vring.js'

/**
 * How long a guest may take to catch up before it is interrupted again, and how often the rings are looked at without a kick while
 * connections are open.
 */
const LOOK_MS = 100

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

export interface LookoutOptions {
  readonly device: VsockDevice
  readonly rings: Rings
  readonly clock: Clock
  readonly notify: (ring: number) => void
  readonly onRecovery: (recovery: Recovery) => void
  /** A trip to the rings is about to come: what it will find needs no help. */
  readonly isTripPlanned: () => boolean
  readonly trip: () => void
  /** A look at the rings threw. */
  readonly onError: (error: unknown) => void
}

type RingNumber = typeof RX_RING | typeof TX_RING
const WATCHED = ['rx', 'tx', 'kick'] as const

/**
 * Ends a wait of guest and device for each other, whichever side is to blame: QEMU before 8.1 leaves out the memory barriers of a guest
 * with one emulated CPU, so that the guest's wish and the device's look at it can miss each other. 100 ms after a ring gave the guest
 * something, the guest is interrupted again if it has not caught up; 100 ms after the last trip its kicks are looked after. And so on
 * while connections are open or the guest is behind. Each has a time of its own: what goes on elsewhere puts off no ring's look.
 */
export class Lookout {
  readonly #options: LookoutOptions
  /** When to look next, by the clock: whether the guest has taken what each ring gave it, and whether a kick was missed. */
  readonly #lookAt = { rx: 0, tx: 0, kick: 0 }
  /** Trips to the rings so far: a kick is lost only if there is no trip meanwhile. */
  #trips = 0
  #cancel: (() => void) | undefined
  #closed = false

  constructor(options: LookoutOptions) {
    this.#options = options
  }

  close(): void {
    this.#closed = true
    this.#cancel?.()
  }

  tripBegins(): void {
    this.#trips++
  }

  /** The trip is over, and the guest has not been interrupted for it yet. */
  tripEnds(now: number): void {
    const { rx, tx } = this.#options.rings
    const later = now + LOOK_MS
    this.#lookAt.kick = later
    if (rx !== undefined && rx.unannounced > 0) this.#lookAt.rx = later
    if (tx !== undefined && tx.unannounced > 0) this.#lookAt.tx = later
    this.#lookIn(LOOK_MS)
  }

  #lookIn(ms: number): void {
    if (!this.#closed) this.#cancel ??= this.#options.clock.setTimer(ms, () => this.#look())
  }

  #look(): void {
    this.#cancel = undefined
    const { device, rings, clock, isTripPlanned, onError } = this.#options
    const { rx, tx } = rings
    if (this.#closed || (rx === undefined && tx === undefined)) return
    const now = clock.now()
    const at = this.#lookAt
    const due = { rx: now >= at.rx, tx: now >= at.tx, kick: now >= at.kick }
    try {
      const overdue = device.look(due.rx ? rx : undefined, due.tx ? tx : undefined)
      const unkicked = due.kick && !isTripPlanned() ? device.unkicked(rx, tx, now) : undefined
      if (overdue.rx) this.#interruptAgain(RX_RING, overdue.rx)
      if (overdue.tx) this.#interruptAgain(TX_RING, overdue.tx)
      if (unkicked !== undefined) this.#lookTwice(unkicked)
      const again = overdue.rx || overdue.tx || device.size > 0 || !(due.rx && due.tx && due.kick)
      for (const each of WATCHED) if (due[each]) at[each] = now + LOOK_MS
      if (again) this.#lookIn(Math.min(at.rx, at.tx, at.kick) - now)
    } catch (error) {
      onError(error)
    }
  }

  #interruptAgain(ring: RingNumber, { lost, looks }: Overdue): void {
    // A guest that is paused or busy is interrupted ever more rarely: after 100, 200, 400 ms and so on.
    if ((looks & (looks - 1)) !== 0) return
    this.#options.notify(ring)
    if (looks === 1) this.#tell(ring, 'interrupt', lost)
  }

  /** A kick that is on its way comes first: the event loop hears of it before this. */
  #lookTwice(ring: RingNumber): void {
    const trips = this.#trips
    setImmediate(() => {
      if (this.#closed || trips !== this.#trips) return
      this.#tell(ring, 'kick', true)
      this.#options.trip()
    })
  }

  #tell(ring: RingNumber, by: Recovery['by'], lost: boolean): void {
    this.#options.onRecovery({ ring: ring === RX_RING ? 'rx' : 'tx', by, lost })
  }
}
