import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../../testing/addon.js'
import { FiredClock } from '../../testing/fired-clock.js'
import { bytes, nextOf, SeqpacketRig, text } from '../../testing/seqpacket.js'
import { connect } from '../connect.js'
import { listen } from '../listen.js'
import * as loader from '../native/loader.js'
import { connectSeqpacket } from './connect.js'
import { listenSeqpacket } from './listen.js'

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
let rig: SeqpacketRig

beforeEach(() => {
  if (addon) vi.mocked(loader.loadBinding).mockReturnValue(addon)
  rig = new SeqpacketRig()
})
afterEach(() => rig.close())

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable(),
    (error) => error,
  )

describe.skipIf(!addon)('connectSeqpacket', () => {
  it('says who is at each end', async () => {
    const [near, far] = await rig.pair()
    const address = { transport: 'unix', path: rig.path, type: 'seqpacket' }
    expect(near).toMatchObject({ remote: address, local: undefined })
    expect(far).toMatchObject({ local: address, remote: undefined })
  })

  it('refuses what is wrong before it opens anything', async () => {
    await expect(connectSeqpacket(`unix:${rig.path}`)).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
    await expect(connectSeqpacket('vsock+seq://any:1')).rejects.toThrow(RangeError)
    await expect(connectSeqpacket('vsock+seq://3:1', { vsock: { bufferSize: 0 } })).rejects.toThrow(RangeError)
    await expect(connectSeqpacket(`unix+seq:${rig.path}`, { maxReceiveBytes: 0 })).rejects.toThrow(RangeError)
    await expect(connectSeqpacket(`unix+seq:${rig.path}`, { timeoutMs: 'x' as never })).rejects.toThrow(RangeError)
    await expect(listenSeqpacket(`unix:${rig.path}`)).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
    await expect(listenSeqpacket(`unix+seq:${rig.path}`, { maxPending: 0 })).rejects.toThrow(RangeError)
  })

  it('explains a socket of another type, on both sides', async () => {
    const server = createServer().listen(rig.path)
    await vi.waitFor(() => expect(server.listening).toBe(true))
    expect(await failure(rig.dial())).toMatchObject({
      code: 'EPROTOTYPE',
      retryable: false,
      next: 'Is it a stream? Then connect() takes its address without "+seq".',
    })
    await new Promise((resolve) => server.close(resolve))
    await rig.listen()
    expect(await failure(connect(`unix:${rig.path}`))).toMatchObject({
      code: 'EPROTOTYPE',
      next: 'Is it for messages (SOCK_SEQPACKET)? Then connectSeqpacket() takes unix+seq:<path>.',
    })
  })

  it('says of each way for streams which one is for messages', async () => {
    for (const refused of [
      connect(`unix+seq:${rig.path}`),
      listen({ transport: 'unix', path: rig.path, type: 'seqpacket' } as never),
    ])
      expect(await failure(refused)).toMatchObject({
        code: 'ERR_INVALID_ADDRESS',
        next: expect.stringMatching(/^connectSeqpacket\(\) and listenSeqpacket\(\) take it\./),
      })
  })

  it('is refused by nothing, by a dead socket and by a full backlog, all retryable', async () => {
    const before = openDescriptors()
    expect(await failure(rig.dial())).toMatchObject({ code: 'ECONNREFUSED', retryable: true })
    const server = await rig.listen({ backlog: 1 })
    const dials = await Promise.allSettled(Array.from({ length: 4 }, () => rig.dial()))
    const refused = dials.filter((dial) => dial.status === 'rejected')
    expect(refused.length).toBeGreaterThan(0)
    for (const { reason } of refused)
      expect(reason).toMatchObject({
        code: 'ECONNREFUSED',
        retryable: true,
        what: 'the backlog of the listener is full (EAGAIN)',
      })
    await server.close()
    expect(await failure(rig.dial())).toMatchObject({ code: 'ECONNREFUSED', retryable: true })
    for (const dial of dials) if (dial.status === 'fulfilled') dial.value.destroy()
    await vi.waitFor(() => expect(openDescriptors()).toBe(before), 10_000)
  })

  it('tries again until there is a server', async () => {
    const onRetry = vi.fn()
    const dialling = rig.dial({ retry: { minDelayMs: 1, maxDelayMs: 5 }, onRetry })
    await vi.waitFor(() => expect(onRetry).toHaveBeenCalled(), 10_000)
    const server = await rig.listen()
    const [near, far] = await Promise.all([dialling, nextOf(server)])
    await near.send(bytes('at last'))
    expect(text((await far.receive())?.data)).toBe('at last')
  })

  it('is given up by a signal, before and while it tries', async () => {
    expect(await failure(rig.dial({ signal: AbortSignal.abort('now') }))).toMatchObject({ code: 'ABORTED', cause: 'now' })
    const stop = new AbortController()
    const clock = new FiredClock()
    const dialling = failure(rig.dial({ retry: true, signal: stop.signal, clock, onRetry: () => stop.abort('while') }))
    expect(await dialling).toMatchObject({ code: 'ABORTED', cause: 'while' })
    expect(clock.pending).toBe(0)
  })

  it('needs the addon', async () => {
    vi.mocked(loader.loadBinding).mockImplementation(() => {
      throw new loader.AddonError('addon', 'there is none', 'Build it.')
    })
    expect(await failure(rig.dial())).toMatchObject({ code: 'ENOTSUP', op: 'connect' })
    expect(await failure(rig.listen())).toMatchObject({ code: 'ENOTSUP', op: 'listen' })
  })
})
