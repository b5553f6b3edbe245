import { seededRandom } from '@upcall/foundation/testing/seeded-random'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FakeNetwork, type Node } from '../../../testing/fake-network.js'
import { FakeTrunks } from '../../../testing/fake-trunks.js'
import { runTalks, Talk } from '../../../testing/network-talk.js'
import { LARGEST_PACKET } from '../packet.js'
import { MAX_HELD } from '../switch/allowance.js'
import { VsockSwitch } from '../switch/switch.js'
import { encodeGuest, encodeHello, encodeTaken, FrameReader } from './frame.js'
import { Trunks } from './trunks.js'

const calm = (seed: number) => ({ seed, writes: [10, 70_000, 3], appetite: 10_000, sleeps: 0, ending: 'shutdown' }) as const

function scene(switches: number) {
  const random = seededRandom(1)
  const network = new FakeNetwork(random, switches)
  return { network, trunks: new FakeTrunks(network, random) }
}

/** What comes of a connection: `established`, or the error. */
function dial(network: FakeNetwork, from: Node, cid: number): string {
  const socket = from.kernel.connect({ cid, port: 5000 })
  network.rest()
  return socket.error ?? socket.state
}

const talk = (from: Node, to: Node, port = 6000) => new Talk(from, to, { port, callerPlan: calm(1), serverPlan: calm(2) })

describe('a link that is lost', () => {
  test('resets every connection over it, and the guests beyond are unknown; the others talk on', () => {
    const { network, trunks } = scene(2)
    const line = trunks.link(0, 1)
    const [a, b, c] = [network.add(3), network.add(4), network.add(5)]
    network.rest()
    const kept: { end?: string | undefined }[] = []
    for (const { kernel } of [b, c]) kernel.listen(5000, 'stream', (socket) => void kept.push(socket))
    const [far, near] = [a.kernel.connect({ cid: 4, port: 5000 }), a.kernel.connect({ cid: 5, port: 5000 })]
    network.rest()
    line.stuck = true
    far.write(new Uint8Array(200_000))
    network.rest()
    expect(a.device.port.held).toBeGreaterThan(60_000)
    line.cut(network.now)
    network.rest()
    expect([far.state, near.state]).toEqual(['closed', 'established'])
    expect(a.device.port.held).toBe(0)
    expect(dial(network, a, 4)).toBe('ECONNRESET')
    expect(dial(network, a, 5)).toBe('established')
    expect(line.ends.map(({ end }) => end?.reason)).toEqual(['lost', 'lost'])
  })

  test('may be followed by another one', () => {
    const { network, trunks } = scene(2)
    const line = trunks.link(0, 1)
    const [a, b] = [network.add(3), network.add(4)]
    network.rest()
    line.cut(network.now)
    network.rest()
    trunks.link(0, 1)
    network.rest()
    runTalks(network, [talk(a, b)])
    expect(trunks.trunks.map(({ size }) => size)).toEqual([1, 1])
  })
})

describe('a link that nothing gets through', () => {
  test('bounds what is kept for it, and holds up no guest for longer than a second', () => {
    const { network, trunks } = scene(2)
    const line = trunks.link(0, 1)
    const [a, b, c] = [network.add(3), network.add(4), network.add(5)]
    network.rest()
    b.kernel.listen(5000, 'stream', () => {}, { bufferBytes: 262_144 })
    const sockets = Array.from({ length: 40 }, () => a.kernel.connect({ cid: 4, port: 5000 }, 'stream', { bufferBytes: 262_144 }))
    network.rest()
    line.stuck = true
    for (const socket of sockets) socket.write(new Uint8Array(1 << 20))
    network.rest()
    expect(a.device.port.accepting).toBe(false)
    expect(a.device.port.held).toBeLessThan(MAX_HELD + LARGEST_PACKET)
    expect(line.most).toBeLessThan((1 << 20) + 2 * LARGEST_PACKET)
    network.advance(1_000)
    network.rest()
    expect(a.device.port.accepting).toBe(true)
    runTalks(network, [talk(a, c)], false)
    line.stuck = false
    network.rest()
    expect(a.device.port.held).toBe(0)
  })

  test('has its window: no more is on its way than the peer has said', () => {
    const { network, trunks } = scene(2)
    const line = trunks.link(0, 1, 100_000)
    const [a, b] = [network.add(3), network.add(4)]
    network.rest()
    runTalks(
      network,
      Array.from({ length: 10 }, (_, i) => talk(a, b, 6000 + i)),
    )
    expect(line.most).toBeGreaterThan(20_000)
    expect(line.most).toBeLessThan(100_000 + 2 * LARGEST_PACKET)
    expect(line.ends.every(({ underWay }) => underWay < 25_000)).toBe(true)
  })
})

