import { existsSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../testing/addon.js'
import { FiredClock } from '../testing/fired-clock.js'
import { bytes, nextOf, SeqpacketRig, text, textsOf } from '../testing/seqpacket.js'
import { type HybridServer, type ListenHybridOptions, listenHybrid } from './hybrid.js'
import type { Refusal } from './hybrid-handshake.js'
import * as loader from './native/loader.js'
import type { SeqpacketServer } from './seqpacket/listen.js'
import type { SeqpacketSocket } from './seqpacket/socket.js'

// The draft of Cloud Hypervisor's issue 8894: <path>_seqpacket beside <path>.

vi.mock('./native/loader.js', { spy: true })

const addon = addonIfBuilt()
let rig: SeqpacketRig
let guest: SeqpacketServer
let hybrid: HybridServer | undefined
let refusals: Refusal[]

beforeEach(async () => {
  if (!addon) return
  vi.mocked(loader.loadBinding).mockReturnValue(addon)
  rig = new SeqpacketRig()
  guest = await rig.listen({}, `unix+seq:${rig.dir}/guest`)
})
afterEach(async () => {
  await hybrid?.close()
  hybrid = undefined
  await rig?.close()
})

async function open(options: Partial<ListenHybridOptions> = {}): Promise<HybridServer> {
  refusals = []
  const routeSeqpacket = (port: number) => (port === 52 ? rig.dial({}, `unix+seq:${rig.dir}/guest`) : undefined)
  hybrid = await listenHybrid({ path: rig.path, route: () => undefined, routeSeqpacket, ...options })
  hybrid.on('refused', (refusal) => refusals.push(refusal))
  return hybrid
}

const dial = (port = 52) => rig.dial({}, `hvsock+seq://${rig.path}:${port}`)
const raw = () => rig.dial({}, `unix+seq:${rig.path}_seqpacket`)
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable(),
    (error) => error,
  )

describe.skipIf(!addon)('messages over hybrid vsock', () => {
  it('are joined with what the route gives; the handshake is the first message each way', async () => {
    const server = await open()
    const told = vi.fn()
    server.on('connection', told)
    const near = await raw()
    await near.send(bytes('CONNECT 52\n'))
    expect(text((await near.receive())?.data)).toBe('OK 1073741824\n')
    const far = await nextOf(guest)
    await near.send(bytes('ask'))
    near.end()
    expect(await textsOf(far)).toEqual(['ask'])
    await far.send(bytes('answer'))
    far.end()
    expect(await textsOf(near)).toEqual(['answer'])
    expect(told).toHaveBeenCalledExactlyOnceWith({ port: 52, hostPort: 1073741824, type: 'seqpacket' })
    await vi.waitFor(() => expect(server.size).toBe(0), 10_000)
  })

  it('are dialled by connectSeqpacket, which keeps what the guest says first', async () => {
    await open()
    const [near, far] = await Promise.all([dial(), nextOf(guest)])
    await far.send(bytes('greeting'))
    expect(text((await near.receive())?.data)).toBe('greeting')
    expect(near.remote).toEqual({ transport: 'hvsock', path: rig.path, port: 52, type: 'seqpacket' })
  })

  it('is refused where there is no route, and the reason is told', async () => {
    await open()
    expect(await failure(dial(53))).toMatchObject({ code: 'ECONNREFUSED', retryable: true })
    expect(refusals).toEqual([{ port: 53, reason: 'no-route', cause: undefined, type: 'seqpacket' }])
  })

  it.each([
    ['HELLO 52\n', '"HELLO" is not CONNECT'],
    ['CONNECT 52', 'the first message is not CONNECT <port>'],
    ['CONNECT 52\nmore', 'more follows CONNECT in the same message'],
    ['passfd\n', 'the first message is not CONNECT <port>'],
    [`CONNECT ${'5'.repeat(1000)}`, 'no newline in 32 bytes'],
  ])('refuses %j', async (command, why) => {
    await open()
    const near = await raw()
    await near.send(bytes(command))
    expect(await near.receive().catch(() => undefined)).toBeUndefined()
    expect(refusals).toMatchObject([{ port: undefined, reason: 'bad-command', cause: new Error(why) }])
  })

  it('gives up a dialer that says nothing, and a route that takes too long', async () => {
    const clock = new FiredClock()
    let routed: SeqpacketSocket | undefined
    let answer: (() => void) | undefined
    await open({
      clock,
      routeSeqpacket: async () => {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        routed = await rig.dial({}, `unix+seq:${rig.dir}/guest`)
        return routed
      },
    })
    const [silent, waiting] = [await raw(), await raw()]
    await waiting.send(bytes('CONNECT 52\n'))
    await vi.waitFor(() => expect(clock.pending).toBe(2), 10_000)
    await vi.waitFor(() => expect(answer).toBeDefined(), 10_000)
    clock.fire(2_000)
    expect(refusals.map(({ reason }) => reason)).toEqual(['timeout', 'timeout'])
    for (const socket of [silent, waiting]) expect(await socket.receive().catch(() => undefined)).toBeUndefined()
    answer?.()
    await vi.waitFor(() => expect(routed).toBeDefined(), 10_000)
    await routed?.closed
  })

  it('stops with the server, which removes both files', async () => {
    const before = openDescriptors()
    const server = await open()
    const [near, far] = await Promise.all([dial(), nextOf(guest)])
    expect(existsSync(`${rig.path}_seqpacket`)).toBe(true)
    await server.close()
    expect([existsSync(rig.path), existsSync(`${rig.path}_seqpacket`)]).toEqual([false, false])
    for (const socket of [near, far]) {
      expect(await socket.receive()).toBeUndefined()
      socket.destroy()
    }
    await vi.waitFor(() => expect(openDescriptors()).toBe(before), 10_000)
  })

  it('is off by default, and needs a path', async () => {
    await open({ routeSeqpacket: undefined })
    expect(existsSync(`${rig.path}_seqpacket`)).toBe(false)
    await expect(listenHybrid({ fd: 99, route: () => undefined, routeSeqpacket: () => undefined })).rejects.toThrow()
    await expect(listenHybrid({ path: `${rig.path}2`, route: () => undefined, routeSeqpacket: 1 as never })).rejects.toThrow(
      TypeError,
    )
  })

  it("tells a dialer of a program that is not a VMM's socket for messages", async () => {
    const odd = await rig.listen({}, `unix+seq:${rig.path}_seqpacket`)
    const dialling = failure(dial())
    const far = await nextOf(odd)
    expect(text((await far.receive())?.data)).toBe('CONNECT 52\n')
    await far.send(bytes('hello'))
    expect(await dialling).toMatchObject({ code: 'EPROTO', what: 'the reply to CONNECT is "hello", not "OK <n>"' })
  })
})
