import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../../testing/addon.js'
import { FiredClock } from '../../testing/fired-clock.js'
import { bytes, SeqpacketRig, text, textsOf } from '../../testing/seqpacket.js'
import * as loader from '../native/loader.js'
import type { SeqpacketSocket } from './socket.js'

// Over Unix sockets of the real kernel. AF_VSOCK is exercised in a guest: e2e/guest/vsock/seqpacket.mjs.

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
let rig: SeqpacketRig

beforeEach(() => {
  if (addon) vi.mocked(loader.loadBinding).mockReturnValue(addon)
  rig = new SeqpacketRig()
})
afterEach(() => rig.close())

const turn = () => new Promise((resolve) => setImmediate(resolve))
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable(),
    (error) => error,
  )

/** Sends until the kernel takes no more. How many messages it has, and the send that waits. */
async function fill(socket: SeqpacketSocket, data: Uint8Array): Promise<{ taken: number; waiting: Promise<void> }> {
  for (let taken = 0; ; taken++) {
    const waiting = socket.send(data)
    const done = await Promise.race([
      waiting.then(() => true),
      turn()
        .then(turn)
        .then(() => false),
    ])
    if (!done) return { taken, waiting }
  }
}

describe.skipIf(!addon)('messages', () => {
  it('arrive whole, in order, one by one, both ways', async () => {
    const [near, far] = await rig.pair()
    await Promise.all([near.send(bytes('one')), near.send(bytes('two')), far.send(bytes('back'))])
    expect(await far.receive()).toEqual({ data: bytes('one'), eor: false, sentBytes: 3 })
    expect(text((await far.receive())?.data)).toBe('two')
    expect(text((await near.receive())?.data)).toBe('back')
  })

  it('are as long as the socket says, and a longer one is an EMSGSIZE that leaves the connection open', async () => {
    const [near, far] = await rig.pair()
    expect(near.maxMessageBytes).toBeGreaterThan(200_000)
    const longest = new Uint8Array(near.maxMessageBytes).fill(7)
    const [message] = await Promise.all([far.receive(), near.send(longest)])
    expect(Buffer.compare(message!.data, longest)).toBe(0)
    expect(await failure(near.send(new Uint8Array(near.maxMessageBytes + 1)))).toMatchObject({
      code: 'EMSGSIZE',
      op: 'send',
      what: `the message has ${near.maxMessageBytes + 1} bytes, more than the ${near.maxMessageBytes} that one may have`,
    })
    await near.send(bytes('still here'))
    expect(text((await far.receive())?.data)).toBe('still here')
  })

  it('are cut to maxReceiveBytes, which is told, and the next one is whole', async () => {
    const [near, far] = await rig.pair({}, { maxReceiveBytes: 4 })
    await near.send(bytes('longer'))
    await near.send(bytes('next'))
    await near.send(bytes('longer again'))
    expect(await far.receive()).toEqual({ data: bytes('long'), eor: false, sentBytes: 6 })
    expect(await far.receive()).toEqual({ data: bytes('next'), eor: false, sentBytes: 4 })
    expect(await failure(textsOf(far))).toMatchObject({ code: 'EMSGSIZE', op: 'receive' })
  })

  it('cannot be empty, and are Uint8Arrays', async () => {
    const [near] = await rig.pair()
    await expect(near.send(new Uint8Array(0))).rejects.toThrow(RangeError)
    await expect(near.send('text' as never)).rejects.toThrow(TypeError)
    await expect(near.send(bytes('x'), { eor: 1 as never })).rejects.toThrow(TypeError)
    await expect(near.send(bytes('x'), null as never)).rejects.toThrow('options: must be an object, got null')
    await expect(near.receive(5 as never)).rejects.toThrow('options: must be an object, got 5')
  })

  it('of a program that sends empty ones are told from the end', async () => {
    const [near, far] = await rig.pair()
    // What send() refuses.
    const descriptors: unknown[] = []
    const spied = vi.spyOn(addon!, 'sendMessage').mockImplementation((descriptor) => {
      descriptors.push(descriptor)
      return true
    })
    await near.send(bytes('x'))
    spied.mockRestore()
    addon!.sendMessage(descriptors[0] as never, new Uint8Array(0), false, undefined)
    await near.send(bytes('after'))
    near.end()
    expect(await far.receive()).toEqual({ data: new Uint8Array(0), eor: false, sentBytes: 0 })
    expect(await textsOf(far)).toEqual(['after'])
  })

  it('wait in the kernel for a slow receiver, and hold the sender back', async () => {
    const [near, far] = await rig.pair()
    const { taken, waiting } = await fill(near, new Uint8Array(50_000))
    expect(taken).toBeGreaterThan(1)
    expect(taken).toBeLessThan(100)
    for (let i = 0; i < taken; i++) expect((await far.receive())?.sentBytes).toBe(50_000)
    await waiting
    expect((await far.receive())?.sentBytes).toBe(50_000)
  })

  it('leave other work its turn, however fast they come', async () => {
    const [near, far] = await rig.pair()
    for (let i = 0; i < 200; i++) await near.send(bytes(`${i}`))
    let turns = 0
    let counting = true
    const count = () => {
      turns++
      if (counting) setImmediate(count)
    }
    setImmediate(count)
    for (let i = 0; i < 200; i++) expect(text((await far.receive())?.data)).toBe(`${i}`)
    counting = false
    expect(turns).toBeGreaterThanOrEqual(3)
  })

  it('go to the calls of receive in the order of these', async () => {
    const [near, far] = await rig.pair()
    const calls = [far.receive(), far.receive(), far.receive()]
    await near.send(bytes('a'))
    await near.send(bytes('b'))
    near.end()
    expect((await Promise.all(calls)).map((message) => message && text(message.data))).toEqual(['a', 'b', undefined])
  })
})