describe('who lives where', () => {
  test('guests that come and go are known over a hub, with their groups', () => {
    const { network, trunks } = scene(3)
    trunks.link(0, 1)
    const a = network.add(3, {}, network.switches[0])
    network.rest()
    trunks.link(0, 2)
    const b = network.add(4, {}, network.switches[1])
    const c = network.add(5, { groups: ['other'] }, network.switches[2])
    network.rest()
    for (const { kernel } of [a, b, c]) kernel.listen(5000, 'stream', () => {})
    expect([dial(network, b, 3), dial(network, a, 4), dial(network, b, 5)]).toEqual(['established', 'established', 'ECONNRESET'])
    trunks.trunks[2]!.setLocal(5, ['other', 'default'])
    c.switch.get(5)!.groups = new Set(['other', 'default'])
    network.rest()
    expect(dial(network, b, 5)).toBe('established')
    c.leave(network.now)
    network.rest()
    expect(dial(network, b, 5)).toBe('ECONNRESET')
    expect(network.switches.map((hub) => hub.get(5))).toEqual([undefined, undefined, undefined])
  })

  test('a CID that two networks have is the first one, and the other when that is gone', () => {
    const { network, trunks } = scene(3)
    trunks.link(0, 1)
    trunks.link(0, 2)
    const a = network.add(3, {}, network.switches[0])
    const [first, second] = [network.add(9, {}, network.switches[1]), network.add(9, {}, network.switches[2])]
    network.rest()
    expect(trunks.conflicts).not.toEqual([])
    for (const { kernel } of [first, second]) kernel.listen(5000, 'stream', () => {})
    expect(dial(network, a, 9)).toBe('established')
    expect([first.kernel.sockets.size, second.kernel.sockets.size].sort()).toEqual([0, 1])
    const [has, hasNot] = first.kernel.sockets.size === 1 ? [first, second] : [second, first]
    has.leave(network.now)
    network.rest()
    expect(dial(network, a, 9)).toBe('established')
    expect(hasNot.kernel.sockets.size).toBe(1)
  })

  test('a link that makes a loop is refused, and the networks stay joined without it', () => {
    const { network, trunks } = scene(3)
    trunks.link(0, 1)
    trunks.link(1, 2)
    const [a, , c] = [network.add(3), network.add(4), network.add(5)]
    network.rest()
    const loop = trunks.link(2, 0)
    network.rest()
    expect(loop.ends.map(({ end }) => end?.reason)).toContain('loop')
    runTalks(network, [talk(a, c)])
  })

  test('a network that is linked to itself is a loop, too', () => {
    const { network, trunks } = scene(1)
    const line = trunks.link(0, 0)
    network.add(3)
    network.rest()
    expect(line.ends.map(({ end }) => end?.reason)).toContain('loop')
  })
})

describe('what a peer may not say', () => {
  const link = () => {
    const hub = new VsockSwitch()
    const ports = { handshakeMs: 1, lingerMs: 1, allocate: (size: number) => new Uint8Array(size) }
    const trunks = new Trunks({ switch: hub, name: 'here', ports, now: () => 0 })
    return trunks.link(() => {})
  }
  const guest = encodeGuest({ cid: 9, origin: 'there', groups: [] })

  test.each<[string, Uint8Array[], string]>([
    ['anything before HELLO', [guest], 'its first word is not HELLO'],
    ['HELLO twice', [encodeHello(1), encodeHello(1)], 'it says HELLO twice'],
    ['another protocol', [new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n')], 'a frame of 542393671 bytes'],
    ['a frame that ends early', [encodeHello(1), Uint8Array.of(8, 0, 0, 0, 3, 0, 0, 0)], 'a frame that ends early'],
    ['a frame of no length', [encodeHello(1), new Uint8Array(8)], 'a frame of 0 bytes'],
    ['a frame of another type', [encodeHello(1), Uint8Array.of(8, 0, 0, 0, 99, 0, 0, 0)], 'a frame of type 99'],
    ['a packet without a header', [encodeHello(1), Uint8Array.of(9, 0, 0, 0, 4, 0, 0, 0, 1)], 'a packet without a header'],
  ])('%s', (_, frames, what) => {
    const end = link()
    for (const frame of frames) end.receive(frame, 0)
    expect(end.end).toEqual({ reason: 'protocol', what })
    expect(end.next(0)).toBeUndefined()
  })

  test('whatever it says, nothing is thrown, and a link that is over stays over', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 6 }), fc.boolean(), (pieces, greets) => {
        const end = link()
        if (greets) end.receive(encodeHello(1 << 20), 0)
        for (const piece of pieces) end.receive(piece, 0)
        for (let i = 0; i < 10; i++) end.next(0)
        const over = end.end
        end.receive(guest, 0)
        if (over !== undefined) expect(end.end).toBe(over)
      }),
      { numRuns: 2_000, seed: 1 },
    )
  })

  test('that more was taken than was sent', () => {
    const end = link()
    end.receive(encodeHello(1 << 20), 0)
    end.receive(encodeTaken(2 ** 32 - 1, [{ sender: 3, receiver: 4, cost: 2 ** 32 - 1 }]), 0)
    expect([end.underWay, end.isUp]).toEqual([0, true])
  })
})

test('frames are the same in every chunking', () => {
  const guest = { cid: 77, origin: 'a network', groups: ['default', 'größer', ''] }
  const taken = [{ sender: 3, receiver: 2 ** 32 - 2, cost: 256 }]
  const bytes = [encodeHello(5), encodeGuest(guest), encodeTaken(9, taken)].flatMap((frame) => [...frame])
  const expected = [
    { type: 'hello', window: 5 },
    { type: 'guest', guest },
    { type: 'taken', bytes: 9, taken },
  ]
  for (let size = 1; size <= bytes.length; size++) {
    const reader = new FrameReader()
    const frames: unknown[] = []
    for (let at = 0; at < bytes.length; at += size) frames.push(...reader.read(Uint8Array.from(bytes.slice(at, at + size))))
    expect(frames).toEqual(expected)
  }
})
