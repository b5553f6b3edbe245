import { seededRandom } from '@upcall/foundation/testing/seeded-random'
import { describe, expect, test } from 'vitest'
import { SHUTDOWN_RECEIVE } from '../src/machine/packet.js'
import type { FakeNetwork, Node } from './fake-network.js'
import type { KernelSocket, SocketKind } from './kernel-socket.js'
import { runTalks, Talk } from './network-talk.js'
import { pattern, patternByte, randomPlan } from './talk.js'

/** NETWORK_RUNS=2000 searches longer, NETWORK_SEED elsewhere; a failure names its seed. */
const RUNS = process.env.NETWORK_RUNS
const FIRST = Number(process.env.NETWORK_SEED ?? 1)
const KINDS: readonly SocketKind[] = ['stream', 'seqpacket']
const ROOMS = [20, 64, 200, 1000, 1024, 4096]

export type MakeNetwork = (random: () => number) => FakeNetwork

/** What holds for guests that talk to each other, whatever joins them. */
export function networkSuite(make: MakeNetwork, runs = 40): void {
  describe('programs in random orders: all bytes arrive in order, ends are ends, and nothing is left', () =>
    programs(make, Number(RUNS ?? runs)))
  describe('a connection', () => {
    connections(make)
    refusals(make)
  })
  describe('a guest that', () => {
    slowGuests(make)
    goingGuests(make)
  })
}

function forEachSeed(make: MakeNetwork, runs: number, run: (network: FakeNetwork, random: () => number) => void): void {
  for (let seed = FIRST; seed < FIRST + runs; seed++) {
    const random = seededRandom(seed)
    try {
      run(make(random), random)
    } catch (error) {
      throw new Error(`NETWORK_SEED=${seed} NETWORK_RUNS=1`, { cause: error })
    }
  }
}

function programs(make: MakeNetwork, runs: number): void {
  test('two guests, one connection', () => {
    forEachSeed(make, runs, (network, random) => {
      const [a, b] = [network.add(3), network.add(4)]
      network.rest()
      runTalks(network, [randomTalk(random, a, b, 5000)])
    })
  })

  test('three guests, several connections, and receive buffers of 20 to 4096 bytes', () => {
    forEachSeed(make, runs, (network, random) => {
      const pick = <T>(of: readonly T[]) => of[Math.floor(random() * of.length)]!
      const nodes = [3, 4, 5].map((cid) => network.add(cid, { room: pick(ROOMS) }))
      network.rest()
      const talks = Array.from({ length: 1 + Math.floor(random() * 6) }, (_, i) =>
        randomTalk(random, pick(nodes), pick(nodes), 5000 + i),
      )
      runTalks(network, talks)
    })
  })

  test('a guest with itself', () => {
    forEachSeed(make, runs, (network, random) => {
      const guest = network.add(3)
      runTalks(network, [randomTalk(random, guest, guest, 5000), randomTalk(random, guest, guest, 5001)])
    })
  })

  test('the same ports in both directions', () => {
    forEachSeed(make, runs, (network, random) => {
      const [a, b] = [network.add(3), network.add(4)]
      network.rest()
      const talk = (from: Node, to: Node, kind: SocketKind) => {
        const plans = { callerPlan: randomPlan(random, { kind }), serverPlan: randomPlan(random, { kind }) }
        return new Talk(from, to, { ...plans, kind, port: 7001, options: { port: 7000 } })
      }
      runTalks(network, [talk(a, b, 'stream'), talk(b, a, 'stream')])
    })
  })

  test('forty connections both ways: guests that answer before they read do not wait for each other', () => {
    const network = make(seededRandom(1))
    const [a, b] = [network.add(3), network.add(4)]
    network.rest()
    const plan = { seed: 9, writes: [60_000, 60_000, 60_000], appetite: 30_000, sleeps: 0, ending: 'shutdown' } as const
    const talks = Array.from({ length: 40 }, (_, i) => {
      const ends = i % 2 === 0 ? ([a, b] as const) : ([b, a] as const)
      return new Talk(...ends, { port: 5000 + i, callerPlan: plan, serverPlan: { ...plan, seed: 10 + i } })
    })
    network.run(() => talks.every((talk) => talk.done), talks, 2_000_000)
    for (const talk of talks) talk.check()
    network.end()
  })
}

