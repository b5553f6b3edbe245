import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { fateOf, LINGER_MS, pair, reading, setFirstNews, type World, world } from '../testing/ends.js'
import type { GuestSocket } from '../testing/guest-sockets.js'
import { binding, cleanups } from '../testing/scene.js'
import { SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './machine/packet.js'

// Every way to end, by either side, at every time, through a stream of the device's and through a joined stream. Both sides count
// their bytes; the clock is the test's, and how far it had to go is part of what is expected.

const BYTES = 150_000
const HANDSHAKE_MS = 2_000

interface Ends {
  it: World
  socket: GuestSocket
  /** What the program on the host holds: the stream, or the far end of the socket that was joined. */
  near: Duplex
  fate: ReturnType<typeof fateOf>
  /** The end of that socket that was joined. */
  host?: Socket
}

const ways: Record<string, () => Promise<Ends>> = {
  'device.connect()': async () => {
    const it = await world()
    const { stream, socket, fate } = await pair(it, quiet)
    return { it, socket, near: stream, fate }
  },
  'accept()': async () => {
    let near: Duplex | undefined
    const it = await world((_port, { accept }) => {
      near = accept()
      return undefined
    })
    const socket = quiet(it.guest.connect(80))
    await it.guest.until(() => near !== undefined)
    return { it, socket, near: near!, fate: fateOf(near!) }
  },
  'a joined socket': () => joinedSocket(Number.POSITIVE_INFINITY),
  'a joined socket, directly': () => joinedSocket(0),
}

async function joinedSocket(firstNews: number): Promise<Ends> {
  setFirstNews(firstNews)
  const peers: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (peer) => peers.push(peer.pause()))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => new Promise((resolve) => server.close(resolve)))
  const { port } = server.address() as { port: number }
  let host: Socket | undefined
  const it = await world(async () => {
    host = createConnection({ port, host: '127.0.0.1', allowHalfOpen: true })
    await once(host, 'connect')
    return host
  })
  const socket = quiet(it.guest.connect(80))
  await it.guest.until(() => peers.length > 0 && socket.state === 'open')
  const near = peers[0]!
  cleanups.push(() => near.destroy())
  return { it, socket, near, fate: fateOf(near), host: host! }
}

/** Its program reads nothing yet. */
function quiet(socket: GuestSocket): GuestSocket {
  socket.appetite = 0
  return socket
}

type When = 'at once' | 'after bytes both ways' | 'with bytes waiting on both sides'

/** What both programs see: `bytes` is all, or what had come. */
interface Sight {
  guest?: 'shutdown' | 'reset'
  guestHasAll?: boolean
  hostEnded?: boolean
  hostCode?: (string | undefined)[]
}

type Act = (ends: Ends) => void

const isSocket = (near: Duplex): near is Socket => 'resetAndDestroy' in near

/** A kernel resets a TCP socket that is closed with bytes unread: first they are read. */
function closeSocket(ends: Ends, near: Socket): void {
  open(ends)
  if (ends.fate.bytes === ends.socket.sent) near.end().destroySoon()
  else near.once('data', () => setImmediate(() => closeSocket(ends, near)))
}