describe.skipIf(!addon)('the end', () => {
  it('of one direction leaves the other one open; both close the sockets', async () => {
    const [near, far] = await rig.pair()
    await near.send(bytes('ask'))
    near.end()
    near.end()
    expect(await textsOf(far)).toEqual(['ask'])
    await far.send(bytes('answer'))
    far.end()
    expect(await textsOf(near)).toEqual(['answer'])
    await Promise.all([near.closed, far.closed])
    expect([near.errored, far.errored]).toEqual([null, null])
    expect(await near.receive()).toBeUndefined()
    expect(await failure(near.send(bytes('late')))).toMatchObject({ code: 'EPIPE' })
  })

  it('comes after the messages that wait', async () => {
    const [near, far] = await rig.pair()
    const { taken, waiting } = await fill(near, new Uint8Array(50_000))
    const last = near.send(bytes('last'))
    near.end()
    expect(await failure(near.send(bytes('too late')))).toMatchObject({ code: 'EPIPE', what: 'end() was called before' })
    let got = 0
    for await (const _ of far) got++
    await Promise.all([waiting, last])
    expect(got).toBe(taken + 2)
  })

  it('by a peer that closes: what it sent is there, then no send succeeds', async () => {
    const [near, far] = await rig.pair()
    await far.send(bytes('bye'))
    far.destroy()
    expect(await failure(near.send(bytes('x')))).toMatchObject({ code: 'EPIPE', op: 'send', remote: { type: 'seqpacket' } })
    expect(await textsOf(near)).toEqual(['bye'])
    await near.closed
    expect(near.errored).toBeNull()
  })

  it('by a peer that closes is seen by a socket that only waits', async () => {
    const clock = new FiredClock()
    const [near, far] = await rig.pair({ clock })
    const closed = vi.fn()
    void near.closed.then(closed)
    far.end()
    expect(await near.receive()).toBeUndefined()
    clock.fire()
    await turn()
    expect(closed).not.toHaveBeenCalled()
    far.destroy()
    clock.fire()
    await near.closed
    expect(near.errored).toBeNull()
    expect(clock.pending).toBe(0)
  })

  it('by a peer that leaves messages unread is a reset', async () => {
    const [near, far] = await rig.pair()
    await near.send(bytes('unread'))
    const waiting = failure(near.receive())
    far.destroy()
    expect(await waiting).toMatchObject({ code: 'ECONNRESET', op: 'receive' })
    await near.closed
    expect(near.errored).toMatchObject({ code: 'ECONNRESET' })
    expect(await failure(near.send(bytes('x')))).toBe(near.errored)
  })

  it('by destroy() ends what waits with ABORTED', async () => {
    const [near, far] = await rig.pair()
    const receiving = failure(near.receive())
    near.destroy()
    near.destroy(new Error('again'))
    expect(await receiving).toMatchObject({ code: 'ABORTED' })
    expect(near.errored).toBeNull()
    expect(await failure(near.receive())).toMatchObject({ code: 'ABORTED' })
    expect(await far.receive()).toBeUndefined()
  })

  it('by destroy(error) rejects with that error', async () => {
    const [near] = await rig.pair()
    const boom = new Error('boom')
    const { waiting } = await fill(near, new Uint8Array(50_000))
    const both = [failure(near.receive()), failure(waiting)]
    near.destroy(boom)
    expect(await Promise.all(both)).toEqual([boom, boom])
    expect(near.errored).toBe(boom)
    expect(await failure(near.receive())).toBe(boom)
  })
})

