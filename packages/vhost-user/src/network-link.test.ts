import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createServer, connect as dial, type Socket } from 'node:net'
import { join } from 'node:path'
import { Duplex, PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { MessageChannel } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildPrograms } from '../../../scripts/test-programs.js'
import { guestAt, type RealGuest, realGuest, runUntil, socketPathOf } from '../testing/network-scene.js'
import { Talk } from '../testing/network-talk.js'
import { binding, cleanups, folder } from '../testing/scene.js'
import { encodeHello } from './machine/trunk/frame.js'
import { VsockNetwork } from './network.js'
import { startNetworkThread, threadNetwork } from './network-thread.js'

const PLAN = { seed: 1, writes: [100, 300_000, 5, 200_000], appetite: 60_000, sleeps: 0, ending: 'shutdown' } as const
const MESSAGES = { seed: 3, writes: [1, 4000, 60_000, 7], appetite: 1, sleeps: 0, ending: 'shutdown' } as const

function network(): VsockNetwork {
  const made = new VsockNetwork()
  cleanups.push(() => made.close())
  return made
}

/** Both ends of a Unix socket. */
async function unixPair(): Promise<[Socket, Socket]> {
  const server = createServer().listen(join(folder, 'link.sock'))
  cleanups.push(() => server.close())
  await once(server, 'listening')
  const socket = dial(join(folder, 'link.sock'))
  const [other] = (await once(server, 'connection')) as [Socket]
  return [socket, other]
}

function channel() {
  const { port1, port2 } = new MessageChannel()
  return [port1, port2] as const
}

const known = async (from: VsockNetwork, cid: number): Promise<void> => {
  while (!from.reaches(cid)) await once(from, 'reach')
}

/** Bytes and messages both ways, several connections at once. */
async function talkBothWays(a: RealGuest, b: RealGuest): Promise<void> {
  const talks = [
    new Talk(a, b, { port: 5000, callerPlan: PLAN, serverPlan: { ...PLAN, seed: 2 } }),
    new Talk(b, a, { port: 5001, callerPlan: PLAN, serverPlan: { ...PLAN, seed: 2 } }),
    new Talk(a, b, { port: 5002, kind: 'seqpacket', callerPlan: MESSAGES, serverPlan: { ...MESSAGES, seed: 4 } }),
  ]
  await runUntil(() => talks.every(({ done }) => done), [a, b, ...talks])
  for (const talk of talks) talk.check()
}

describe.runIf(binding !== undefined)('a link between two networks', () => {
  test.each([
    ['a MessagePort', channel],
    ['a Unix socket', unixPair],
  ])('over %s: guests talk as if they were in one network, until it is closed', async (_, pair) => {
    const [one, other] = [network(), network()]
    const [port1, port2] = await pair()
    const links = [one.link(port1), other.link(port2)]
    const [a, b] = [await realGuest(one, 3), await realGuest(other, 4)]
    await Promise.all([known(one, 4), known(other, 3)])
    expect(links.map(({ isUp }) => isUp)).toEqual([true, true])
    expect(await Promise.all(links.map(({ opened }) => opened))).toEqual([true, true])
    await talkBothWays(a, b)

    const socket = a.kernel.connect({ cid: 4, port: 5000 })
    await runUntil(() => socket.state !== 'connecting', [a, b])
    const gone = once(one, 'reach')
    links[1]!.close()
    expect((await gone)[0]).toEqual({ cid: 4, isReachable: false })
    expect((await links[0]!.closed).reason).toBe('lost')
    expect(await links[1]!.closed).toEqual({ reason: 'closed', what: 'by this side' })
    await runUntil(() => socket.state === 'closed', [a, b])
    const late = a.kernel.connect({ cid: 4, port: 5000 })
    await runUntil(() => late.error === 'ECONNRESET', [a, b])
  })

  test('over a hub: three networks, each with one link', async () => {
    const hub = network()
    const leaves = [network(), network(), network()]
    for (const leaf of leaves) {
      const [here, there] = channel()
      leaf.link(here)
      hub.link(there)
    }
    const guests = [await realGuest(leaves[0]!, 3), await realGuest(leaves[1]!, 4), await realGuest(leaves[2]!, 5)]
    await Promise.all([known(leaves[0]!, 5), known(leaves[2]!, 4), known(leaves[1]!, 3)])
    const talks = [0, 1, 2].map(
      (i) =>
        new Talk(guests[i]!, guests[(i + 1) % 3]!, {
          port: 5000,
          callerPlan: { ...PLAN, seed: i },
          serverPlan: { ...PLAN, seed: 7 },
        }),
    )
    await runUntil(() => talks.every(({ done }) => done), [...guests, ...talks])
    for (const talk of talks) talk.check()
  })

  test('a device that is closed and gets other groups stays unknown beyond a link', async () => {
    const [one, other] = [network(), network()]
    const [port1, port2] = channel()
    one.link(port1)
    other.link(port2)
    const device = await one.add({ socketPath: socketPathOf(3), guestCid: 3 })
    await known(other, 3)
    await device.close()
    device.setGroups(['late'])
    await one.add({ socketPath: socketPathOf(4), guestCid: 4 })
    await known(other, 4)
    expect(other.reaches(3)).toBe(false)
  })

  test('a CID that another network has cannot be taken, and a conflict is told', async () => {
    const [one, other] = [network(), network()]
    const [port1, port2] = channel()
    one.link(port1)
    other.link(port2)
    await realGuest(one, 3)
    await known(other, 3)
    await expect(other.add({ socketPath: socketPathOf(33), guestCid: 3 })).rejects.toMatchObject({ code: 'EADDRINUSE' })

    const third = network()
    await third.add({ socketPath: socketPathOf(34), guestCid: 3 })
    const conflict = once(third, 'conflict')
    const [port3, port4] = channel()
    third.link(port3)
    one.link(port4)
    expect(await conflict).toEqual([{ cid: 3 }])
  })

  test('what carries it has to be a MessagePort or a Duplex, and has to carry the bytes of a network', async () => {
    const one = network()
    expect(() => one.link({} as never)).toThrow(TypeError)
    const { port1, port2 } = new MessageChannel()
    const link = one.link(port1)
    port2.postMessage('hello')
    expect(await link.closed).toEqual({ reason: 'protocol', what: 'a message that is not bytes' })
    expect(await link.opened).toBe(false)
    const [input, output] = [new PassThrough(), new PassThrough()]
    const stream = one.link(Duplex.from({ readable: input, writable: output }))
    input.write('GET / HTTP/1.1\r\n\r\n')
    expect(await stream.closed).toMatchObject({ reason: 'protocol' })
    const destroyed = new PassThrough()
    destroyed.destroy()
    expect(await one.link(destroyed).closed).toMatchObject({ reason: 'lost' })
    await one.close()
    expect(() => one.link(port1)).toThrow(expect.objectContaining({ code: 'ABORTED' }))
  })

  test('a stream that is full is not written to before it drains', async () => {
    const one = network()
    const written: number[] = []
    const drains: (() => void)[] = []
    // It takes one piece at a time, and says so.
    const stream = new Duplex({
      writableHighWaterMark: 1,
      read: () => {},
      write: (chunk: Buffer, _, done) => {
        written.push(chunk.length)
        drains.push(done)
      },
    })
    const link = one.link(stream)
    stream.push(encodeHello(1 << 20))
    while (!link.isUp) await turn()
    for (let cid = 10; cid < 15; cid++) {
      await one.add({ socketPath: socketPathOf(cid), guestCid: cid })
      await turn()
    }
    expect([written.length, stream.writableLength]).toEqual([1, written[0]])
    drains.shift()!()
    await turn()
    expect([written.length, stream.writableLength]).toEqual([2, written[1]])
  })

  test('a network that is closed closes its links', async () => {
    const [one, other] = [network(), network()]
    const [port1, port2] = channel()
    const links = [one.link(port1), other.link(port2)]
    await one.close()
    expect((await Promise.all(links.map(({ closed }) => closed))).map(({ reason }) => reason)).toEqual(['closed', 'lost'])
  })
})