const acts: Record<string, { act: Act; sight: Sight; waiting?: Sight; leaves?: boolean }> = {
  'the host ends': {
    act: ({ near }) => near.end(),
    sight: { guest: 'shutdown', guestHasAll: true, hostEnded: true, hostCode: [undefined] },
  },
  'the host ends and closes': {
    act: (ends) => (isSocket(ends.near) ? closeSocket(ends, ends.near) : void ends.near.end().destroy()),
    sight: { guest: 'shutdown', guestHasAll: true, hostCode: [undefined] },
    leaves: true,
  },
  'the host breaks': {
    act: ({ near }) => (isSocket(near) ? near.resetAndDestroy() : near.destroy(new Error('broken'))),
    sight: { guest: 'reset' },
  },
  'the guest half-closes': {
    act: ({ socket }) => socket.shutdown(SHUTDOWN_SEND),
    sight: { guest: 'shutdown', guestHasAll: true, hostEnded: true, hostCode: [undefined] },
  },
  'the guest closes': {
    act: ({ socket }) => socket.close(),
    sight: { hostEnded: true, hostCode: [undefined] },
    // A socket's kernel tells the far end of what was dropped when it writes again, or never.
    waiting: { hostEnded: true, hostCode: ['EPIPE', 'ECONNRESET', undefined] },
  },
  'the guest refuses bytes, and closes': {
    act: ({ socket }) => {
      socket.shutdown(SHUTDOWN_RECEIVE)
      socket.close()
    },
    sight: { hostEnded: true, hostCode: [undefined] },
    waiting: { hostEnded: true, hostCode: ['EPIPE', 'ECONNRESET', undefined] },
  },
  'the guest resets': {
    act: ({ socket }) => socket.reset(),
    sight: { hostEnded: false, hostCode: ['ECONNRESET'] },
  },
  'the device is cut off': {
    act: ({ it }) => it.device.resetConnections(),
    sight: { hostEnded: false, hostCode: ['ECONNRESET'] },
  },
}

const whens: Record<When, (ends: Ends) => Promise<void>> = {
  'at once': async () => {},
  'after bytes both ways': async ({ it, near, socket, fate }) => {
    open({ it, near, socket, fate })
    near.write(Buffer.alloc(BYTES))
    socket.write(BYTES)
    await it.guest.until(() => fate.bytes === BYTES && socket.taken === BYTES)
  },
  'with bytes waiting on both sides': async ({ it, near, socket }) => {
    near.pause()
    near.write(Buffer.alloc(BYTES))
    socket.write(BYTES)
    await it.guest.until(() => socket.sent === BYTES)
    await it.guest.rest()
  },
}

/** Both programs read. */
function open({ near, socket, fate }: Ends): void {
  socket.appetite = Number.POSITIVE_INFINITY
  if (near.listenerCount('data') === 0) reading(near, fate)
  near.resume()
}

/** Both are honest: a side that sees the other's end ends as well. Returns how far the clock had to go. */
async function toTheEnd({ it, socket, near, fate }: Ends): Promise<number> {
  near.once('end', () => near.end())
  if (fate.ended) near.end()
  let answered = false
  const started = it.time.now()
  await it.guest.until(() => {
    if (socket.end === 'shutdown' && !answered && socket.taken === socket.received) {
      answered = true
      socket.close()
    }
    return it.device.connections === 0 && fate.closed
  })
  return it.time.now() - started
}