describe.skipIf(!addon)('a signal', () => {
  it('gives up a receive, and no message is lost', async () => {
    const [near, far] = await rig.pair()
    const stop = new AbortController()
    const given = failure(far.receive({ signal: stop.signal }))
    const next = far.receive()
    stop.abort('enough')
    expect(await given).toMatchObject({ code: 'ABORTED', cause: 'enough', op: 'receive' })
    await near.send(bytes('here'))
    expect(text((await next)?.data)).toBe('here')
    expect(await failure(far.receive({ signal: stop.signal }))).toMatchObject({ code: 'ABORTED' })
  })

  it('gives up a send that waits, which is not sent; the end comes all the same', async () => {
    const [near, far] = await rig.pair()
    const { taken, waiting } = await fill(near, new Uint8Array(50_000))
    const stop = new AbortController()
    const given = failure(near.send(bytes('never'), { signal: stop.signal }))
    near.end()
    stop.abort('enough')
    expect(await given).toMatchObject({ code: 'ABORTED', cause: 'enough', op: 'send' })
    let got = 0
    for await (const data of far) {
      expect(data.length).toBe(50_000)
      got++
    }
    await waiting
    expect(got).toBe(taken + 1)
  })
})

describe.skipIf(!addon)('descriptors', () => {
  it('are all closed, whatever ended the sockets', async () => {
    const server = await rig.listen()
    const echo = async (socket: SeqpacketSocket) => {
      try {
        for await (const data of socket) await socket.send(data)
      } catch {
        // The peer has gone.
        socket.destroy()
      }
      socket.end()
    }
    server.on('connection', (socket) => void echo(socket))
    const before = openDescriptors()
    for (let i = 0; i < 30; i++) {
      const socket = await rig.dial()
      await socket.send(bytes('x'))
      if (i % 3 === 0) socket.destroy()
      else if (i % 3 === 1) {
        socket.end()
        expect(await textsOf(socket)).toEqual(['x'])
      } else socket.destroy(new Error('x'))
      await socket.closed
    }
    await vi.waitFor(() => expect(openDescriptors()).toBe(before), 10_000)
    expect(server.connections.size).toBe(0)
  })

  it('that a peer passes are closed', async () => {
    const [near, far] = await rig.pair()
    const seen: unknown[] = []
    const spied = vi.spyOn(addon!, 'sendMessage').mockImplementation((descriptor) => {
      seen.push(descriptor)
      return true
    })
    await near.send(bytes('x'))
    spied.mockRestore()
    const before = openDescriptors()
    addon!.send(seen[0] as never, bytes('with'), [seen[0] as never])
    expect(text((await far.receive())?.data)).toBe('with')
    expect(openDescriptors()).toBe(before)
  })
})
