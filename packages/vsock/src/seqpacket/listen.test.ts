import { execFileSync } from 'node:child_process'
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../../testing/addon.js'
import { FiredClock } from '../../testing/fired-clock.js'
import { bytes, nextOf, SeqpacketRig, text } from '../../testing/seqpacket.js'
import * as loader from '../native/loader.js'

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

describe.skipIf(!addon)('listenSeqpacket', () => {
  it('sets the mode, removes its file, and leaves the connections that were taken', async () => {
    const server = await rig.listen({ mode: 0o600 })
    expect(statSync(rig.path).mode & 0o777).toBe(0o600)
    const [near, far] = await Promise.all([rig.dial(), nextOf(server)])
    expect(server.connections.size).toBe(1)
    await server.close()
    expect(existsSync(rig.path)).toBe(false)
    await near.send(bytes('still'))
    expect(text((await far.receive())?.data)).toBe('still')
    server.closeAllConnections()
    expect(await near.receive()).toBeUndefined()
    expect(server.connections.size).toBe(0)
  })

  it('takes over what a dead server left, for messages or a stream, and nothing else', async () => {
    execFileSync('python3', [
      '-c',
      'import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind(sys.argv[1])',
      rig.path,
    ])
    expect(existsSync(rig.path)).toBe(true)
    const server = await rig.listen()
    expect(await failure(rig.listen())).toMatchObject({ code: 'EADDRINUSE', what: 'another server listens there' })
    await server.close()
    const live = createServer().listen(rig.path)
    await vi.waitFor(() => expect(live.listening).toBe(true))
    expect(await failure(rig.listen())).toMatchObject({ code: 'EADDRINUSE' })
    await new Promise((resolve) => live.close(resolve))
    writeFileSync(rig.path, '')
    expect(await failure(rig.listen())).toMatchObject({ code: 'EADDRINUSE' })
  })

  it('is on its port for hvsock+seq', async () => {
    const server = await rig.listen({}, `hvsock+seq://${rig.path}:52`)
    expect(existsSync(`${rig.path}_52`)).toBe(true)
    expect(server.address).toEqual({ transport: 'hvsock', path: rig.path, port: 52, type: 'seqpacket' })
    const [, far] = await Promise.all([rig.dial({}, `unix+seq:${rig.path}_52`), nextOf(server)])
    expect(far.local).toEqual(server.address)
  })

  it('keeps maxPending connections, and drops more', async () => {
    const server = await rig.listen({ maxPending: 2 })
    const dialled = [await rig.dial(), await rig.dial(), await rig.dial()]
    for (const [i, socket] of dialled.entries()) await socket.send(bytes(`${i}`)).catch(() => {})
    const left = await dialled[2]!.receive().catch((error) => error)
    expect(left === undefined || left.code === 'ECONNRESET').toBe(true)
    for (const expected of ['0', '1']) expect(text((await (await nextOf(server)).receive())?.data)).toBe(expected)
    expect(server.connections.size).toBe(2)
  })

  it('gives up by its signal: before it listens, and later', async () => {
    const before = openDescriptors()
    expect(await failure(rig.listen({ signal: AbortSignal.abort('now') }))).toMatchObject({ code: 'ABORTED', cause: 'now' })
    const stop = new AbortController()
    const opening = failure(rig.listen({ signal: stop.signal }))
    stop.abort('while')
    expect(await opening).toMatchObject({ code: 'ABORTED', cause: 'while', op: 'listen' })
    const later = new AbortController()
    const server = await rig.listen({ signal: later.signal })
    const ended = (async () => {
      for await (const _ of server) expect.unreachable()
    })()
    later.abort()
    await ended
    await server.close()
    expect(existsSync(rig.path)).toBe(false)
    await vi.waitFor(() => expect(openDescriptors()).toBe(before), 10_000)
  })

  it('waits where there is no descriptor left, and says so', async () => {
    const clock = new FiredClock()
    const server = await rig.listen({ clock })
    const errors: unknown[] = []
    server.on('error', (error) => errors.push(error))
    const accept = vi.spyOn(addon!, 'accept').mockImplementationOnce(() => {
      throw Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' })
    })
    const [dialled] = await Promise.all([rig.dial(), vi.waitFor(() => expect(errors).toHaveLength(1), 10_000)])
    expect(errors[0]).toMatchObject({ code: 'EMFILE', op: 'listen', retryable: true })
    accept.mockRestore()
    clock.fire()
    await dialled.send(bytes('x'))
    expect(text((await (await nextOf(server)).receive())?.data)).toBe('x')
  })
})
