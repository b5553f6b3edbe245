import { type Budget, VsockDevice } from '../src/machine/device.js'
import { VsockSwitch } from '../src/machine/switch/switch.js'
import { SplitRing } from '../src/machine/vring.js'
import { FakeGuest } from './fake-guest.js'
import { OPTIONS } from './fake-vm.js'
import { GuestDriver } from './guest-driver.js'
import { GuestKernel } from './guest-kernel.js'

export interface NodeOptions {
  readonly groups?: readonly string[]
  /** Payload that each receive buffer has room for. Default 1024. */
  readonly room?: number
  readonly maxConnections?: number
  readonly budget?: Budget
}

/** One guest of a network, with its kernel, its driver and its device. */
export class Node {
  readonly cid: number
  guest!: FakeGuest
  driver!: GuestDriver
  kernel!: GuestKernel
  readonly device: VsockDevice
  /** Something has called for a trip to the rings. Without that there is none. */
  due = false
  /** Trips to the rings. */
  trips = 0
  /** Its kernel is a test's: packets are sent and received by hand. */
  raw = false
  /** False: its VM is paused, or gone. */
  running = true
  rx!: SplitRing
  tx!: SplitRing
  readonly switch: VsockSwitch
  readonly #room: number
  readonly #onLeave: () => void

  constructor(
    network: FakeNetwork,
    on: VsockSwitch,
    cid: number,
    { groups = ['default'], room = 1024, budget, ...limits }: NodeOptions,
  ) {
    this.cid = cid
    this.switch = on
    this.#room = room
    const allocate = (size: number) => {
      network.onAllocate(size)
      return new Uint8Array(size)
    }
    const options = { ...OPTIONS, ...limits, guestCid: cid, allocate }
    const port = on.join({ ...options, cid, groups })
    this.device = new VsockDevice(options, { onTouch: () => this.#touch(), port, ...(budget && { budget }) })
    this.#boot()
    network.nodes.push(this)
    network.onJoin(this, groups)
    this.#onLeave = () => network.onLeave(this)
  }

  /** A trip to the rings, if there is a reason for one. */
  trip(now: number): boolean {
    if (!this.due || !this.running) return false
    this.due = false
    this.trips++
    if (this.device.process(this.rx, this.tx, now)) this.due = true
    return true
  }

  /** Its timer: a trip follows, as the pump makes one. */
  wake(now: number): void {
    if (now < this.device.wakeAt) return
    this.device.wake(now)
    this.due = true
  }

  /** The guest reboots: its driver begins again with empty rings, and knows nothing of what was. */
  reboot(now: number): void {
    this.device.abandon(now)
    this.#boot()
  }

  /** The device is closed: the guest is gone for good. */
  leave(now: number): void {
    this.running = false
    this.switch.remove(this.cid)
    this.device.abandon(now)
    this.#onLeave()
  }

  #boot(): void {
    this.guest = new FakeGuest()
    this.driver = new GuestDriver(this.guest, () => this.#touch(), { room: this.#room })
    this.kernel = new GuestKernel(this.cid, this.driver)
    this.rx = this.#ring('rx')
    this.tx = this.#ring('tx')
    // The rings start: the first look is for free.
    this.due = true
  }

  #touch(): void {
    this.due = true
  }

  #ring(which: 'rx' | 'tx'): SplitRing {
    const { memory, features } = this.guest
    return new SplitRing(memory, this.guest[which].layout, features, 0)
  }
}

interface Extra {
  /** True if it moved. */
  step(now: number): boolean
  readonly wakeAt: number
  wake(now: number): void
}

/**
 * Several guests in virtual time, each with a memory and rings of its own, on one switch or on several. A device makes a trip to its rings
 * only when a guest has kicked it, as its rings have asked, or when the switch has touched it: a wake-up that is missing shows as a standstill.
 */
export class FakeNetwork {
  now = 1_000
  /** Told of each buffer that a device or the switch asks for. */
  onAllocate: (size: number) => void = () => {}
  readonly nodes: Node[] = []
  readonly switches: VsockSwitch[] = []
  readonly #random: () => number
  /** What moves besides the guests: links between switches. */
  readonly extras: Extra[] = []
  onJoin: (node: Node, groups: readonly string[]) => void = () => {}
  onLeave: (node: Node) => void = () => {}

  constructor(random: () => number, switches = 1) {
    this.#random = random
    for (let i = 0; i < switches; i++) this.switches.push(new VsockSwitch())
  }

