import { VsockDevice } from '../src/machine/device.js'
import { Op } from '../src/machine/packet.js'
import { SplitRing } from '../src/machine/vring.js'
import { type DriverRing, FakeGuest, GUEST_BASE, MEMORY_SIZE } from './fake-guest.js'
import { OPTIONS } from './fake-vm.js'

/** Takes one of `count` ways to go on. */
export type Choose = (count: number) => number

/** Runs `run` once for every sequence of choices that it can make; says how many there were. `run` must depend on nothing else. */
export function everyOrder(run: (choose: Choose) => void, limit: number): number {
  const path: { choice: number; count: number }[] = []
  for (let runs = 1; ; runs++) {
    if (runs > limit) throw new Error(`more than ${limit} orders`)
    let depth = 0
    run((count) => {
      path[depth] ??= { choice: 0, count }
      return path[depth++]!.choice
    })
    path.length = depth
    while (path.length > 0 && path.at(-1)!.choice === path.at(-1)!.count - 1) path.pop()
    const last = path.at(-1)
    if (last === undefined) return runs
    last.choice++
  }
}

/** Calls `before` before each access of the device to the indexes of the rings, while `run` runs. */
function beforeEachAccess(before: () => void, run: () => void): void {
  const { load, store } = Atomics
  Object.assign(Atomics, {
    load: (...args: Parameters<typeof load>) => {
      before()
      return load(...args)
    },
    store: (...args: Parameters<typeof store>) => {
      before()
      return store(...args)
    },
  })
  try {
    run()
  } finally {
    Object.assign(Atomics, { load, store })
  }
}

export interface Play {
  /** Packets that the host sends, one trip to the rings each. */
  toGuest: number
  /** Packets that the guest sends. */
  toHost: number
  /** Whether the guest reaps its transmit buffers only when it is interrupted for them. */
  reaps: boolean
  /**
   * The guest's stores of an index that it then compares with the device's may be seen only after it has looked at the device's: an
   * emulated guest without memory barriers. They are seen in order, and at some time.
   */
  late: boolean
  /** The event indexes at the beginning: near the wrap of 16 bits, for one. */
  from: number
}

/** What was left waiting when neither side had anything to do, before and after looks at the rings. */
export interface Outcome {
  stalled: boolean
  looks: number
}

const memory = new Uint8Array(MEMORY_SIZE)
const RING_SIZE = 8

/** A device and its guest, both one atomic access at a time, in one of all orders. Throws if looks at the rings do not end a wait. */
export function play({ toGuest, toHost, reaps, late, from }: Play, choose: Choose): Outcome {
  memory.fill(0, 0, 0x1_2000)
  const fake = new FakeGuest({ size: RING_SIZE, memory })
  for (const ring of [fake.rx, fake.tx]) ring.startAt(from)
  const guest = new GuestSide(fake, { toHost, reaps, late })
  const device = new DeviceSide(fake, { toGuest, from }, guest)
  const interleave = () => guest.doSome(choose)

  const untilNothingMoves = () => {
    for (let turns = 0; turns < 1_000; turns++) {
      const events = device.events()
      if (events.length > 0) {
        beforeEachAccess(interleave, events[events.length === 1 ? 0 : choose(events.length)]!)
        continue
      }
      const steps = guest.steps()
      if (steps.length === 0) return
      steps[steps.length === 1 ? 0 : choose(steps.length)]!()
    }
    throw new Error('does not come to rest')
  }

  untilNothingMoves()
  const waits = () => guest.waits || device.waits
  const stalled = waits()
  let looks = 0
  for (; waits(); looks++) {
    if (looks === 3) throw new Error('looks do not help')
    if (device.look()) beforeEachAccess(interleave, () => device.trip())
    untilNothingMoves()
  }
  return { stalled, looks }
}

/** The device, and what it may do next. */
class DeviceSide {
  readonly #device = new VsockDevice(OPTIONS)
  readonly #rx: SplitRing
  readonly #tx: SplitRing
  readonly #fake: FakeGuest
  readonly #guest: GuestSide
  readonly #toGuest: number
  #written = 0
  #owed = false

  constructor(fake: FakeGuest, { toGuest, from }: Pick<Play, 'toGuest' | 'from'>, guest: GuestSide) {
    this.#fake = fake
    this.#guest = guest
    this.#toGuest = toGuest
    this.#rx = new SplitRing(fake.memory, fake.rx.layout, fake.features, from)
    this.#tx = new SplitRing(fake.memory, fake.tx.layout, fake.features, from)
    // One word for one packet: resets of no connection are answered by nothing, requests with one reset each.
    for (let i = 0; i < toGuest; i++) fake.rx.add([{ address: GUEST_BASE + 0x2_0000 + 0x100 * i, length: 64, writable: true }])
    this.#tx.enableKicks()
  }

  get waits(): boolean {
    return this.#tx.snapshot().taken !== this.#fake.tx.availIndex || this.#device.muxer.outgoing
  }