describe.runIf(binding !== undefined)('networks in threads', () => {
  const packageFolder = new URL('../', import.meta.url)
  // A program that is built for a test does not find the package's addon by itself.
  const addon = fileURLToPath(new URL('build/Release/upcall_vhost_user.node', packageFolder))
  const programs = `node_modules/.test-programs-${process.pid}`
  const program = new URL(`${programs}/network-thread.js`, packageFolder)
  beforeAll(() => buildPrograms(packageFolder, { 'network-thread': 'testing/network-thread.ts' }, programs))
  afterAll(() => rmSync(new URL(programs, packageFolder), { recursive: true, force: true }))

  function thread(hub: VsockNetwork, cid: number) {
    const data = { socketPath: socketPathOf(cid), guestCid: cid }
    const env = { ...process.env, UPCALL_VHOST_USER_ADDON: process.env.UPCALL_VHOST_USER_ADDON ?? addon }
    const started = startNetworkThread(hub, program, { data, env })
    cleanups.push(() => started.worker.terminate())
    return started
  }

  test('two guests, each on a thread of its own, talk through a hub, and the end of a thread is a reset', async () => {
    const hub = network()
    const [one, other] = [thread(hub, 3), thread(hub, 4)]
    await Promise.all([once(one.worker, 'message'), once(other.worker, 'message')])
    await Promise.all([known(hub, 3), known(hub, 4)])
    const [a, b] = [await guestAt(3), await guestAt(4)]
    // Each hears of the other a moment later: until then there is no such guest.
    for (let isThere = false; !isThere; ) {
      const socket = a.kernel.connect({ cid: 4, port: 1 })
      await runUntil(() => socket.state === 'closed', [a, b])
      isThere = b.kernel.strays.length > 0
    }
    await talkBothWays(a, b)
    const socket = b.kernel.connect({ cid: 3, port: 5001 })
    await runUntil(() => socket.state === 'established', [a, b])
    const gone = once(hub, 'reach')
    await one.worker.terminate()
    expect((await gone)[0]).toEqual({ cid: 3, isReachable: false })
    expect((await one.link.closed).reason).toBe('lost')
    await runUntil(() => socket.state === 'closed', [b])
  })

  test('a thread that cannot begin leaves no link, and the main thread is not such a thread', async () => {
    const hub = network()
    expect(() => startNetworkThread(hub, program, { data: () => {} })).toThrow('could not be cloned')
    expect(() => threadNetwork()).toThrow(RangeError)
  })
})