  /** Adds a guest to a switch: one after the other, unless it is named. */
  add(cid: number, options: NodeOptions = {}, on = this.switches[this.nodes.length % this.switches.length]!): Node {
    return new Node(this, on, cid, options)
  }

  node(cid: number): Node {
    const found = this.nodes.find((node) => node.cid === cid)
    if (found === undefined) throw new Error(`no guest ${cid}`)
    return found
  }

  /**
   * Lets everything move in a random order until `done` holds. When nothing moves, the time does.
   *
   * @param programs what else may move.
   * @throws Error if nothing ever moves again, or if it takes too many turns.
   */
  run(done: () => boolean, programs: readonly { step(): boolean }[] = [], limit = 200_000): void {
    for (let turns = 0, still = 0; !done(); turns++) {
      if (turns > limit) throw new Error(`does not come to an end: ${this.#describe()}`)
      const moved = this.#turn(programs)
      still = moved ? 0 : still + 1
      // Everything had its chance, and nothing moved.
      if (still > 40 * (this.nodes.length + programs.length + 1) && !this.#all(programs)) {
        still = 0
        this.#jump()
      }
    }
  }

  /**
   * Lets everything move once a round, and `ms` pass, until `done` holds. Returns how many rounds that took.
   *
   * @throws Error after `limit` rounds.
   */
  rounds(done: () => boolean, programs: readonly { step(): boolean }[], { ms = 1, limit = 10_000 } = {}): number {
    for (let rounds = 0; ; rounds++) {
      if (done()) return rounds
      if (rounds === limit) throw new Error(`not within ${limit} rounds: ${this.#describe()}`)
      this.#all(programs)
      this.advance(ms)
    }
  }

  /** Lets everything move until nothing does. The time stands still. */
  rest(programs: readonly { step(): boolean }[] = [], limit = 20_000): void {
    for (let rounds = 0; this.#all(programs); rounds++) {
      if (rounds > limit) throw new Error('does not come to rest')
    }
  }

  /** Lets the rings come to rest, and every time that something has to end by pass. Nothing may be left then. */
  end(): void {
    for (let i = 0; i < 4; i++) {
      this.rest()
      this.advance(10_000)
    }
    this.rest()
    for (const { cid, device, kernel, running } of this.nodes) {
      if (!running) continue
      const left = {
        held: device.port.held,
        connections: device.port.size,
        sockets: kernel.sockets.size,
        packets: kernel.waiting,
      }
      if (Object.values(left).some((count) => count !== 0))
        throw new Error(`guest ${cid} leaves ${JSON.stringify(left)}: ${this.#describe()}`)
    }
  }

  /** Lets the time pass. */
  advance(ms: number): void {
    this.now += ms
    for (const node of this.nodes) node.wake(this.now)
    for (const extra of this.extras) extra.wake(this.now)
  }

  #turn(programs: readonly { step(): boolean }[]): boolean {
    const pick = <T>(of: readonly T[]): T => of[Math.floor(this.#random() * of.length)]!
    switch (Math.floor(this.#random() * 4)) {
      case 0:
        return pick(this.nodes).trip(this.now)
      case 1:
        return this.#step(pick(this.nodes), this.#random() < 0.5 ? 1 : undefined)
      case 2:
        return programs.length > 0 && pick(programs).step()
      default:
        return this.extras.length > 0 && pick(this.extras).step(this.now)
    }
  }

  #step({ running, raw, kernel }: Node, most?: number): boolean {
    return running && !raw && kernel.step(this.now, most)
  }

  #all(programs: readonly { step(): boolean }[]): boolean {
    let moved = false
    for (const program of programs) moved = program.step() || moved
    for (const node of this.nodes) {
      moved = this.#step(node) || moved
      moved = node.trip(this.now) || moved
    }
    for (const extra of this.extras) moved = extra.step(this.now) || moved
    return moved
  }

  #jump(): void {
    const wakes = [...this.nodes.flatMap(({ device, kernel }) => [device, kernel]), ...this.extras]
    const at = Math.min(...wakes.map(({ wakeAt }) => wakeAt))
    if (at === Number.POSITIVE_INFINITY) throw new Error(`stands still: ${this.#describe()}`)
    this.advance(Math.max(0, at - this.now))
  }

  #describe(): string {
    return this.nodes
      .map(({ cid, kernel, driver }) => {
        const sockets = [...kernel.sockets].map((s) => `${s.port}-${s.peer.cid}:${s.peer.port} ${s.state} unsent ${s.unsent}`)
        return `guest ${cid}: ${kernel.waiting} packets wait, ${driver.unsent} in the ring, ${sockets.join(', ')}`
      })
      .join('; ')
  }
}
