import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { type World, world } from '../testing/ends.js'
import type { GuestSocket } from '../testing/guest-sockets.js'
import { binding } from '../testing/scene.js'
import type { IncomingConnection } from './connections.js'
import { SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_SEQPACKET } from './machine/packet.js'
import type { VsockMessageStream } from './message-stream.js'

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (data: Uint8Array) => new TextDecoder().decode(data)

/** A message stream and the guest's end of it. */
async function pair({ device, guest }: World, before?: (socket: GuestSocket) => void) {
  const accepted = guest.accepted(before)
  const connecting = device.connectSeqpacket(5000)
  let stream: VsockMessageStream | undefined
  void connecting.then((it) => {
    stream = it
  })
  const socket = await accepted
  await guest.until(() => stream !== undefined)
  return { stream: stream!, socket }
}

/** What became of a promise: its value, its error's code or name, or undefined while it waits. */
function fate(promise: Promise<unknown>) {
  const it: { done?: unknown } = {}
  promise.then(
    (value) => (it.done = value === undefined ? 'done' : value),
    (error: NodeJS.ErrnoException) => (it.done = error.code ?? error.name),
  )
  return it
}

const settled = ({ guest }: World, it: { done?: unknown }) => guest.until(() => it.done !== undefined)

describe.runIf(binding !== undefined)('a message stream', () => {
  test('carries messages both ways, whole and with MSG_EOR', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    const big = new Uint8Array(60_000).map((_, i) => i % 251)
    await Promise.all([stream.send(bytes('one')), stream.send(bytes('two'), { eor: true }), it.guest.rest(3)])
    const sent = fate(stream.send(big))
    socket.sendMessage(bytes('three'), { eor: true })
    socket.sendMessage(big)
    const got = [fate(stream.receive()), fate(stream.receive())]
    await settled(it, got[1]!)
    await settled(it, sent)
    await it.guest.until(() => socket.messages.length === 3)
    expect(got[0]!.done).toEqual({ data: bytes('three'), eor: true, sentBytes: 5 })
    expect(got[1]!.done).toEqual({ data: big, eor: false, sentBytes: 60_000 })
    expect(socket.messages.map(({ data, eor }) => [data.length, eor])).toEqual([
      [3, false],
      [3, true],
      [60_000, false],
    ])
    expect(socket.messages[2]!.data).toEqual(Buffer.from(big))
    expect(stream).toMatchObject({ guestPort: 5000, hostPort: socket.hostPort, maxMessageBytes: 65_536, errored: null })
  })

  test('iterates up to the end of the guest, and closes when both have ended', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    const closed = fate(stream.closed)
    const seen: string[] = []
    const reading = fate(
      (async () => {
        for await (const data of stream) seen.push(text(data))
      })(),
    )
    for (const word of ['a', 'bc', 'def']) socket.sendMessage(bytes(word))
    socket.shutdown(SHUTDOWN_SEND)
    await settled(it, reading)
    expect(seen).toEqual(['a', 'bc', 'def'])
    expect(await stream.receive()).toBeUndefined()
    expect(closed.done).toBeUndefined()
    // The way back is open.
    const answer = fate(stream.send(bytes('answer')))
    await settled(it, answer)
    stream.end()
    await settled(it, closed)
    await it.guest.until(() => it.device.connections === 0)
    expect(socket.messages.map(({ data }) => text(data))).toEqual(['answer'])
    expect(socket.end).toBe('shutdown')
  })

  test('leaving the loop leaves it open', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    socket.sendMessage(bytes('a'))
    socket.sendMessage(bytes('b'))
    const first = fate(
      (async () => {
        for await (const data of stream) return text(data)
        return 'nothing'
      })(),
    )
    await settled(it, first)
    const second = fate(stream.receive())
    await settled(it, second)
    expect([first.done, (second.done as { data: Uint8Array }).data]).toEqual(['a', bytes('b')])
  })

  test('send waits for the guest to take the message', async () => {
    const it = await world()
    const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
    const sends = [40_000, 40_000, 1].map((length) => fate(stream.send(new Uint8Array(length))))
    await settled(it, sends[0]!)
    await it.guest.rest()
    expect(sends.map(({ done }) => done)).toEqual(['done', undefined, undefined])
    socket.appetite = 1
    // The guest is asked for credit until it tells.
    for (let i = 0; i < 20; i++) {
      it.time.advance(500)
      await it.guest.rest(3)
    }
    expect(sends.map(({ done }) => done)).toEqual(['done', 'done', 'done'])
  })

  test('what cannot be sent is refused, and the rest goes on', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    await expect(stream.send(new Uint8Array(65_537))).rejects.toMatchObject({
      code: 'EMSGSIZE',
      message: expect.stringMatching(/the message has 65537 bytes.*has 65536/),
    })
    await expect(stream.send(new Uint8Array(0))).rejects.toThrow(RangeError)
    await expect(stream.send('text' as never)).rejects.toThrow(TypeError)
    await expect(stream.send(bytes('x'), { signal: AbortSignal.abort('no') })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: 'no',
    })
    const sent = fate(stream.send(bytes('fine')))
    await settled(it, sent)
    stream.end()
    await expect(stream.send(bytes('late'))).rejects.toMatchObject({ code: 'EPIPE', what: 'end() was called' })
    await it.guest.until(() => socket.end === 'shutdown')
    expect(socket.messages.map(({ data }) => text(data))).toEqual(['fine'])
  })

  test('options that are not objects are refused', async () => {
    const it = await world()
    const { stream } = await pair(it)
    await expect(stream.send(bytes('x'), null as never)).rejects.toThrow('options: must be an object, got null')
    await expect(stream.receive(5 as never)).rejects.toThrow('options: must be an object, got 5')
    await expect(it.device.connectSeqpacket(5000, null as never)).rejects.toThrow('options: must be an object, got null')
    await expect(it.device.connect(5000, 5 as never)).rejects.toThrow('options: must be an object, got 5')
  })

  test('a signal takes back a message of which nothing has left', async () => {
    const it = await world()
    const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
    const giveUp = new AbortController()
    const first = fate(stream.send(new Uint8Array(60_000)))
    await settled(it, first)
    const begun = new Uint8Array(8_000).fill(1)
    const sends = [fate(stream.send(begun, { signal: giveUp.signal })), fate(stream.send(bytes('no'), { signal: giveUp.signal }))]
    await it.guest.rest()
    giveUp.abort(new Error('enough'))
    // The array is the caller's again, though a part of the message has left.
    begun.fill(2)
    await settled(it, sends[1]!)
    expect(sends.map(({ done }) => done)).toEqual(['ABORTED', 'ABORTED'])
    socket.appetite = Number.POSITIVE_INFINITY
    const last = fate(stream.send(bytes('yes')))
    await it.guest.until(() => {
      it.time.advance(500)
      return last.done !== undefined
    })
    await it.guest.until(() => socket.messages.length === 3)
    expect(socket.messages[1]!.data).toEqual(Buffer.alloc(8_000, 1))
    expect(text(socket.messages[2]!.data)).toBe('yes')
  })

  test('closes once the last message is taken back, if both sides have ended', async () => {
    const it = await world()
    const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
    const closed = fate(stream.closed)
    const first = fate(stream.send(new Uint8Array(65_536)))
    await settled(it, first)
    const giveUp = new AbortController()
    const second = fate(stream.send(bytes('no'), { signal: giveUp.signal }))
    socket.shutdown(SHUTDOWN_SEND)
    const end = fate(stream.receive())
    await settled(it, end)
    stream.end()
    await it.guest.rest()
    expect(closed.done).toBeUndefined()
    giveUp.abort()
    await settled(it, second)
    await settled(it, closed)
    expect(stream.errored).toBeNull()
  })

  test('a wait that is given up loses no message, and the others keep their order', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    const giveUp = new AbortController()
    const waits = [fate(stream.receive({ signal: giveUp.signal })), fate(stream.receive())]
    giveUp.abort()
    socket.sendMessage(bytes('a'))
    await settled(it, waits[1]!)
    expect(waits[0]!.done).toBe('ABORTED')
    expect(waits[1]!.done).toMatchObject({ data: bytes('a') })
  })

  test('messages that wait for their reader hold the guest up', async () => {
    const it = await world(undefined, { bufferBytes: 8192 })
    const { stream, socket } = await pair(it)
    for (let i = 0; i < 5; i++) socket.sendMessage(new Uint8Array(4096))
    await it.guest.rest()
    expect(socket.sent).toBe(8192)
    const got = [1, 2, 3, 4, 5].map(() => fate(stream.receive()))
    await settled(it, got[4]!)
    expect(socket.sent).toBe(5 * 4096)
  })
})