function connections(make: MakeNetwork): void {
  test.each(KINDS)('of %s: half-closes from both ends, one after the other', (kind) => {
    const { network, caller, callee } = connected(make, kind)
    caller.write(pattern(1, 0, 500))
    caller.shutdown(2)
    network.rest()
    expect(take(callee)).toEqual(pattern(1, 0, 500))
    expect(callee.end).toBe('shutdown')
    callee.write(pattern(2, 0, 900))
    network.rest()
    expect(take(caller)).toEqual(pattern(2, 0, 900))
    expect([caller.end, caller.state]).toEqual([undefined, 'established'])
    callee.close()
    network.rest()
    expect(caller.end).toBe('shutdown')
    caller.close()
    network.end()
  })

  test.each(KINDS)(
    'of %s: a receiving half that is shut drops what is under way and leaves the other direction alone',
    (kind) => {
      const { network, caller, callee } = connected(make, kind)
      callee.shutdown(SHUTDOWN_RECEIVE)
      network.rest()
      expect(caller.refused).toBe(true)
      callee.write(pattern(2, 0, 900))
      network.rest()
      expect(take(caller)).toEqual(pattern(2, 0, 900))
      caller.close()
      callee.close()
      network.end()
    },
  )

  test('that is reset has brought all bytes that came before the RST, as far as its reader takes them', () => {
    // More packets than the guest may have waiting: the rest comes as it reads.
    const { network, caller, callee } = connected(make, 'stream', { room: 500 })
    caller.write(pattern(1, 0, 60_000))
    network.rest()
    caller.abort()
    network.rest()
    expect(callee.end).toBeUndefined()
    const reader = new Reader(callee, 1)
    const since = network.now
    network.run(() => callee.ended, [reader])
    expect(network.now).toBe(since)
    expect([reader.count, callee.end]).toEqual([60_000, 'reset'])
    network.end()
  })

  test.each([
    ['half of the buffer', 32_768],
    ['all of the buffer', 65_536],
  ])('of seqpacket carries a message of %s through buffers of 20 bytes', (_, length) => {
    const { network, caller, callee } = connected(make, 'seqpacket', { room: 20, bufferBytes: 65_536 })
    for (const endOfRecord of [false, true]) caller.write(pattern(3, 0, length), { endOfRecord })
    for (const endOfRecord of [false, true]) {
      // A guest counts packets as well as bytes, so that many of them come only as they are taken. A message is taken as a whole.
      network.run(() => callee.complete)
      expect(callee.readMessage()).toEqual({ bytes: pattern(3, 0, length), endOfRecord })
    }
  })
}

function refusals(make: MakeNetwork): void {
  test('is refused where there is no listener, and where a listener has another type: at once, not by time', () => {
    const network = make(seededRandom(1))
    const [a, b] = [network.add(3), network.add(4)]
    b.kernel.listen(5000, 'stream', () => {})
    const to = { cid: 4, port: 5000 }
    const [closed, other] = [a.kernel.connect({ ...to, port: 5001 }), a.kernel.connect(to, 'seqpacket')]
    network.rest()
    expect([closed.error, other.error]).toEqual(['ECONNRESET', 'ECONNRESET'])
    network.end()
  })

  test('is refused to a guest that shares no group, and to a CID that is not there', () => {
    const network = make(seededRandom(1))
    const nodes = [network.add(3, { groups: ['a', 'b'] }), network.add(4, { groups: ['c'] }), network.add(5, { groups: ['b'] })]
    network.rest()
    for (const { kernel } of nodes) kernel.listen(5000, 'stream', () => {})
    const reached = (from: number, to: number) => {
      const socket = nodes[from]!.kernel.connect({ cid: to, port: 5000 })
      network.rest()
      return socket.error ?? socket.state
    }
    expect([reached(0, 4), reached(0, 5), reached(2, 3), reached(1, 3)]).toEqual([
      'ECONNRESET',
      'established',
      'established',
      'ECONNRESET',
    ])
    expect([reached(0, 99), reached(0, 1), reached(0, 0xffff_ffff)]).toEqual(['ECONNRESET', 'ECONNRESET', 'ECONNRESET'])
    // In no group, not even with a guest like it. It reaches itself.
    const alone = network.add(7, { groups: [] })
    network.add(8, { groups: [] }).kernel.listen(5000, 'stream', () => {})
    network.rest()
    nodes.push(alone)
    alone.kernel.listen(5000, 'stream', () => {})
    expect([reached(3, 8), reached(3, 7)]).toEqual(['ECONNRESET', 'established'])
  })
}

function slowGuests(make: MakeNetwork): void {
  test('reads nothing gets no more than its buffer holds, and holds up no other guest', () => {
    const { network, caller, callee, nodes } = connected(make, 'stream')
    const third = network.add(5)
    network.rest()
    caller.write(pattern(1, 0, 1_000_000))
    network.rest()
    network.advance(60_000)
    network.rest()
    expect([caller.state, callee.state]).toEqual(['established', 'established'])
    expect(callee.mostWaiting).toBeLessThanOrEqual(callee.bufferBytes)
    expect(caller.unsent).toBeGreaterThan(900_000)
    const plans = { callerPlan: calm(1), serverPlan: calm(2) }
    const talks = [new Talk(third, nodes[1], { port: 6000, ...plans }), new Talk(nodes[0], third, { port: 6001, ...plans })]
    network.run(() => talks.every((talk) => talk.done), talks)
    const reader = new Reader(callee, 1)
    network.run(() => reader.count === 1_000_000, [reader], 2_000_000)
  })

  test('is paused gets everything when it goes on', () => {
    const { network, caller, callee, nodes } = connected(make, 'stream')
    nodes[1].running = false
    caller.write(pattern(1, 0, 60_000))
    caller.close()
    network.rest()
    network.advance(5_000)
    nodes[1].running = true
    network.rest()
    expect(take(callee)).toEqual(pattern(1, 0, 60_000))
    expect(callee.end).toBe('shutdown')
  })
}

