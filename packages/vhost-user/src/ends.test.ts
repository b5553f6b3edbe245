import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { fateOf, LINGER_MS, pair, reading, type World, world } from '../testing/ends.js'
import type { GuestSocket } from '../testing/guest-sockets.js'
import { binding } from '../testing/scene.js'
import type { IncomingConnection } from './connections.js'
import { SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './machine/packet.js'

// Nothing is cut short silently, nothing broken is called complete, nothing complete is called broken.

describe.runIf(binding !== undefined)('the end of one side', () => {
  describe('a host that ended in order and is destroyed', () => {
    test('the guest gets all that was written, then the end', async () => {
      const it = await world()
      const { stream, socket } = await pair(it)
      for (let i = 0; i < 15; i++) stream.write(Buffer.alloc(10_000))
      stream.end()
      stream.destroy()
      await it.guest.until(() => socket.end !== undefined)
      expect([socket.received, socket.end]).toEqual([150_000, 'shutdown'])
      await it.guest.until(() => it.device.connections === 0)
    })

    test('a guest that reads slowly gets it all, however long it takes', async () => {
      const it = await world()
      const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
      stream.end(Buffer.alloc(300_000))
      stream.destroy()
      for (let i = 0; i < 20 && socket.end === undefined; i++) {
        await it.guest.rest()
        it.time.advance(LINGER_MS - 1)
        socket.appetite += 20_000
      }
      await it.guest.until(() => socket.end !== undefined)
      expect([socket.received, socket.end]).toEqual([300_000, 'shutdown'])
    })

    test('a guest that takes nothing for lingerMs is reset', async () => {
      const it = await world()
      const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
      stream.end(Buffer.alloc(300_000))
      stream.destroy()
      await it.guest.rest()
      it.time.advance(LINGER_MS)
      it.time.advance(LINGER_MS)
      await it.guest.until(() => socket.end !== undefined)
      expect(socket.end).toBe('reset')
      expect(it.device.connections).toBe(0)
    })

    test('what the guest still sends does not hold up what it is to get', async () => {
      const it = await world()
      const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
      socket.write(2 ** 20)
      await it.guest.rest()
      stream.end(Buffer.alloc(300_000))
      stream.destroy()
      await it.guest.until(() => socket.sent === 2 ** 20)
      socket.appetite = Number.POSITIVE_INFINITY
      await it.guest.until(() => socket.end !== undefined)
      expect([socket.received, socket.end]).toEqual([300_000, 'shutdown'])
    })

    test('without end() before it, bytes that the guest has no room for are a reset', async () => {
      const it = await world()
      const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
      stream.write(Buffer.alloc(300_000))
      await it.guest.rest()
      stream.destroy()
      await it.guest.until(() => socket.end !== undefined)
      expect(socket.end).toBe('reset')
    })
  })

  describe('a guest that shuts its receiving half and streams on', () => {
    test('the write fails at once, and every byte of the guest arrives; then the failure is told', async () => {
      const it = await world()
      const { stream, socket, fate } = await pair(it)
      reading(stream, fate)
      socket.shutdown(SHUTDOWN_RECEIVE)
      await it.guest.rest()
      let failure: NodeJS.ErrnoException | null | undefined
      stream.write('x', (error) => (failure = error as NodeJS.ErrnoException | null))
      for (let i = 1; i <= 30; i++) {
        socket.write(50_000)
        await it.guest.until(() => fate.bytes === i * 50_000 || fate.closed)
        it.time.advance(1_000)
      }
      expect([fate.bytes, failure?.code, fate.closed]).toEqual([1_500_000, 'EPIPE', false])
      socket.shutdown(SHUTDOWN_SEND)
      await it.guest.until(() => fate.closed)
      expect(fate).toMatchObject({ bytes: 1_500_000, ended: true, code: 'EPIPE' })
    })

    test('a pipe into it comes to its end, and end() is told of the loss', async () => {
      const it = await world()
      const { stream, socket, fate } = await pair(it)
      reading(stream, fate)
      socket.shutdown(SHUTDOWN_RECEIVE)
      await it.guest.rest()
      const source = new PassThrough()
      source.pipe(stream)
      source.end(Buffer.alloc(500_000))
      await it.guest.until(() => source.readableEnded)
      socket.write(1_000)
      socket.close()
      await it.guest.until(() => fate.closed)
      expect(fate).toEqual({ bytes: 1_000, ended: true, finished: false, code: 'EPIPE', closed: true })
    })

    test('nothing written: end() completes, and the end is in order', async () => {
      const it = await world()
      const { stream, socket, fate } = await pair(it)
      reading(stream, fate)
      socket.shutdown(SHUTDOWN_RECEIVE)
      await it.guest.rest()
      stream.end()
      await it.guest.until(() => fate.finished)
      expect(fate.closed).toBe(false)
      socket.write(1_000)
      socket.close()
      await it.guest.until(() => fate.closed)
      expect(fate).toMatchObject({ bytes: 1_000, ended: true, code: undefined })
    })

    test('a program that only writes is told after lingerMs', async () => {
      const it = await world()
      const { stream, socket, fate } = await pair(it)
      socket.write(1_000)
      socket.shutdown(SHUTDOWN_RECEIVE)
      await it.guest.rest()
      stream.write('x')
      await it.guest.rest()
      it.time.advance(LINGER_MS)
      await it.guest.until(() => fate.closed)
      expect(fate.code).toBe('EPIPE')
    })

    test('a reader who pauses longer than that is not cut', async () => {
      const it = await world()
      const { stream, socket, fate } = await pair(it)
      reading(stream, fate)
      socket.write(1_000)
      socket.shutdown(SHUTDOWN_RECEIVE)
      await it.guest.until(() => fate.bytes === 1_000)
      stream.pause()
      stream.write('x')
      socket.write(200_000)
      socket.close()
      await it.guest.rest()
      it.time.advance(3 * LINGER_MS)
      await it.guest.rest()
      stream.resume()
      await it.guest.until(() => fate.closed)
      expect(fate).toMatchObject({ bytes: 201_000, ended: true, code: 'EPIPE' })
    })
  })

  test('a write that the guest took before it closed did not fail', async () => {
    const it = await world()
    const { stream, socket, fate } = await pair(it)
    reading(stream, fate)
    let failure: Error | null | undefined
    let called = false
    it.guest.onConnection = () => {}
    stream.write('all of it', (error) => {
      called = true
      failure = error
    })
    // The guest answers in the same turn of its own in which it takes the bytes.
    await it.guest.until(() => socket.received === 9)
    socket.close()
    await it.guest.until(() => fate.closed)
    expect([called, failure ?? undefined, fate.code]).toEqual([true, undefined, undefined])
  })

  test.each<[string, (socket: GuestSocket) => void, string | undefined]>([
    ['closes', (socket) => socket.close(), undefined],
    ['resets', (socket) => socket.reset(), 'ECONNRESET'],
  ])('a guest that half-closes and later %s is seen by a host that writes nothing', async (_, act, code) => {
    const it = await world()
    const { stream, socket, fate } = await pair(it)
    reading(stream, fate)
    socket.shutdown(SHUTDOWN_SEND)
    await it.guest.until(() => fate.ended)
    await it.guest.rest()
    act(socket)
    await it.guest.until(() => fate.closed || it.device.connections === 0)
    await it.guest.rest()
    expect(fate).toMatchObject({ ended: true, closed: true, code })
  })

  test('a guest that ended its half in order and is then reset: what it said is complete', async () => {
    const it = await world()
    const { stream, socket, fate } = await pair(it)
    socket.write(100_000)
    socket.shutdown(SHUTDOWN_SEND)
    await it.guest.until(() => socket.sent === 100_000)
    await it.guest.rest()
    socket.reset()
    await it.guest.rest()
    reading(stream, fate)
    await it.guest.until(() => fate.closed)
    expect(fate).toMatchObject({ bytes: 100_000, ended: true, code: 'ECONNRESET' })
  })

  test('both sides have said all and heard all when the device goes: in order', async () => {
    const it = await world()
    const { stream, socket, fate } = await pair(it)
    socket.write(100_000)
    socket.shutdown(SHUTDOWN_SEND)
    stream.end('x')
    await it.guest.until(() => socket.end === 'shutdown' && socket.sent === 100_000)
    await it.guest.rest()
    it.device.resetConnections()
    reading(stream, fate)
    await it.guest.until(() => fate.closed)
    expect(fate).toMatchObject({ bytes: 100_000, ended: true, finished: true, code: undefined })
  })

  describe('in the middle of other news', () => {
    test('a connect that is aborted between the answer and its news is aborted', async () => {
      const it = await world()
      const { stream, socket } = await pair(it)
      const given = new AbortController()
      stream.on('data', () => given.abort('enough'))
      it.guest.onConnection = () => {
        socket.write(1)
        socket.step()
      }
      let outcome: unknown
      it.device.connect(5000, { signal: given.signal }).then(
        () => (outcome = 'open'),
        (error: unknown) => (outcome = error),
      )
      await it.guest.until(() => outcome !== undefined)
      expect(outcome).toMatchObject({ code: 'ABORTED', cause: 'enough' })
    })

    test.each<[string, (it: World, late: GuestSocket) => void, string]>([
      ['given up', (_, late) => late.reset(), 'ECONNRESET'],
      ['timed out', ({ time }) => time.advance(2_000), 'ETIMEDOUT'],
    ])('accept() of a connection that has just been %s throws', async (_, act, code) => {
      let incoming: IncomingConnection | undefined
      const it = await world((_port, given) => {
        incoming = given
        return new Promise(() => {})
      })
      const { stream, socket } = await pair(it)
      let outcome: unknown
      stream.on('data', () => {
        try {
          incoming!.accept().on('error', () => {})
          outcome = 'let in'
        } catch (error) {
          outcome = error
        }
      })
      const late = it.guest.connect(80)
      await it.guest.until(() => incoming !== undefined)
      socket.write(1)
      socket.step()
      act(it, late)
      await it.guest.until(() => outcome !== undefined)
      expect(outcome).toMatchObject({ code })
      await it.guest.rest()
      expect(it.device.connections).toBe(1)
    })
  })

  test('end() right after accept(), and a guest that half-closes as soon as it is let in', async () => {
    let fate: ReturnType<typeof fateOf> | undefined
    const it = await world((_port, { accept }) => {
      const stream = accept()
      fate = fateOf(stream)
      reading(stream, fate)
      stream.end(Buffer.alloc(150_000))
      return undefined
    })
    const socket = it.guest.connect(80)
    socket.write(100_000)
    socket.shutdown(SHUTDOWN_SEND)
    await it.guest.until(() => fate?.closed)
    expect(fate).toEqual({ bytes: 100_000, ended: true, finished: true, code: undefined, closed: true })
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.received, socket.end]).toEqual([150_000, 'shutdown'])
  })
})
