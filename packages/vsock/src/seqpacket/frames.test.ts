import { PassThrough } from 'node:stream'
import { joinedPair } from '@upcall/foundation/pair'
import { describe, expect, it } from 'vitest'
import { bytes, text, textsOf } from '../../testing/seqpacket.js'
import { frameMessages } from './frames.js'

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable(),
    (error) => error,
  )

describe('frameMessages', () => {
  it('keeps bounds over a stream that has none, however it is cut', async () => {
    const [near, wire] = joinedPair()
    const [stream, far] = joinedPair()
    wire.on('data', (chunk: Buffer) => {
      for (const byte of chunk) stream.write(Uint8Array.of(byte))
    })
    wire.on('end', () => stream.end())
    const [sender, receiver] = [frameMessages(near), frameMessages(far)]
    for (const each of ['one', 'a longer message', 'x'.repeat(1000)]) await sender.send(bytes(each))
    sender.end()
    expect(await textsOf(receiver)).toEqual(['one', 'a longer message', 'x'.repeat(1000)])
  })

  it('writes the length as a u32 in little-endian order', async () => {
    const [near, far] = joinedPair()
    const sender = frameMessages(near)
    await sender.send(bytes('abc'))
    // Node 26 reads a chunk at a time unless it is told how much.
    expect(far.read(7)).toEqual(Buffer.from([3, 0, 0, 0, 97, 98, 99]))
  })

  it('ends each direction by itself, and closes', async () => {
    const [near, far] = joinedPair().map((stream) => frameMessages(stream)) as never as ReturnType<typeof frameMessages>[]
    await near!.send(bytes('ask'))
    near!.end()
    expect(await textsOf(far!)).toEqual(['ask'])
    await far!.send(bytes('answer'))
    far!.end()
    expect(text((await near!.receive())?.data)).toBe('answer')
    expect(await near!.receive()).toBeUndefined()
    await Promise.all([near!.closed, far!.closed])
    expect(await failure(near!.send(bytes('x')))).toMatchObject({ code: 'EPIPE' })
  })

  it('breaks a peer off that announces too much, or ends within a message', async () => {
    for (const [sent, what] of [
      [Buffer.from([255, 0, 0, 0]), 'the peer announced a message of 255 bytes'],
      [Buffer.from([9, 0, 0, 0, 1]), 'the peer ended in the middle of a message'],
      [Buffer.from([9, 0]), 'the peer ended in the middle of a message'],
    ] as const) {
      const [near, far] = joinedPair()
      const socket = frameMessages(near, { maxMessageBytes: 100 })
      far.on('error', () => {}).end(sent)
      expect(await failure(socket.receive())).toMatchObject({ code: 'EPROTO', what })
      await socket.closed
      expect(socket.errored).toMatchObject({ code: 'EPROTO' })
    }
  })

  it('gives up what waits, by a signal and by destroy()', async () => {
    const [near] = joinedPair()
    const socket = frameMessages(near)
    const stop = new AbortController()
    const receiving = failure(socket.receive({ signal: stop.signal }))
    stop.abort('enough')
    expect(await receiving).toMatchObject({ code: 'ABORTED', cause: 'enough' })
    const waiting = failure(socket.receive())
    socket.destroy()
    expect(await waiting).toMatchObject({ code: 'ABORTED' })
    await socket.closed
    expect(await failure(socket.send(bytes('x')))).toMatchObject({ code: 'ABORTED' })
  })

  it('refuses what is wrong', async () => {
    const socket = frameMessages(new PassThrough())
    await expect(socket.send(bytes('x'), null as never)).rejects.toThrow('options: must be an object, got null')
    await expect(socket.receive(5 as never)).rejects.toThrow('options: must be an object, got 5')
    socket.destroy()
    expect(() => frameMessages({} as never)).toThrow(TypeError)
    expect(() => frameMessages(new PassThrough(), { maxMessageBytes: 0 })).toThrow(RangeError)
  })
})