function goingGuests(make: MakeNetwork): void {
  test.each(['caller', 'callee'] as const)('reboots resets its connections (%s), and its ports are free at once', (which) => {
    const { network, caller, callee, nodes } = connected(make, 'stream')
    caller.write(pattern(1, 0, 200_000))
    callee.write(pattern(1, 0, 200_000))
    network.rest()
    const [gone, stays] = which === 'caller' ? [nodes[0], nodes[1]] : [nodes[1], nodes[0]]
    const socket = which === 'caller' ? callee : caller
    gone.reboot(network.now)
    network.rest()
    // The bytes that were under way come first.
    for (let i = 0; i < 10 && socket.state !== 'closed'; i++) {
      socket.read(100_000)
      network.rest()
    }
    expect([socket.state, socket.end]).toEqual(['closed', 'reset'])
    expect(gone.kernel.strays).toEqual([])
    const back = new Talk(nodes[0], nodes[1], {
      options: { port: caller.port },
      port: 5000,
      callerPlan: calm(1),
      serverPlan: calm(2),
    })
    runTalks(network, [back])
    expect(stays.kernel.sockets.size).toBe(0)
  })

  test('goes for good is unknown from then on: its connections are reset, new ones are refused', () => {
    const { network, caller, callee, nodes } = connected(make, 'stream')
    const second = nodes[0].kernel.connect({ cid: 4, port: 5000 })
    network.rest()
    callee.write(pattern(1, 0, 100))
    network.rest()
    nodes[1].leave(network.now)
    network.rest()
    expect(take(caller)).toEqual(pattern(1, 0, 100))
    expect([caller.end, second.end]).toEqual(['reset', 'reset'])
    const late = nodes[0].kernel.connect({ cid: 4, port: 5000 })
    network.rest()
    expect(late.error).toBe('ECONNRESET')
    network.end()
  })

  test('takes the place of a guest that is gone is reached by its CID', () => {
    const { network, nodes } = connected(make, 'stream')
    nodes[1].leave(network.now)
    network.rest()
    const again = network.add(4)
    network.rest()
    runTalks(network, [new Talk(nodes[0], again, { port: 5000, callerPlan: calm(1), serverPlan: calm(2) })])
  })
}

const calm = (seed: number) => ({ seed, writes: [10, 70_000, 3], appetite: 10_000, sleeps: 0, ending: 'shutdown' }) as const

export function randomTalk(random: () => number, from: Node, to: Node, port: number): Talk {
  const kind = KINDS[Math.floor(random() * 2)]!
  const bufferBytes = [16_384, 65_536, 262_144]
  const buffer = () => ({ bufferBytes: bufferBytes[Math.floor(random() * 3)]! })
  const plans = { callerPlan: randomPlan(random, { kind }), serverPlan: randomPlan(random, { kind }) }
  return new Talk(from, to, { ...plans, kind, port, options: buffer(), serverOptions: buffer() })
}

interface Connected {
  readonly network: FakeNetwork
  readonly nodes: readonly [Node, Node]
  readonly caller: KernelSocket
  readonly callee: KernelSocket
}

/** Guests 3 and 4, and a connection from 3 to port 5000 of 4. */
export function connected(make: MakeNetwork, kind: SocketKind, options: { room?: number; bufferBytes?: number } = {}): Connected {
  const network = make(seededRandom(1))
  const nodes = [network.add(3, options), network.add(4, options)] as const
  network.rest()
  let callee: KernelSocket | undefined
  nodes[1].kernel.listen(5000, kind, (socket) => (callee ??= socket), options)
  const caller = nodes[0].kernel.connect({ cid: 4, port: 5000 }, kind, options)
  network.rest()
  expect(caller.state).toBe('established')
  return { network, nodes, caller, callee: callee! }
}

/** All that waits for the program of a socket. */
function take(socket: KernelSocket): Uint8Array {
  if (socket.kind === 'stream') return socket.read(10_000_000)
  const parts: number[] = []
  for (let message = socket.readMessage(); message !== undefined; message = socket.readMessage()) parts.push(...message.bytes)
  return Uint8Array.from(parts)
}

/** A program that reads a pattern, and nothing else. */
class Reader {
  count = 0
  constructor(
    readonly socket: KernelSocket,
    readonly seed: number,
  ) {}

  step(): boolean {
    const before = this.count
    for (const byte of this.socket.read(50_000)) {
      if (byte !== patternByte(this.seed, this.count)) throw new Error(`byte ${this.count} is wrong`)
      this.count++
    }
    return this.count > before
  }
}
