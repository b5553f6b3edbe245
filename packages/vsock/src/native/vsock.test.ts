import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors, standInForVsock } from '../../testing/addon.js'
import { type Address, formatAddress, PORT_ANY } from '../address.js'
import { bindServer } from '../bind-server.js'
import { connect as connectTo } from '../connect.js'
import { isVsockError } from '../errors.js'
import { listen, type VsockServer } from '../listen.js'
import { VsockSocket } from '../socket.js'
import type { Binding } from './binding.js'
import * as loader from './loader.js'
import { AF_VSOCK, LITTLE_ENDIAN } from './sockaddr.js'
import { localCid } from './vsock.js'

const addon = addonIfBuilt()

function use(binding: Binding | Error) {
  vi.spyOn(loader, 'loadBinding').mockImplementation(() => {
    if (binding instanceof Error) throw binding
    return binding
  })
}

vi.mock('./loader.js', { spy: true })

const servers: VsockServer[] = []
const clients: VsockSocket[] = []

/** A server that goes away resets connections that it has not accepted yet; these tests ignore that. */
async function connect(...to: Parameters<typeof connectTo>) {
  const socket = await connectTo(...to)
  clients.push(socket.on('error', () => {}))
  return socket
}

async function serve(address: string, options: Parameters<typeof listen>[1] = {}) {
  const server = await listen(address, options)
  servers.push(server)
  return server
}
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy()
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    await server.close()
  }
})

async function failure(promise: Promise<unknown>) {
  const error = await promise.then(
    () => expect.unreachable('resolved'),
    (reason: unknown) => reason,
  )
  if (!isVsockError(error)) throw error
  return error
}

describe('without the addon', () => {
  it('connect, listen and localCid say why, and what else there is', async () => {
    const missing = new loader.AddonError('@upcall/vsock', 'the addon is not here', 'Get it.', [
      { path: '/x.node', reason: 'no such file' },
    ])
    use(missing)
    const error = await failure(connect('vsock://local:219'))
    expect(error).toMatchObject({ code: 'ENOTSUP', op: 'connect', retryable: false, cause: missing })
    expect(error.message).toBe('connect vsock://local:219: the addon is not here. Get it.')
    expect(await failure(listen('vsock://any:219'))).toMatchObject({ code: 'ENOTSUP', op: 'listen', cause: missing })
    expect(() => localCid()).toThrow('localCid: the addon is not here. Get it.')
  })

  it('passes on what is a bug and not a missing addon', async () => {
    const bug = new TypeError('bug')
    use(bug)
    await expect(connect('vsock://local:219')).rejects.toBe(bug)
  })
})