  /** What it may do next, one of them. */
  events(): (() => void)[] {
    const events: (() => void)[] = []
    if (this.#guest.hasKicked) events.push(() => this.#kicked())
    if (this.#written < this.#toGuest) events.push(() => this.#connect())
    if (this.#owed) events.push(() => this.#settle())
    return events
  }

  trip(): void {
    this.#device.process(this.#rx, this.#tx, 0)
    const { rx, tx, owed } = this.#device.announce(this.#rx, this.#tx)
    if (rx) this.#guest.interrupt('rx')
    if (tx) this.#guest.interrupt('tx')
    this.#owed = owed
  }

  /** A look at the rings after a while; true if there has to be a trip. */
  look(): boolean {
    const { rx, tx } = this.#device.look(this.#rx, this.#tx)
    if (rx) this.#guest.interrupt('rx')
    if (tx) this.#guest.interrupt('tx')
    return this.#device.unkicked(this.#rx, this.#tx, 0) !== undefined
  }

  #kicked(): void {
    this.#guest.takeKick()
    this.trip()
  }

  #connect(): void {
    this.#written++
    this.#device.muxer.connect(5000 + this.#written, 0)
    this.trip()
  }

  #settle(): void {
    this.#owed = false
    if (this.#device.settle(this.#tx)) this.#guest.interrupt('tx')
  }
}

/** The guest: its interrupt handlers, its transmitter, and the stores of theirs that are yet to be seen. */
class GuestSide {
  readonly #rx: Reaper
  readonly #tx: Reaper | undefined
  readonly #sender: Sender
  readonly #stores: (() => void)[] = []

  constructor(fake: FakeGuest, { toHost, reaps, late }: Pick<Play, 'toHost' | 'reaps' | 'late'>) {
    const store = (write: () => void) => void (late ? this.#stores.push(write) : write())
    this.#rx = new Reaper(fake.rx, store)
    this.#tx = reaps ? new Reaper(fake.tx, store) : undefined
    this.#sender = new Sender(fake, toHost, store)
  }

  get waits(): boolean {
    return this.#rx.late || this.#tx?.late === true || !this.#sender.done
  }

  get hasKicked(): boolean {
    return this.#sender.kicked
  }

  takeKick(): void {
    this.#sender.kicked = false
  }

  interrupt(ring: 'rx' | 'tx'): void {
    const reaper = ring === 'rx' ? this.#rx : this.#tx
    if (reaper !== undefined) reaper.interrupted = true
  }

  /** What it may do next, one of them. */
  steps(): (() => void)[] {
    const steps = [this.#rx, this.#tx, this.#sender].flatMap((each) => each?.step() ?? [])
    return this.#stores.length === 0 ? steps : [...steps, () => void this.#stores.shift()!()]
  }

  /** It does some of what it can. */
  doSome(choose: Choose): void {
    for (;;) {
      const steps = this.steps()
      const choice = steps.length === 0 ? 0 : choose(steps.length + 1)
      if (choice === 0) return
      steps[choice - 1]!()
    }
  }
}

type Doing = 'asleep' | 'draining' | 'arming' | 'checking'
type Store = (write: () => void) => void

/** The guest's work for an interrupt, as Linux has it: takes what is used, wishes for the next, and looks once more. */
class Reaper {
  interrupted = false
  #at: Doing = 'asleep'
  #seen: number
  readonly #ring: DriverRing
  readonly #store: Store

  constructor(ring: DriverRing, store: Store) {
    this.#ring = ring
    this.#seen = ring.usedIndex
    ring.usedEvent = this.#seen
    this.#store = store
  }

  get late(): boolean {
    return this.#seen !== this.#ring.usedIndex
  }

  /** Its next access to the ring; undefined while it sleeps. */
  step(): (() => void) | undefined {
    switch (this.#at) {
      case 'asleep':
        return this.interrupted ? () => this.#wake() : undefined
      case 'draining':
        return () => (this.late ? this.#take() : this.#to('arming'))
      case 'arming':
        return () => {
          const wish = this.#seen
          this.#store(() => {
            this.#ring.usedEvent = wish
          })
          this.#to('checking')
        }
      case 'checking':
        return () => this.#to(this.late ? 'draining' : 'asleep')
    }
  }

  #wake(): void {
    this.interrupted = false
    this.#to('draining')
  }

  #take(): void {
    this.#seen = (this.#seen + 1) & 0xffff
  }

  #to(at: Doing): void {
    this.#at = at
  }
}

/** The guest's transmitter: shows a packet, looks whether the device wants a kick for it, and goes on to the next. */
class Sender {
  kicked = false
  #left: number
  #shown = false
  readonly #guest: FakeGuest
  readonly #store: Store

  constructor(guest: FakeGuest, count: number, store: Store) {
    this.#guest = guest
    this.#left = count
    this.#store = store
  }

  get done(): boolean {
    return this.#left === 0
  }

  step(): (() => void) | undefined {
    if (this.#left === 0) return undefined
    return this.#shown ? () => this.#kick() : () => this.#show()
  }

  #show(): void {
    const { tx } = this.#guest
    const before = tx.availIndex
    this.#guest.send({ op: Op.RST, sourcePort: 7, destinationPort: 9 })
    const after = tx.next
    tx.availIndex = before
    this.#store(() => {
      tx.availIndex = after
    })
    this.#shown = true
  }

  #kick(): void {
    const { tx } = this.#guest
    const after = tx.next
    // vring_need_event
    if (((after - tx.availEvent - 1) & 0xffff) < 1) this.kicked = true
    this.#shown = false
    this.#left--
  }
}