describe.runIf(binding !== undefined)('the end of a message stream', () => {
  test('what the guest sent before a reset comes first', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    socket.sendMessage(bytes('last'))
    await it.guest.until(() => socket.sent === 4)
    socket.reset()
    const waiting = fate(stream.closed)
    await it.guest.until(() => it.device.connections === 0)
    expect(waiting.done).toBeUndefined()
    expect(await stream.receive()).toMatchObject({ data: bytes('last') })
    await expect(stream.receive()).rejects.toMatchObject({ code: 'ECONNRESET' })
    await settled(it, waiting)
    expect(stream.errored).toMatchObject({ code: 'ECONNRESET' })
    await expect(stream.send(bytes('x'))).rejects.toMatchObject({ code: 'ECONNRESET' })
  })

  test('a guest that closes ends it in order, and sends fail with EPIPE', async () => {
    const it = await world()
    const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
    const sends = [60_000, 60_000].map((length) => fate(stream.send(new Uint8Array(length))))
    await settled(it, sends[0]!)
    socket.sendMessage(bytes('bye'))
    socket.close()
    await settled(it, sends[1]!)
    expect(sends[1]!.done).toBe('EPIPE')
    expect(await stream.receive()).toMatchObject({ data: bytes('bye') })
    expect(await stream.receive()).toBeUndefined()
    await stream.closed
    expect(stream.errored).toBeNull()
    await it.guest.until(() => it.device.connections === 0)
  })

  test('a guest that takes no more may still have something to say', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    socket.shutdown(SHUTDOWN_RECEIVE)
    await it.guest.until(() => socket.heard.length === 0 && it.device.connections === 1)
    await it.guest.rest()
    await expect(stream.send(bytes('x'))).rejects.toMatchObject({ code: 'EPIPE' })
    socket.sendMessage(bytes('still here'))
    const got = fate(stream.receive())
    await settled(it, got)
    expect(got.done).toMatchObject({ data: bytes('still here') })
  })

  test('a message that the guest never finishes is dropped at its end', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    socket.sendMessage(bytes('half'), { ends: false })
    await it.guest.until(() => socket.sent === 4)
    socket.shutdown(SHUTDOWN_SEND)
    const got = fate(stream.receive())
    await settled(it, got)
    expect(got.done).toBe('done')
  })

  test('a guest whose message is longer than the buffer is reset', async () => {
    const it = await world(undefined, { bufferBytes: 8192 })
    const { stream, socket } = await pair(it)
    socket.sendMessage(new Uint8Array(8193))
    const got = fate(stream.receive())
    await settled(it, got)
    expect(got.done).toBe('EPROTO')
    await it.guest.until(() => socket.end === 'reset')
  })

  test('destroy() closes in order when every message is out', async () => {
    const it = await world()
    const { stream, socket } = await pair(it)
    const sent = fate(stream.send(bytes('x')))
    await settled(it, sent)
    const waiting = fate(stream.receive())
    stream.destroy()
    stream.destroy()
    await settled(it, waiting)
    expect(waiting.done).toBe('ABORTED')
    await expect(stream.send(bytes('x'))).rejects.toMatchObject({ code: 'ABORTED' })
    await it.guest.until(() => socket.state === 'closed')
    expect([socket.end, socket.messages.length]).toEqual(['shutdown', 1])
    expect(stream.errored).toBeNull()
    await stream.closed
  })

  test('destroy() with a message under way resets, and destroy(error) always does', async () => {
    const it = await world()
    const { stream, socket } = await pair(it, (socket) => (socket.appetite = 0))
    const sends = [60_000, 60_000].map((length) => fate(stream.send(new Uint8Array(length))))
    await settled(it, sends[0]!)
    stream.destroy()
    await settled(it, sends[1]!)
    expect(sends[1]!.done).toBe('ABORTED')
    await it.guest.until(() => socket.end === 'reset')

    const second = await pair(it)
    const waiting = fate(second.stream.receive())
    second.stream.destroy(Object.assign(new Error('mine'), { code: 'MINE' }))
    await settled(it, waiting)
    expect(waiting.done).toBe('MINE')
    expect(second.stream.errored).toMatchObject({ message: 'mine' })
    await it.guest.until(() => second.socket.end === 'reset')
  })

  test('a guest that is gone cuts it', async () => {
    const it = await world()
    const { stream } = await pair(it)
    const waiting = fate(stream.receive())
    it.device.resetConnections()
    await settled(it, waiting)
    expect(waiting.done).toBe('ECONNRESET')
    await stream.closed
  })
})

