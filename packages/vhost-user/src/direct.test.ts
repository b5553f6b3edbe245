import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { openDescriptors } from '../testing/addon.js'
import { fateOf, reading, setFirstNews, type World, world } from '../testing/ends.js'
import { misplaced, numbered } from '../testing/guest-sockets.js'
import { binding, cleanups, folder } from '../testing/scene.js'

// What the kernel copies between a joined socket and the guest, and when that is left to the streams.

/** A program on the host, its socket here, and the guest's. */
async function joined(prepare: (host: Socket) => Duplex = (host) => host, { reads = true } = {}) {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true })
  await new Promise<void>((resolve) => server.listen(join(folder, 'host.sock'), resolve))
  const accepted = once(server, 'connection')
  const host = createConnection({ path: join(folder, 'host.sock'), allowHalfOpen: true })
  await once(host, 'connect')
  const [peer] = (await accepted) as [Socket]
  cleanups.push(() => new Promise((resolve) => server.close(resolve)))
  cleanups.push(() => [peer, host].map((socket) => socket.on('error', () => {}).destroy()))
  const it = await world(() => prepare(host))
  const socket = it.guest.connect(80)
  await it.guest.until(() => socket.state === 'open')
  await it.guest.rest()
  const fate = fateOf(peer)
  let wrong = 0
  peer.on('data', (chunk: Buffer) => {
    wrong += misplaced(chunk, fate.bytes)
  })
  peer.pause()
  if (reads) {
    reading(peer, fate)
    peer.resume()
  }
  return { it, socket, host, peer, fate, wrong: () => wrong + socket.misplaced }
}

/** Both ways, with numbers to tell one byte from another. */
async function exchange({ it, socket, peer, fate, wrong }: Awaited<ReturnType<typeof joined>>, count = 100_000) {
  const [sent, received] = [fate.bytes, socket.received]
  socket.write(count)
  peer.write(numbered(count, received))
  await it.guest.until(() => fate.bytes === sent + count && socket.received === received + count)
  expect(wrong()).toBe(0)
}

/** How many bytes the addon has moved directly. */
function counted() {
  const moved = { into: 0, from: 0 }
  const { readInto, writeFrom } = binding!
  vi.spyOn(binding!, 'readInto').mockImplementation((...args) => {
    const count = readInto(...args)
    moved.into += Math.max(0, count)
    return count
  })
  vi.spyOn(binding!, 'writeFrom').mockImplementation((...args) => {
    const count = writeFrom(...args)
    moved.from += Math.max(0, count)
    return count
  })
  return moved
}

const over = async ({ guest, device }: World) => guest.until(() => device.connections === 0)