describe.runIf(addon)('vsock:// over AF_UNIX in its place', () => {
  let standIn: ReturnType<typeof standInForVsock>
  beforeEach(() => {
    standIn = standInForVsock(addon as Binding)
    use(standIn.binding)
  })

  it('connects and accepts VsockSockets that know both ends', async () => {
    const server = await serve('vsock://local:any')
    expect(server.address).toMatchObject({ transport: 'vsock', cid: 1 })
    expect(server.address).not.toMatchObject({ port: PORT_ANY })
    const accepting = once(server, 'connection')
    const client = await connect(server.address)
    const [accepted] = (await accepting) as [VsockSocket]
    expect(client).toBeInstanceOf(VsockSocket)
    expect(client.remote).toEqual(server.address)
    expect(client.local).toMatchObject({ transport: 'vsock', cid: 1 })
    expect(accepted.local).toEqual(server.address)
    expect(accepted.remote).toMatchObject({ transport: 'vsock', cid: 1 })
    expect([client.halfClose, accepted.halfClose, client.allowHalfOpen]).toEqual([true, true, false])
    client.end('ping')
    expect(String((await once(accepted, 'data'))[0])).toBe('ping')
    accepted.end('pong')
    expect(String((await once(client, 'data'))[0])).toBe('pong')
  })

  it('gives the address up again if the signal aborts right after the call', async () => {
    const [stop, reason] = [new AbortController(), new Error('enough')]
    const listening = listen('vsock://any:9', { signal: stop.signal })
    const server = createServer()
    const binding = bindServer(server, 'vsock://any:10', { signal: stop.signal })
    stop.abort(reason)
    for (const each of [listening, binding]) await expect(each).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect(server.listening).toBe(false)
    for (const port of [9, 10]) await expect(connect(`vsock://local:${port}`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('leaves a socket paused for a server that wants that', async () => {
    const server = createServer({ pauseOnConnect: true })
    const bound = await bindServer(server, 'vsock://any:11')
    const accepting = once(server, 'connection')
    const client = await connect('vsock://local:11')
    client.write('later')
    const [socket] = (await accepting) as [Socket]
    const chunks: unknown[] = []
    socket.on('data', (chunk) => chunks.push(String(chunk)))
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    expect([socket.isPaused(), chunks]).toEqual([true, []])
    socket.resume()
    await vi.waitFor(() => expect(chunks).toEqual(['later']))
    client.destroy()
    socket.destroy()
    await bound.close()
  })

  it.each([
    ['vsock://local:9', 1, 'over loopback it is 1'],
    ['vsock://3:9', 1, "this machine's own CID goes over loopback"],
    ['vsock://host:9', 3, "elsewhere it is this machine's"],
  ])('names the local CID as the peer of %s sees it: %i', async (address, cid) => {
    await serve('vsock://any:9')
    expect((await connect(address)).local).toMatchObject({ cid })
  })

  it('leaves the local CID at any where /dev/vsock may not be asked', async () => {
    use({
      ...standIn.binding,
      localCid: () => {
        throw Object.assign(new Error('no'), { code: 'EACCES' })
      },
    })
    await serve('vsock://any:9')
    expect((await connect('vsock://host:9')).local).toMatchObject({ cid: 0xffffffff })
    expect((await connect('vsock://local:9')).local).toMatchObject({ cid: 1 })
  })

  it("says ECONNREFUSED for a port without a listener, with the kernel's errno in the cause", async () => {
    const error = await failure(connect('vsock://local:77'))
    expect(error).toMatchObject({
      code: 'ECONNREFUSED',
      op: 'connect',
      retryable: true,
      remote: { transport: 'vsock', cid: 1, port: 77 },
      cause: { code: 'ECONNRESET', errno: -104 },
    })
    expect(error.message).toBe(
      'connect vsock://local:77: there is no listener on that port, or its backlog is full (the kernel said ECONNRESET). ' +
        'Start the server at the other end, or pass retry.',
    )
  })

  it('retries until the server is there', async () => {
    const connecting = connect('vsock://local:78', { retry: { minDelayMs: 1 } })
    await serve('vsock://local:78')
    expect(formatAddress((await connecting).remote as Address)).toBe('vsock://local:78')
    expect(standIn.connected.length).toBeGreaterThan(1)
  })

  it('tells the kernel to wait as long as the attempt may take, and passes the buffer sizes on', async () => {
    const { address } = await serve('vsock://local:any')
    await connect(address, { timeoutMs: 7_000, vsock: { bufferSize: 1 << 20, bufferMinSize: 4_096 } })
    const [max, min, size, timeout] = standIn.options.map(([option, ...bytes]) => {
      const view = new DataView(Uint8Array.from(bytes).buffer)
      return [option, bytes.length, Number(view.getBigUint64(0, LITTLE_ENDIAN))]
    })
    expect([max, min, size]).toEqual([
      [2, 8, 1 << 20],
      [1, 8, 4_096],
      [0, 8, 1 << 20],
    ])
    // A little may have passed since the call.
    expect(timeout?.slice(0, 2)).toEqual([8, 16])
    expect(timeout?.[2]).toBeOneOf([6, 7])
  })

  it('sets the flag for sibling VMs only when asked to', async () => {
    await serve('vsock://any:9')
    await connect('vsock://5:9')
    await connect('vsock://5:9', { vsock: { toHost: true } })
    expect(standIn.connected).toEqual([
      { cid: 5, port: 9, toHost: false },
      { cid: 5, port: 9, toHost: true },
    ])
  })

  it('refuses buffer sizes that make no sense, before it opens anything', async () => {
    for (const vsock of [{ bufferSize: 0 }, { bufferSize: 1.5 }, { bufferMaxSize: Number.NaN }]) {
      await expect(connect('vsock://local:9', { vsock })).rejects.toThrow(
        /^vsock.buffer.*: must be an integer from 1 to 4294967295, got /,
      )
    }
    const vsock = { bufferMinSize: 9, bufferSize: 8, bufferMaxSize: 10 }
    await expect(listen('vsock://any:9', { vsock })).rejects.toThrow(
      'vsock: must have bufferMinSize <= bufferSize <= bufferMaxSize, got 9, 8, 10',
    )
    await expect(listen('vsock://any:9', { vsock: { bufferMinSize: 9, bufferMaxSize: 8 } })).rejects.toThrow(RangeError)
  })

  it('aborts, before and while connecting, with nothing left open', async () => {
    // A connect that stays in progress: readiness never comes.
    use({ ...standIn.binding, connect: () => false, watch: () => {} })
    const before = openDescriptors()
    const reason = new Error('enough')
    expect(await failure(connect('vsock://3:9', { signal: AbortSignal.abort(reason) }))).toMatchObject({
      code: 'ABORTED',
      cause: reason,
    })
    const stop = new AbortController()
    const connecting = failure(connect('vsock://3:9', { signal: stop.signal }))
    await Promise.resolve()
    expect(openDescriptors()).toBe(before + 1)
    stop.abort(reason)
    expect(await connecting).toMatchObject({ code: 'ABORTED', cause: reason, remote: { cid: 3 } })
    expect(openDescriptors()).toBe(before)
  })

  it('ends at its deadline, with the hint for a silent CID', async () => {
    use({ ...standIn.binding, connect: () => false, watch: () => {} })
    let fire = () => {}
    const clock = {
      now: () => 0,
      setTimer: (_ms: number, fn: () => void) => {
        fire = fn
        return () => {}
      },
    }
    const connecting = failure(connect('vsock://3:9', { clock, timeoutMs: 250 }))
    await Promise.resolve()
    fire()
    const error = await connecting
    expect(error).toMatchObject({ code: 'ETIMEDOUT', retryable: true })
    expect(error.message).toMatch(/^connect vsock:\/\/3:9: no answer within 250 ms\. .*vsock_loopback/)
  })

  it('reports what listening fails with, and closes with its signal', async () => {
    await serve('vsock://any:9')
    expect(await failure(listen('vsock://any:9'))).toMatchObject({ code: 'EADDRINUSE', op: 'listen', local: { port: 9 } })
    expect(await failure(listen('vsock://any:10', { signal: AbortSignal.abort() }))).toMatchObject({ code: 'ABORTED' })
    const stop = new AbortController()
    const server = await serve('vsock://any:11', { signal: stop.signal })
    stop.abort()
    await once(server, 'close')
    expect(await failure(connect('vsock://local:11'))).toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('reports exhaustion and goes on, reports a broken listener and closes', async () => {
    const codes = ['EMFILE', 'EIO']
    use({
      ...standIn.binding,
      accept() {
        throw Object.assign(new Error('accept'), { code: codes.shift() })
      },
    })
    const delays: number[] = []
    const clock = {
      now: () => 0,
      setTimer(ms: number, fn: () => void) {
        delays.push(ms)
        setImmediate(fn)
        return () => {}
      },
    }
    const server = await serve('vsock://any:9', { clock })
    const errors: unknown[] = []
    server.on('error', (error) => errors.push(error))
    await connect('vsock://local:9')
    await new Promise((resolve) => server.once('close', () => resolve(undefined)))
    expect(delays).toEqual([10])
    expect(errors).toMatchObject([
      { code: 'EMFILE', op: 'listen', retryable: true },
      { code: 'EIO', op: 'listen', retryable: false },
    ])
  })

  it('hands ref and unref on', async () => {
    const calls: string[] = []
    use({ ...standIn.binding, ref: () => void calls.push('ref'), unref: () => void calls.push('unref') })
    const server = await serve('vsock://any:9')
    expect(server.unref().ref()).toBe(server)
    expect(calls).toEqual(['unref', 'ref'])
  })

  it('gives the CID, or says why not', () => {
    expect(localCid()).toBe(3)
    const denied = Object.assign(new Error('denied'), { code: 'EACCES' })
    use({
      ...standIn.binding,
      localCid: () => {
        throw denied
      },
    })
    expect(() => localCid()).toThrow(
      'localCid: /dev/vsock cannot be asked (EACCES). This process needs read permission on /dev/vsock.',
    )
  })

  it.each([0xffffffff, -1])('has no CID where the kernel answers %d, its word for any: there is no transport', async (any) => {
    use({ ...standIn.binding, localCid: () => any })
    expect(() => localCid()).toThrow(
      "localCid: this machine has no CID. Load a vsock transport: vhost_vsock (host), vsock_loopback, or the VM's vsock device. A guest of Hyper-V has none, and needs none.",
    )
    expect(caught(() => localCid())).toMatchObject({ code: 'ENODEV', retryable: false })
  })

  it.each([0, -1, 1.5, Number.NaN, 2 ** 31])('refuses a backlog of %d', async (backlog) => {
    await expect(listen('vsock://any:9', { backlog })).rejects.toThrow(
      `backlog: must be an integer from 1 to 2147483647, got ${backlog}`,
    )
  })

  it('refuses buffers that credit, a u32, cannot tell', async () => {
    for (const name of ['bufferSize', 'bufferMinSize', 'bufferMaxSize'])
      await expect(listen('vsock://any:9', { vsock: { [name]: 2 ** 32 } })).rejects.toThrow(
        `vsock.${name}: must be an integer from 1 to 4294967295, got 4294967296`,
      )
    const server = await serve('vsock://any:9', { vsock: { bufferSize: 2 ** 32 - 1 } })
    await server.close()
  })
})

function caught(act: () => unknown): unknown {
  try {
    act()
  } catch (error) {
    return error
  }
  throw new Error('it went well')
}

describe.runIf(addon && hasVsock(addon))("this kernel's AF_VSOCK, without connecting", () => {
  beforeEach(() => {
    const never = () => {
      throw new Error('AF_VSOCK is connected in guests only')
    }
    use({ ...(addon as Binding), connect: never })
  })

  it('listens on a port the kernel chooses, which is then taken', async () => {
    const server = await serve('vsock://any:any')
    expect(server.address).toMatchObject({ transport: 'vsock', cid: 0xffffffff })
    expect(server.address).not.toMatchObject({ port: PORT_ANY })
    expect(await failure(listen(server.address))).toMatchObject({ code: 'EADDRINUSE', cause: { syscall: 'bind' } })
    await server.close()
    const again = await serve(formatAddress(server.address))
    expect(again.address).toEqual(server.address)
  })

  it("binds a server of the caller's to a port that the kernel chooses", async () => {
    const server = createServer()
    const bound = await bindServer(server, 'vsock://any:any')
    expect(server.address()).toBe(formatAddress(bound.address))
    await expect(bindServer(createServer(), bound.address)).rejects.toMatchObject({ code: 'EADDRINUSE' })
    await bound.close()
    expect([server.listening, server.address()]).toEqual([false, null])
    await (await bindServer(server, bound.address)).close()
  })

  it("refuses a CID that is not this machine's", async () => {
    expect(await failure(listen('vsock://4294967294:any'))).toMatchObject({ code: 'EADDRNOTAVAIL', op: 'listen' })
  })

  it('takes the options as they are encoded here', async () => {
    const binding = addon as Binding
    const { setBufferSizes, setConnectTimeout } = await import('./options.js')
    const descriptor = binding.socket(AF_VSOCK)
    const read = (option: number, length: number) => {
      const view = new DataView(binding.getsockopt(descriptor, AF_VSOCK, option, length).buffer)
      return Array.from({ length: length / 8 }, (_, i) => Number(view.getBigUint64(i * 8, LITTLE_ENDIAN)))
    }
    setBufferSizes(binding, descriptor, { bufferSize: 1 << 20 })
    expect([0, 1, 2].map((option) => read(option, 8)[0])).toEqual([1 << 20, 128, 1 << 20])
    setBufferSizes(binding, descriptor, { bufferSize: 64 })
    expect([0, 1].map((option) => read(option, 8)[0])).toEqual([64, 64])
    // The kernel keeps ticks, of at most 10 ms, and rounds up.
    setConnectTimeout(binding, descriptor, 3_500)
    for (const option of [6, 8]) {
      const [seconds, microseconds] = read(option, 16)
      expect(seconds).toBe(3)
      expect(microseconds).toBeGreaterThanOrEqual(500_000)
      expect(microseconds).toBeLessThan(520_000)
    }
    binding.close(descriptor)
  })
})

function hasVsock(binding: Binding): boolean {
  try {
    binding.close(binding.socket(AF_VSOCK))
    return true
  } catch {
    console.warn('Tests of AF_VSOCK are left out: this kernel has none. To run them: modprobe vsock')
    return false
  }
}