describe.runIf(binding !== undefined)('a SEQPACKET connection that the guest begins', () => {
  test('is of its type, and the handler accepts it as such', async () => {
    const incoming: IncomingConnection[] = []
    const streams: VsockMessageStream[] = []
    const it = await world((port, connection) => {
      incoming.push(connection)
      expect(port).toBe(80)
      expect(() => connection.accept()).toThrow(expect.objectContaining({ code: 'EPROTOTYPE' }))
      streams.push(connection.acceptSeqpacket(), connection.acceptSeqpacket())
      return undefined
    })
    const socket = it.guest.connect(80, TYPE_SEQPACKET)
    await it.guest.until(() => socket.state === 'open')
    expect(incoming[0]!.type).toBe('seqpacket')
    expect(streams[0]).toBe(streams[1])
    socket.sendMessage(bytes('hello'))
    const got = fate(streams[0]!.receive())
    await settled(it, got)
    expect(got.done).toMatchObject({ data: bytes('hello') })
  })

  test('is refused without a handler, by undefined, by a rejection, and by a stream', async () => {
    const host = new PassThrough()
    const handlers = [() => undefined, () => Promise.reject(new Error('no')), () => host, undefined]
    for (const handler of handlers) {
      const it = await world(handler)
      const socket = it.guest.connect(80, TYPE_SEQPACKET)
      await it.guest.until(() => socket.state === 'closed')
      expect(it.device.connections).toBe(0)
      await it.device.close()
      await it.vmm.close()
    }
    expect(host.destroyed).toBe(true)
  })

  test('a stream is refused where the handler gives messages', async () => {
    const given: IncomingConnection[] = []
    const it = await world((_port, connection) => {
      given.push(connection)
      return connection.acceptSeqpacket() as never
    })
    const socket = it.guest.connect(80)
    await it.guest.until(() => socket.state === 'closed')
    expect(given[0]!.type).toBe('stream')
  })
})