describe.runIf(binding !== undefined)('a joined socket', () => {
  beforeEach(() => setFirstNews(0))
  afterEach(() => vi.restoreAllMocks())

  test('is read into the buffers of the guest, and written from them', async () => {
    const moved = counted()
    const ends = await joined()
    await exchange(ends)
    expect(moved.into).toBe(100_000)
    expect(moved.from).toBeGreaterThan(50_000)
    expect([ends.host.bytesRead, ends.host.readableLength]).toEqual([0, 0])
  })

  test('of a connection that is short keeps its streams', async () => {
    setFirstNews(2)
    const moved = counted()
    const ends = await joined()
    await exchange(ends, 10)
    expect(moved).toEqual({ into: 0, from: 0 })
    await exchange(ends)
    await exchange(ends)
    expect(moved.into).toBeGreaterThan(50_000)
  })

  test.each<[string, (host: Socket) => unknown]>([
    ['has a listener of its own', (host) => host.on('data', () => {})],
    ['has a timeout', (host) => host.setTimeout(100_000)],
    ['writes by another way', (host) => Object.assign(host, { write: host.write.bind(host) })],
  ])('that %s keeps its streams', async (_, prepare) => {
    const moved = counted()
    const ends = await joined((host) => {
      prepare(host)
      return host
    })
    await exchange(ends)
    expect(moved.into).toBe(0)
  })

  test('keeps its streams where descriptors have run out', async () => {
    const moved = counted()
    vi.spyOn(binding!, 'duplicate').mockImplementation(() => {
      throw Object.assign(new Error('fcntl EMFILE'), { code: 'EMFILE' })
    })
    const ends = await joined()
    await exchange(ends)
    expect(moved).toEqual({ into: 0, from: 0 })
  })

  test('that gets a listener later is read by its stream from then on, and misses nothing', async () => {
    const ends = await joined()
    await exchange(ends, 10_000)
    let seen = 0
    ends.host.on('data', (chunk: Buffer) => (seen += chunk.length))
    await exchange(ends, 10_000)
    expect(seen).toBe(10_000)
  })

  test('that is paused holds its bytes back until it is resumed', async () => {
    const ends = await joined()
    const { it, host, socket, peer } = ends
    await exchange(ends, 1_000)
    host.pause()
    peer.write(Buffer.alloc(1_000))
    await it.guest.rest()
    expect(socket.received).toBe(1_000)
    host.resume()
    await it.guest.until(() => socket.received === 2_000)
  })

  test('of which its stream has read some bytes: those go first', async () => {
    setFirstNews(2)
    const ends = await joined()
    const { it, socket, peer } = ends
    socket.appetite = 0
    // More than the guest has credit for, and then a second chunk.
    let from = 0
    for (const count of [70_000, 5_000]) {
      peer.write(numbered(count, from))
      from += count
      await it.guest.rest()
    }
    for (let i = 0; i < 4; i++) {
      socket.write(10)
      await it.guest.rest(20)
    }
    peer.write(numbered(5_000, from))
    await it.guest.rest()
    socket.appetite = Number.POSITIVE_INFINITY
    await it.guest.until(() => socket.received === from + 5_000)
    expect(ends.wrong()).toBe(0)
  })

  test('that is paused before its streams are empty goes on when it is resumed', async () => {
    const moved = counted()
    const ends = await joined((host) => {
      setImmediate(() => host.pause())
      return host
    })
    ends.peer.write(Buffer.alloc(1_000))
    await ends.it.guest.rest()
    ends.host.resume()
    await ends.it.guest.until(() => ends.socket.received === 1_000)
    expect(moved.into).toBe(1_000)
  })

  test('of a program that does not read: what the guest sends waits, in its order, and no longer than that', async () => {
    const ends = await joined()
    const { it, socket, host, peer, fate } = ends
    peer.pause()
    const early: number[] = []
    const { writeFrom } = binding!
    vi.spyOn(binding!, 'writeFrom').mockImplementation((...args) => {
      if (host.writableLength > 0) early.push(host.writableLength)
      return writeFrom(...args)
    })
    // Packet by packet, until its kernel is full and some wait in the stream.
    for (let sent = 4_096; host.writableLength === 0; sent += 4_096) {
      socket.write(4_096)
      await it.guest.until(() => socket.sent === sent)
      await it.guest.rest(3)
    }
    socket.write(600_000 - socket.sent)
    await it.guest.rest(200)
    expect(socket.sent).toBeLessThan(600_000)
    expect(early).toEqual([])
    peer.resume()
    await it.guest.until(() => fate.bytes === 600_000)
    expect(ends.wrong()).toBe(0)
    await exchange(ends)
  })

  test('that fails is destroyed with what its system call said, and the guest is reset', async () => {
    const { it, socket, host, peer } = await joined(undefined, { reads: false })
    let error: NodeJS.ErrnoException | undefined
    host.on('error', (it: NodeJS.ErrnoException) => (error = it))
    socket.write(1_000)
    await it.guest.rest()
    // A Unix socket that closes with bytes unread resets the other end.
    peer.destroy()
    await it.guest.until(() => host.closed)
    expect(error).toMatchObject({ code: 'ECONNRESET', syscall: 'read', errno: -104, message: 'read ECONNRESET' })
    await it.guest.until(() => socket.end === 'reset')
    await over(it)
  })

  test.each([0, 1, 30_000, 65_536, 100_000])(
    'that breaks with %i bytes that the guest has yet to take: they come, and then the reset',
    async (waiting) => {
      const { it, socket, host, peer } = await joined(undefined, { reads: false })
      let error: NodeJS.ErrnoException | undefined
      host.on('error', (it: NodeJS.ErrnoException) => (error = it))
      socket.write(1_000)
      socket.appetite = 0
      // As much as the guest takes without its program, and more.
      const accepted = 65_536
      peer.write(Buffer.alloc(accepted))
      await it.guest.rest()
      peer.write(Buffer.alloc(waiting))
      await it.guest.rest()
      peer.destroy()
      await it.guest.rest()
      socket.appetite = Number.POSITIVE_INFINITY
      await it.guest.until(() => socket.end !== undefined && host.closed)
      expect([socket.end, socket.received]).toEqual(['reset', accepted + waiting])
      expect(error).toMatchObject({ code: 'ECONNRESET' })
      await over(it)
    },
  )

  test('that breaks with nothing more for the guest is told to a guest that takes nothing', async () => {
    const { it, socket, host, peer } = await joined(undefined, { reads: false })
    host.on('error', () => {})
    socket.write(1_000)
    socket.appetite = 0
    peer.write(Buffer.alloc(65_536))
    await it.guest.rest()
    peer.destroy()
    await it.guest.until(() => host.closed && socket.end === 'reset')
    expect(socket.taken).toBe(0)
    await over(it)
  })

  /** The guest takes nothing, and has news, while the streams hold a part of what `send` sends. Then the program closes. */
  async function closedWhileStreamsHold(send: (peer: Socket) => void) {
    setFirstNews(2)
    const ends = await joined(undefined, { reads: false })
    const { it, socket, peer, host } = ends
    host.on('error', () => {})
    socket.appetite = 0
    send(peer)
    await it.guest.rest()
    for (let news = 0; news < 4; news++) {
      socket.write(10)
      await it.guest.rest()
    }
    peer.destroy()
    await it.guest.rest()
    socket.appetite = Number.POSITIVE_INFINITY
    await it.guest.until(() => socket.end !== undefined)
    return ends
  }

  test('of which Node has read the end ends with all its bytes, whatever breaks then', async () => {
    const { it, socket, host } = await closedWhileStreamsHold((peer) => peer.end(Buffer.alloc(140_000)))
    await it.guest.rest()
    expect([socket.received, socket.end, host.errored]).toEqual([140_000, 'shutdown', null])
  })

  test.each([70_000, 140_000, 200_000])(
    'that breaks while its streams hold a part of its %i bytes: all come, and then the reset',
    async (count) => {
      const { socket } = await closedWhileStreamsHold((peer) => peer.write(Buffer.alloc(count)))
      expect([socket.received, socket.end]).toEqual([count, 'reset'])
    },
  )

  test.each([65_535, 65_536, 65_537])(
    'that breaks in the moment of its %i bytes is told to a guest that takes nothing',
    async (count) => {
      const { it, socket, host, peer } = await joined(undefined, { reads: false })
      host.on('error', () => {})
      socket.write(1_000)
      await it.guest.rest()
      socket.appetite = 0
      peer.write(Buffer.alloc(count))
      peer.destroy()
      await it.guest.rest()
      if (count <= 65_536) await it.guest.until(() => host.closed && socket.end === 'reset')
      socket.appetite = Number.POSITIVE_INFINITY
      await it.guest.until(() => host.closed && socket.end === 'reset')
      expect(socket.received).toBe(count)
      await over(it)
    },
  )

  test('leaves no descriptor behind, and no memory mapped', async () => {
    const ends = await joined()
    await exchange(ends)
    const before = await openDescriptors()
    ends.peer.end()
    ends.socket.close()
    await over(ends.it)
    await ends.it.guest.until(() => ends.host.closed && ends.peer.closed)
    // Both ends, and the copy.
    expect(before - (await openDescriptors())).toBe(3)
  })

  test('whose guest has no buffers does not keep the loop busy', async () => {
    const ends = await joined()
    const { it, socket, peer } = ends
    socket.appetite = 0
    peer.write(Buffer.alloc(400_000))
    await it.guest.rest(200)
    const watch = vi.spyOn(binding!, 'watch')
    await it.guest.rest(200)
    expect(watch).not.toHaveBeenCalled()
    socket.appetite = Number.POSITIVE_INFINITY
    await it.guest.until(() => socket.received === 400_000)
  })
})
