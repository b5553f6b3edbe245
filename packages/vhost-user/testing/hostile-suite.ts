import { seededRandom } from '@upcall/foundation/testing/seeded-random'
import { describe, expect, test } from 'vitest'
import { LARGEST_PACKET, Op, SEQ_EOM, SHUTDOWN_BOTH, TYPE_SEQPACKET, TYPE_STREAM } from '../src/machine/packet.js'
import { MAX_HELD } from '../src/machine/switch/allowance.js'
import { Attacker } from './attacker.js'
import type { FakeNetwork, Node } from './fake-network.js'
import type { MakeNetwork } from './network-suite.js'
import { Talk } from './network-talk.js'
import { total } from './talk.js'

const HOSTILE = 3
const SERVER = 4
const CLIENT = 5
const ACCOMPLICE = 6
const PORT = 5000
const LIMIT = 64

const PLAN = { writes: [70_000, 70_000, 70_000], appetite: 20_000, sleeps: 0, ending: 'shutdown' } as const

/** A server and a client that are honest, an attacker and its accomplice. */
class Scene {
  readonly network: FakeNetwork
  readonly hostile: Node
  readonly server: Node
  readonly client: Node
  readonly accomplice: Node
  readonly attackers: Attacker[] = []

  constructor(make: MakeNetwork) {
    this.network = make(seededRandom(1))
    const add = (cid: number) => this.network.add(cid, { maxConnections: LIMIT })
    ;[this.hostile, this.server, this.client, this.accomplice] = [add(HOSTILE), add(SERVER), add(CLIENT), add(ACCOMPLICE)]
    this.network.rest()
  }

  attack(node: Node, act: (attacker: Attacker, round: number) => void): Attacker {
    const attacker = new Attacker(node, act)
    this.attackers.push(attacker)
    return attacker
  }