describe.runIf(binding !== undefined)('ends', () => {
  const cases = Object.keys(ways).flatMap((way) =>
    Object.keys(acts).flatMap((name) => (Object.keys(whens) as When[]).map((when) => [way, name, when] as const)),
  )

  test.each(cases)('%s: %s, %s', async (way, name, when) => {
    const ends = await ways[way]!()
    const { it, near, socket, fate, host } = ends
    const { act, sight, waiting, leaves = false } = acts[name]!
    await whens[when](ends)
    const written = when === 'at once' ? 0 : BYTES
    act(ends)
    await it.guest.rest()
    open(ends)
    expect(await toTheEnd(ends)).toBe(0)
    await it.guest.rest()
    const expected = when === 'with bytes waiting on both sides' ? (waiting ?? sight) : sight
    const { guest, guestHasAll, hostEnded, hostCode } = expected
    if (guest !== undefined) expect(socket.end).toBe(guest)
    if (guestHasAll) expect(socket.received).toBe(written)
    // libuv makes an end of a reset that comes while its program does not read: there, what was sent has to do.
    const ended = leaves ? fate.ended : (host?.writableFinished ?? fate.ended)
    if (hostEnded !== undefined) expect(ended).toBe(hostEnded)
    if (hostCode !== undefined && fate.ended === ended) expect(hostCode).toContain(fate.code)
    if (waiting !== undefined && expected === waiting) expect((host ?? near).errored).toMatchObject({ code: 'EPIPE' })
    // Whatever happened: an end in order is the end of everything.
    if (ended) expect(fate.bytes).toBe(socket.sent)
    if (socket.end === 'shutdown') expect(socket.received).toBe(written)
    expect(near.destroyed).toBe(true)
  })

  describe('before the guest has answered', () => {
    const connecting = async (act: (it: World, socket: GuestSocket, abort: AbortController) => void) => {
      const it = await world()
      const abort = new AbortController()
      let outcome: unknown
      it.device.connect(5000, { signal: abort.signal }).then(
        () => (outcome = 'open'),
        (error: unknown) => (outcome = error),
      )
      let socket: GuestSocket | undefined
      it.guest.onConnection = (asked) => {
        socket = asked
        // It has no answer yet.
        asked.state = 'closed'
      }
      await it.guest.until(() => socket !== undefined)
      act(it, socket!, abort)
      await it.guest.until(() => outcome !== undefined)
      await it.guest.rest()
      expect(it.device.connections).toBe(0)
      return { outcome, heard: socket!.heard }
    }

    test.each<[string, Parameters<typeof connecting>[0], string, string[]]>([
      ['it refuses', (_, socket) => socket.reset(), 'ECONNREFUSED', []],
      ['the caller gives up', (_it, _socket, abort) => abort.abort(), 'ABORTED', ['RST']],
      ['it says nothing', ({ time }) => time.advance(HANDSHAKE_MS), 'ETIMEDOUT', ['RST']],
      ['the device is cut off', ({ device }) => device.resetConnections(), 'ECONNRESET', []],
    ])('%s', async (_, act, code, heard) => {
      const seen = await connecting(act)
      expect(seen.outcome).toMatchObject({ code })
      expect(seen.heard).toEqual(heard)
    })
  })

  describe('before the guest was let in', () => {
    test.each<[string, (it: World, socket: GuestSocket) => void, string]>([
      ['it gives up', (_, socket) => socket.reset(), 'ECONNRESET'],
      ['nothing comes of it', ({ time }) => time.advance(HANDSHAKE_MS), 'ETIMEDOUT'],
      ['the device is cut off', ({ device }) => device.resetConnections(), 'ECONNRESET'],
    ])('%s: the stream that comes then is broken off', async (_, act, code) => {
      let give: (stream: Duplex) => void = () => {}
      let signal: AbortSignal | undefined
      const it = await world((_port, incoming) => {
        signal = incoming.signal
        return new Promise((resolve) => (give = resolve))
      })
      const socket = it.guest.connect(80)
      await it.guest.until(() => signal !== undefined)
      act(it, socket)
      await it.guest.until(() => signal!.aborted)
      expect(signal!.reason).toMatchObject({ code })
      const server = createServer((peer) => peer.on('error', () => {}))
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      cleanups.push(() => new Promise((resolve) => server.close(resolve)))
      const accepted = once(server, 'connection')
      const late = createConnection({ port: (server.address() as { port: number }).port, host: '127.0.0.1' })
      await once(late, 'connect')
      const [peer] = (await accepted) as [Socket]
      const failed = new Promise<NodeJS.ErrnoException>((resolve) => peer.once('error', resolve))
      give(late)
      expect((await failed).code).toBe('ECONNRESET')
      expect([late.destroyed, it.device.connections]).toEqual([true, 0])
    })
  })

  test('a guest whose program takes nothing any more holds a destroyed stream for lingerMs after the last it took', async () => {
    const it = await world()
    const { stream, socket } = await pair(it, quiet)
    stream.end(Buffer.alloc(2 * BYTES)).destroy()
    await it.guest.rest()
    it.time.advance(LINGER_MS - 1)
    socket.appetite = 100_000
    await it.guest.rest()
    it.time.advance(LINGER_MS)
    await it.guest.rest()
    expect(socket.end).toBe(undefined)
    it.time.advance(LINGER_MS)
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.end, it.device.connections]).toEqual(['reset', 0])
  })
})
