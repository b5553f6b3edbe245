import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { carriers, fateOf, LINGER_MS, reading, setFirstNews, type World, world } from '../testing/ends.js'
import { binding, cleanups, folder } from '../testing/scene.js'
import { SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './machine/packet.js'

// A program on the host, behind a socket that is joined with the guest: what each side sees of the other's end.

type Kind = 'unix' | 'tcp'

/** The sockets that the device was given, and a program's ends of them. */
async function joinedWorld(kind: Kind = 'unix') {
  const peers: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (peer) => peers.push(peer.on('error', () => {})))
  await new Promise<void>((resolve) =>
    kind === 'unix' ? server.listen(join(folder, 'host.sock'), resolve) : server.listen(0, '127.0.0.1', resolve),
  )
  cleanups.push(() => {
    for (const peer of peers) peer.destroy()
    return new Promise((resolve) => server.close(resolve))
  })
  const address = server.address()
  const target = typeof address === 'string' ? { path: address } : { port: (address as { port: number }).port, host: '127.0.0.1' }
  const hosts: Socket[] = []
  const it = await world(async () => {
    const host = createConnection({ ...target, allowHalfOpen: true })
    await once(host, 'connect')
    hosts.push(host)
    return host
  })
  return { ...it, peers, hosts }
}

async function joined(it: Awaited<ReturnType<typeof joinedWorld>>, appetite = Number.POSITIVE_INFINITY) {
  const count = it.peers.length
  const socket = it.guest.connect(80)
  socket.appetite = appetite
  await it.guest.until(() => socket.state !== 'connecting' && it.peers.length > count)
  const peer = it.peers[count]!
  const host = it.hosts[count]!
  return { socket, peer, host, fate: fateOf(peer) }
}

/** Whether the kernel has nothing left to send from the one port to the other, of this machine's TCP. */
function isCarried(from: number, to: number): boolean {
  const hex = (port: number) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .every((line) => {
      const [, local = '', remote = '', , queues = ''] = line.trim().split(/\s+/)
      return !local.endsWith(hex(from)) || !remote.endsWith(hex(to)) || queues.startsWith('00000000:')
    })
}

const over = async (it: World) => {
  await it.guest.until(() => it.device.connections === 0)
}