  /** Lets the attack go on for a while. */
  goOn(rounds: number, ms = 1): void {
    let left = rounds
    this.network.rounds(() => left-- === 0, this.#watched(), { ms })
  }

  /** How many rounds an honest talk takes meanwhile. */
  talk(port = 7000, { ms = 1, limit = 5_000 } = {}): number {
    const talk = new Talk(this.client, this.server, {
      port,
      callerPlan: { ...PLAN, seed: 1 },
      serverPlan: { ...PLAN, seed: 2 },
    })
    const rounds = this.network.rounds(() => talk.done, [talk, ...this.#watched()], { ms, limit })
    talk.check()
    expect(talk.caller.received).toBe(total(PLAN as never))
    return rounds
  }

  /** The attackers are gone: nothing of them is left. */
  end(): void {
    for (const { node } of this.attackers) node.leave(this.network.now)
    for (const { sockets } of [this.server.kernel, this.client.kernel]) for (const socket of sockets) socket.close()
    this.network.end()
  }

  /** After each round: what a guest can make grow is within its bounds. */
  #watched(): { step(): boolean }[] {
    const check = () => {
      for (const { device } of this.network.nodes) {
        const { held, size } = device.port
        if (held > MAX_HELD + LARGEST_PACKET) throw new Error(`${held} bytes are held`)
        // What each of the four may begin, at both of its ends.
        if (size > 8 * LIMIT) throw new Error(`${size} connections`)
      }
      return false
    }
    return [...this.attackers, { step: check }]
  }
}

/** How a guest may try to harm its siblings, and does not. */
export function hostileSuite(make: MakeNetwork): void {
  const undisturbed = () => new Scene(make).talk()

  describe('memory stays flat and others are served while a guest', () => {
    floods(make, undisturbed)
    storms(make, undisturbed)
  })
  describe('others are served while a guest', () => {
    deafGuests(make, undisturbed)
    selfishGuests(make, undisturbed)
  })
}

/** A port of its own for each connection. */
const counter = (first = 100_000) => {
  let port = first
  return () => port++
}

function floods(make: MakeNetwork, undisturbed: () => number): void {
  test('floods a sibling beyond its credit, over and over', () => {
    const scene = new Scene(make)
    scene.server.kernel.listen(PORT, 'stream', () => {})
    const next = counter()
    const payload = new Uint8Array(LARGEST_PACKET)
    let sourcePort = 0
    scene.attack(scene.hostile, (attacker, round) => {
      if (round % 10 === 0) {
        sourcePort = next()
        attacker.say(Op.REQUEST, { cid: SERVER, port: PORT }, { sourcePort })
      } else attacker.saySo(() => ({ op: Op.RW, to: { cid: SERVER, port: PORT }, sourcePort }), payload)
    })
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    scene.goOn(300)
    scene.end()
  })

  test.each([
    ['bytes, to an accomplice that claims 4 GiB and takes nothing', LARGEST_PACKET, TYPE_STREAM],
    ['messages of one byte, to an accomplice that claims 4 GiB and takes nothing', 1, TYPE_SEQPACKET],
  ])('sends masses of %s', (_, length, type) => {
    const scene = new Scene(make)
    const next = counter()
    const payload = new Uint8Array(length)
    const ports: number[] = []
    scene.attack(scene.hostile, (attacker, round) => {
      if (ports.length < 20) ports.push(next())
      const to = { cid: ACCOMPLICE, port: PORT }
      if (round < 20) attacker.say(Op.REQUEST, to, { sourcePort: ports[round]!, type })
      let turn = 0
      if (round > 30) {
        attacker.saySo(() => ({ op: Op.RW, to, sourcePort: ports[turn++ % 20]!, type, flags: SEQ_EOM }), payload)
      }
    })
    const accomplice = scene.attack(scene.accomplice, (attacker, round) => {
      attacker.welcome()
      attacker.reads = round < 30
    })
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    scene.goOn(300)
    expect(scene.hostile.device.port.held).toBeGreaterThan(0)
    // A second later its connections are gone, and it begins again.
    scene.goOn(300, 10)
    accomplice.reads = true
    scene.end()
  })

  test('claims packets that are larger than there are', () => {
    const lengths: number[] = []
    const scene = new Scene(make)
    scene.network.onAllocate = (length) => lengths.push(length)
    const next = counter()
    const payload = new Uint8Array(120 * 4096)
    scene.attack(scene.hostile, (attacker, round) => {
      const to = { cid: ACCOMPLICE, port: PORT }
      const sourcePort = next()
      attacker.say(Op.REQUEST, to, { sourcePort })
      if (round > 3) attacker.say(Op.RW, to, { sourcePort: sourcePort - 3 }, payload)
    })
    scene.attack(scene.accomplice, (attacker) => attacker.welcome())
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    scene.goOn(300)
    expect(Math.max(...lengths)).toBeLessThanOrEqual(LARGEST_PACKET)
    scene.end()
  })
}

function storms(make: MakeNetwork, undisturbed: () => number): void {
  const seeded = seededRandom(7)
  const pick = <T>(of: readonly T[]): T => of[Math.floor(seeded() * of.length)]!

  test.each<[string, () => { op: number; type?: number; flags?: number; forwardCount?: number; bufferAllocation?: number }]>([
    ['REQUESTs', () => ({ op: Op.REQUEST })],
    ['RSTs', () => ({ op: Op.RST })],
    ['SHUTDOWNs', () => ({ op: Op.SHUTDOWN, flags: SHUTDOWN_BOTH })],
    ['questions for credit', () => ({ op: Op.CREDIT_REQUEST })],
    [
      'packets of types and operations that do not exist',
      () => ({ op: Math.floor(seeded() * 70_000) & 0xffff, type: pick([0, 1, 2, 3, 9]) }),
    ],
    [
      'anything at all',
      () => ({
        op: Math.floor(seeded() * 9),
        type: pick([1, 2]),
        flags: Math.floor(seeded() * 4),
        forwardCount: Math.floor(seeded() * 2 ** 32),
        bufferAllocation: pick([0, 1, 4096, 2 ** 32 - 1]),
      }),
    ],
  ])('sends %s, to each guest', (_, fields) => {
    const scene = new Scene(make)
    scene.server.kernel.listen(PORT, 'stream', () => {})
    scene.attack(scene.hostile, (attacker) => {
      attacker.saySo(() => ({
        ...fields(),
        to: { cid: pick([0, 1, 2, 3, 4, 5, 6, 7, 99, 2 ** 32 - 1]), port: pick([PORT, 7000, 1, 2 ** 32 - 1]) },
        sourcePort: pick([PORT, 1, 2, 3, 4, 5]),
      }))
      attacker.welcome()
    })
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    scene.goOn(300)
    scene.end()
  })

  test('opens thousands of connections to a server, which another guest still reaches', () => {
    const scene = new Scene(make)
    const next = counter()
    let asked = 0
    scene.server.kernel.listen(PORT, 'stream', () => {})
    scene.attack(scene.hostile, (attacker) => {
      attacker.saySo(() => ({ op: Op.REQUEST, to: { cid: SERVER, port: PORT }, sourcePort: next() }))
      asked++
    })
    scene.goOn(100)
    expect(asked).toBeGreaterThan(50)
    expect(scene.server.kernel.sockets.size).toBe(LIMIT)
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    scene.end()
  })

  test('says that it is another guest', () => {
    const scene = new Scene(make)
    const { heard } = scene.attack(scene.hostile, (attacker) => {
      attacker.saySo(() => ({
        op: pick([Op.RST, Op.SHUTDOWN, Op.REQUEST, Op.RW]),
        flags: SHUTDOWN_BOTH,
        to: { cid: SERVER, port: 7000 },
        sourceCid: pick([CLIENT, SERVER, 2, 99]),
        sourcePort: 0x1000_0000,
      }))
    })
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    expect([...scene.server.kernel.strays, ...scene.client.kernel.strays, ...heard]).toEqual([])
    scene.end()
  })
}

function deafGuests(make: MakeNetwork, undisturbed: () => number): void {
  /** The server has much to say on each connection to its port. */
  const generous = (scene: Scene) =>
    scene.server.kernel.listen(PORT, 'stream', (socket) => socket.write(new Uint8Array(1 << 20)), { bufferBytes: 262_144 })

  const seeded = seededRandom(3)
  const anything = () => Math.floor(seeded() * 2 ** 32)

  test.each<[string, { forwardCount?: () => number; takesOneEvery?: number }]>([
    ['takes nothing of it', {}],
    ['takes a packet now and then', { takesOneEvery: 100 }],
    ['lies about what it has taken', { forwardCount: anything }],
  ])('has a server send to dozens of its connections and %s, again and again', (_, { forwardCount = () => 0, takesOneEvery }) => {
    const scene = new Scene(make)
    generous(scene)
    const next = counter()
    const open = new Set<number>()
    const attacker = scene.attack(scene.hostile, (attacker, round) => {
      // Before it is let in, that would end the connection.
      const isIn = round % 100 > 10
      if (isIn) {
        for (const sourcePort of open)
          attacker.say(Op.CREDIT_UPDATE, { cid: SERVER, port: PORT }, { sourcePort, forwardCount: forwardCount() })
      }
      // It does not hear that they have been reset, and begins again all the same.
      if (round % 100 === 0) open.clear()
      while (open.size < 40) {
        const sourcePort = next()
        if (!attacker.say(Op.REQUEST, { cid: SERVER, port: PORT }, { sourcePort })) break
        open.add(sourcePort)
      }
      if (takesOneEvery === undefined || round % takesOneEvery !== 0) return
      attacker.node.driver.receive()
      attacker.node.driver.supply(1)
    })
    // It is let in, and then it is deaf.
    attacker.node.driver.supply(64)
    attacker.reads = false
    scene.goOn(30)
    // For a second at most: then the server's packets to this guest wait for nothing any more.
    expect(scene.server.device.port.accepting).toBe(false)
    const first = scene.talk(7000, { ms: 10 })
    expect(first).toBeLessThan(110 + 4 * undisturbed())
    for (let i = 1; i < 5; i++) {
      scene.goOn(100, 10)
      expect(scene.talk(7000 + i, { ms: 10 })).toBeLessThan(4 * undisturbed())
    }
    scene.end()
  })
}

function selfishGuests(make: MakeNetwork, undisturbed: () => number): void {
  test('never takes a packet, and sends what has to be answered: its own ring is left alone, and nothing else', () => {
    const scene = new Scene(make)
    const attacker = scene.attack(scene.hostile, (attacker) =>
      attacker.saySo(() => ({ op: Op.CREDIT_UPDATE, to: { cid: SERVER, port: PORT }, sourcePort: 1 })),
    )
    attacker.reads = false
    scene.goOn(50)
    expect(scene.hostile.device.port.accepting).toBe(false)
    expect(scene.talk()).toBeLessThan(4 * undisturbed())
    scene.end()
  })

  test('has a thousand packets for a sibling: a guest with one gets its turn', () => {
    const scene = new Scene(make)
    scene.server.kernel.listen(PORT, 'stream', () => {}, { bufferBytes: 65_536 })
    const ports = Array.from({ length: LIMIT }, (_, i) => 100 + i)
    scene.attack(scene.hostile, (attacker, round) => {
      const to = { cid: SERVER, port: PORT }
      const sourcePort = ports[round]
      if (sourcePort !== undefined) attacker.say(Op.REQUEST, to, { sourcePort })
      else for (const port of ports) attacker.say(Op.RW, to, { sourcePort: port }, new Uint8Array(1))
    })
    scene.goOn(LIMIT + 20)
    // One buffer a round: the server is what all of them wait for.
    scene.server.driver.deaf = true
    scene.goOn(20)
    const socket = scene.client.kernel.connect({ cid: SERVER, port: PORT })
    scene.goOn(5)
    let rounds = 0
    for (; socket.state === 'connecting' && rounds < 100; rounds++) {
      scene.server.driver.deaf = false
      scene.server.driver.supply(1)
      scene.server.driver.deaf = true
      scene.goOn(1)
    }
    expect(socket.state).toBe('established')
    expect(rounds).toBeLessThan(80)
    scene.server.driver.deaf = false
    scene.end()
  })
}
