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
  const device = new VsockDevice(OPTIONS)
  const rx = new SplitRing(fake.memory, fake.rx.layout, fake.features, from)
  const tx = new SplitRing(fake.memory, fake.tx.layout, fake.features, from)
  // One word for one packet: resets of no connection are answered by nothing, requests with one reset each.
  for (let i = 0; i < toGuest; i++) fake.rx.add([{ address: GUEST_BASE + 0x2_0000 + 0x100 * i, length: 64, writable: true }])
  tx.enableKicks()

  const stores: (() => void)[] = []
  const store = (write: () => void) => void (late ? stores.push(write) : write())
  const guest = [new Reaper(fake.rx, store), ...(reaps ? [new Reaper(fake.tx, store)] : [])]
  const sender = new Sender(fake, toHost, store)
  const steps = () => [...guest, sender].flatMap((each) => each.step() ?? [])
  const step = (among: (() => void)[], at: number) => void among[at]!()
  const enabled = () => {
    const [oldest] = stores
    return oldest === undefined ? steps() : [...steps(), () => void stores.shift()!()]
  }
  /** The guest does some of what it can. */
  const interleave = () => {
    for (;;) {
      const can = enabled()
      const choice = can.length === 0 ? 0 : choose(can.length + 1)
      if (choice === 0) return
      step(can, choice - 1)
    }
  }

  let written = 0
  let owed = false
  const interrupt = (ring: 'rx' | 'tx') => {
    const reaper = guest[ring === 'rx' ? 0 : 1]
    if (reaper !== undefined) reaper.interrupted = true
  }
  const trip = () => {
    device.process(rx, tx, 0)
    const announcement = device.announce(rx, tx)
    if (announcement.rx) interrupt('rx')
    if (announcement.tx) interrupt('tx')
    owed = announcement.owed
  }
  /** What the device may do next, one of them. */
  const events = () => [
    ...(sender.kicked
      ? [
          () => {
            sender.kicked = false
            trip()
          },
        ]
      : []),
    ...(written < toGuest
      ? [
          () => {
            written++
            device.muxer.connect(5000 + written, 0)
            trip()
          },
        ]
      : []),
    ...(owed
      ? [
          () => {
            owed = false
            if (device.settle(tx)) interrupt('tx')
          },
        ]
      : []),
  ]

  const untilNothingMoves = () => {
    for (let turns = 0; turns < 1_000; turns++) {
      const device = events()
      if (device.length > 0) {
        const event = device[device.length === 1 ? 0 : choose(device.length)]!
        beforeEachAccess(interleave, event)
        continue
      }
      const can = enabled()
      if (can.length === 0) return
      step(can, can.length === 1 ? 0 : choose(can.length))
    }
    throw new Error('does not come to rest')
  }
  const waits = () =>
    guest.some(({ behind }) => behind) || !sender.done || tx.snapshot().taken !== fake.tx.availIndex || device.muxer.outgoing

  untilNothingMoves()
  const stalled = waits()
  let looks = 0
  for (; waits(); looks++) {
    if (looks === 3) throw new Error('looks do not help')
    const look = device.look(rx, tx)
    if (look.rx) interrupt('rx')
    if (look.tx) interrupt('tx')
    if (device.unkicked(rx, tx) !== undefined) beforeEachAccess(interleave, trip)
    untilNothingMoves()
  }
  return { stalled, looks }
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

  get behind(): boolean {
    return this.#seen !== this.#ring.usedIndex
  }

  /** Its next access to the ring; undefined while it sleeps. */
  step(): (() => void) | undefined {
    switch (this.#at) {
      case 'asleep':
        return this.interrupted ? () => this.#wake() : undefined
      case 'draining':
        return () => (this.behind ? this.#take() : this.#to('arming'))
      case 'arming':
        return () => {
          const wish = this.#seen
          this.#store(() => {
            this.#ring.usedEvent = wish
          })
          this.#to('checking')
        }
      case 'checking':
        return () => this.#to(this.behind ? 'draining' : 'asleep')
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