describe.runIf(binding !== undefined).each(carriers)('a joined program of the host, %s', (_carrier, firstNews) => {
  beforeEach(() => setFirstNews(firstNews))

  test.each<[string, (peer: Socket) => void]>([
    ['ends', (peer) => peer.end(Buffer.alloc(150_000))],
    ['ends and is gone', (peer) => peer.end(Buffer.alloc(150_000), () => peer.destroy())],
  ])('%s: the guest gets all that it wrote, then the end', async (_, act) => {
    const it = await joinedWorld()
    const { socket, peer } = await joined(it)
    act(peer)
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.received, socket.end, socket.heard.at(-1)]).toEqual([150_000, 'shutdown', expect.stringMatching('SHUTDOWN')])
    socket.close()
    await over(it)
  })

  test('is gone in order, and the guest reads slowly: all of it', async () => {
    const it = await joinedWorld()
    const { socket, peer } = await joined(it, 0)
    peer.end(Buffer.alloc(150_000), () => peer.destroy())
    for (let i = 0; i < 12 && socket.end === undefined; i++) {
      await it.guest.rest()
      it.time.advance(3 * LINGER_MS)
      socket.appetite += 20_000
    }
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.received, socket.end]).toEqual([150_000, 'shutdown'])
  })

  // Over TCP, what the kernels had yet to carry is lost when the guest talks to a program that is gone.
  test.each<[Kind, number]>([
    ['unix', 150_000],
    ['tcp', 150_000],
  ])('is gone in order while the guest still talks to it over %s: the guest gets all of it', async (kind, bytes) => {
    const it = await joinedWorld(kind)
    const { socket, peer, host, fate } = await joined(it, 0)
    reading(peer, fate)
    socket.write(10_000)
    await it.guest.until(() => fate.bytes === 10_000)
    const { localPort, remotePort } = peer
    peer.end(Buffer.alloc(bytes), () => peer.destroy())
    await it.guest.until(() => peer.closed && (kind === 'unix' || isCarried(localPort!, remotePort!)))
    for (let i = 0; i < 10; i++) {
      socket.write(50_000)
      await it.guest.rest()
      socket.appetite += 40_000
    }
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.received, socket.end]).toEqual([bytes, 'shutdown'])
    await it.guest.until(() => host.closed && it.device.connections === 0)
  })

  test('is gone in order, and the guest then shuts its receiving half: the connection is closed', async () => {
    const it = await joinedWorld()
    const { socket, peer, host } = await joined(it, 0)
    peer.end(Buffer.alloc(100_000), () => peer.destroy())
    for (let i = 0; i < 10 && !host.readableEnded; i++) await it.guest.rest()
    await it.guest.rest()
    socket.write(1_000)
    await it.guest.until(() => host.closed)
    expect([socket.end, host.readableEnded]).toEqual([undefined, true])
    socket.shutdown(SHUTDOWN_RECEIVE)
    socket.appetite = Number.POSITIVE_INFINITY
    await over(it)
    expect(socket.heard.at(-1)).toBe(`SHUTDOWN ${SHUTDOWN_RECEIVE | SHUTDOWN_SEND}`)
  })

  test('answers a guest that has half-closed', async () => {
    const it = await joinedWorld()
    const { socket, peer, fate } = await joined(it)
    reading(peer, fate)
    socket.write(100_000)
    socket.shutdown(SHUTDOWN_SEND)
    await it.guest.until(() => fate.ended)
    peer.end(Buffer.alloc(200_000))
    await it.guest.until(() => socket.end !== undefined)
    expect([fate.bytes, socket.received, socket.end]).toEqual([100_000, 200_000, 'shutdown'])
    await it.guest.until(() => fate.closed)
    await over(it)
    expect(fate.code).toBe(undefined)
  })

  test('breaks: the guest is reset, and not told of an end', async () => {
    const it = await joinedWorld('tcp')
    const { socket, peer } = await joined(it)
    peer.write(Buffer.alloc(1_000))
    await it.guest.until(() => socket.received === 1_000)
    peer.resetAndDestroy()
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.end, socket.heard]).toEqual(['reset', ['RST']])
  })

  test('dies with bytes of the guest unread: the guest is reset', async () => {
    const it = await joinedWorld()
    const { socket, peer } = await joined(it)
    peer.pause()
    socket.write(400_000)
    await it.guest.rest()
    peer.destroy()
    await it.guest.until(() => socket.end !== undefined)
    expect(socket.heard).toEqual(['RST'])
  })

  test('is given up by this process: the guest is reset', async () => {
    const it = await joinedWorld()
    const { socket, host } = await joined(it)
    host.destroy()
    await it.guest.until(() => socket.end !== undefined)
    expect(socket.heard).toEqual(['RST'])
  })

  test.each<[string, Kind, (it: World, socket: { reset(): void }) => void, string | undefined]>([
    ['is reset', 'tcp', (_, socket) => socket.reset(), 'ECONNRESET'],
    ['is reset', 'unix', (_, socket) => socket.reset(), undefined],
    ['has its device taken away', 'tcp', ({ device }) => device.resetConnections(), 'ECONNRESET'],
    ['has its device taken away', 'unix', ({ device }) => device.resetConnections(), undefined],
  ])('a guest in the middle of its bytes %s: over %s what it said, and a break', async (_, kind, act, code) => {
    const it = await joinedWorld(kind)
    const { socket, peer, host, fate } = await joined(it)
    let failure: NodeJS.ErrnoException | undefined
    host.on('error', (error) => (failure = error))
    reading(peer, fate)
    socket.write(100_000)
    await it.guest.until(() => fate.bytes === 100_000)
    act(it, socket)
    await it.guest.until(() => host.closed && (fate.closed || fate.ended))
    expect([fate.bytes, fate.code, host.writableFinished]).toEqual([100_000, code, false])
    if (kind === 'unix') expect(failure?.code).toBe('ECONNRESET')
  })

  test('gets what a guest said before it was reset, however slowly it reads', async () => {
    const it = await joinedWorld()
    const { socket, peer, host, fate } = await joined(it)
    peer.pause()
    socket.write(500_000)
    await it.guest.rest()
    const sent = socket.sent
    socket.reset()
    await it.guest.rest()
    it.time.advance(3 * LINGER_MS)
    expect(host.destroyed).toBe(false)
    reading(peer, fate)
    peer.resume()
    await it.guest.until(() => host.closed && fate.bytes >= sent)
    expect(fate.bytes).toBe(sent)
  })

  test('a guest that shuts its receiving half and streams on: all of it, and then the loss is told', async () => {
    const it = await joinedWorld()
    const { socket, peer, host, fate } = await joined(it)
    let failure: NodeJS.ErrnoException | undefined
    host.on('error', (error) => (failure = error))
    reading(peer, fate)
    socket.shutdown(SHUTDOWN_RECEIVE)
    await it.guest.rest()
    peer.write(Buffer.alloc(300_000))
    for (let i = 1; i <= 12; i++) {
      socket.write(50_000)
      await it.guest.until(() => fate.bytes === i * 50_000 || host.destroyed)
      it.time.advance(1_000)
    }
    socket.close()
    await it.guest.until(() => host.closed)
    await it.guest.until(() => fate.ended)
    expect([fate.bytes, failure?.code]).toEqual([600_000, 'EPIPE'])
  })

  test('a guest that closes while bytes are on their way to it: they are lost, and that is told', async () => {
    const it = await joinedWorld()
    const { socket, peer, host, fate } = await joined(it, 0)
    let failure: NodeJS.ErrnoException | undefined
    host.on('error', (error) => (failure = error))
    reading(peer, fate)
    peer.write(Buffer.alloc(400_000))
    await it.guest.rest()
    socket.close()
    await it.guest.until(() => host.closed)
    expect(failure?.code).toBe('EPIPE')
  })

  test('a guest that closes, with nothing on its way: in order', async () => {
    const it = await joinedWorld()
    const { socket, peer, host, fate } = await joined(it)
    let failure: NodeJS.ErrnoException | undefined
    host.on('error', (error) => (failure = error))
    reading(peer, fate)
    socket.write(100_000)
    socket.close()
    await it.guest.until(() => host.closed)
    await it.guest.until(() => fate.ended)
    expect([fate.bytes, failure, host.writableFinished]).toEqual([100_000, undefined, true])
  })

  test('is broken before it is joined: the guest is refused', async () => {
    const it = await world(async () => {
      const host = createConnection({ path: join(folder, 'nobody.sock') }).on('error', () => {})
      await new Promise((resolve) => host.once('close', resolve))
      return host
    })
    const socket = it.guest.connect(80)
    await it.guest.until(() => socket.end !== undefined)
    expect(socket.heard).toEqual(['RST'])
    expect(it.device.connections).toBe(0)
  })

  test('guests that speak and leave, before programs that never read: so many are kept, the oldest is broken off', async () => {
    const it = await joinedWorld()
    const most = 6
    const small = await world(
      async () => {
        const host = createConnection({ path: join(folder, 'host.sock'), allowHalfOpen: true })
        await once(host, 'connect')
        it.hosts.push(host)
        return host
      },
      { maxConnections: most, socketPath: join(folder, 'small') },
    )
    for (let i = 0; i < 10; i++) {
      const socket = small.guest.connect(80)
      await small.guest.until(() => socket.state === 'open' && it.peers.length > i)
      it.peers[i]!.pause()
      socket.write(600_000)
      await small.guest.rest()
      socket.reset()
      await small.guest.until(() => small.device.connections === 0)
    }
    await small.guest.rest()
    expect(it.hosts.filter(({ destroyed }) => !destroyed)).toHaveLength(most)
    expect(it.hosts.slice(0, 4).every(({ destroyed }) => destroyed)).toBe(true)
  })
})
