import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, connect as netConnect, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Duplex, duplexPair, type Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { connect } from '../connect.js'
import { isVsockError } from '../errors.js'
import { listenHybrid } from '../hybrid.js'
import { listen, type VsockServer } from '../listen.js'
import type { VsockSocket } from '../socket.js'
import type { ForwardEnd, ForwardedConnection, ForwardTarget } from './carry.js'
import type { EndpointInit, TcpAddress } from './endpoint.js'
import { type Forwarder, type ForwardOptions, forward } from './forward.js'

let dir: string
const closers: (() => unknown)[] = []
let descriptors = 0

beforeEach(() => {
  descriptors = openDescriptors()
  dir = mkdtempSync(join(tmpdir(), 'forward-'))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  // No socket file, and no descriptor.
  expect(readdirSync(dir)).toEqual([])
  rmSync(dir, { recursive: true })
  await expect.poll(openDescriptors, { timeout: 10_000 }).toBeLessThanOrEqual(descriptors)
})

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

interface Told {
  readonly connections: ForwardedConnection[]
  readonly ends: ForwardEnd[]
  readonly refusals: string[]
}

async function forwarding(
  from: EndpointInit,
  to: ForwardTarget,
  options?: ForwardOptions,
): Promise<{ forwarder: Forwarder; told: Told; ended(): Promise<ForwardEnd> }> {
  const forwarder = await forward(from, to, options)
  const told: Told = { connections: [], ends: [], refusals: [] }
  forwarder
    .on('connection', (connection) => told.connections.push(connection))
    .on('closed', (_connection, end) => told.ends.push(end))
    .on('refused', ({ reason }) => told.refusals.push(reason))
  closers.push(() => forwarder.close())
  const ended = async () => {
    await expect.poll(() => told.ends.length, { timeout: 10_000 }).toBeGreaterThan(0)
    return told.ends[0]!
  }
  return { forwarder, told, ended }
}

async function guest(serve: (socket: VsockSocket) => unknown, address = `unix:${dir}/guest`): Promise<VsockServer> {
  const server = await listen(address, { allowHalfOpen: true })
  server.on('connection', (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  closers.push(async () => {
    server.closeAllConnections()
    await server.close()
  })
  return server
}

const echo = (socket: Duplex) => void socket.pipe(socket)

async function dialUnix(name = 'near'): Promise<Socket> {
  const socket = netConnect({ path: join(dir, name), allowHalfOpen: true })
  closers.push(() => socket.destroy())
  await once(socket, 'connect')
  return socket.on('error', () => {})
}

async function dialTcp({ address }: Forwarder): Promise<Socket> {
  const { host, port } = address as TcpAddress
  const socket = netConnect({ host, port, allowHalfOpen: true })
  closers.push(() => socket.destroy())
  await once(socket, 'connect')
  return socket.on('error', () => {})
}

async function tcpServer(serve: (socket: Socket) => unknown): Promise<{ port: number; server: Server }> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    closers.push(() => socket.destroy())
    socket.on('error', () => {})
    serve(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => server.close())
  return { port: (server.address() as AddressInfo).port, server }
}

async function all(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) text += chunk
  return text
}

const ended = { outcome: 'ok', durationMs: expect.any(Number) }

describe('what it carries', () => {
  it.each<[string, () => EndpointInit, () => EndpointInit]>([
    ['unix to unix', () => `unix:${dir}/near`, () => `unix:${dir}/guest`],
    ['unix, as a value', () => ({ transport: 'unix', path: join(dir, 'near') }), () => `unix:${dir}/guest`],
  ])('%s, EOF each way by itself', async (_name, from, to) => {
    await guest(async (socket) => {
      const question = await all(socket)
      socket.end(`you said ${question}`)
    })
    const { forwarder, told, ended: over } = await forwarding(from(), to())
    expect(forwarder.address).toEqual({ transport: 'unix', path: join(dir, 'near') })
    const socket = await dialUnix()
    socket.end('hello')
    expect(await all(socket)).toBe('you said hello')
    expect(await over()).toEqual({ ...ended, sent: 5, received: 14 })
    expect(told.connections).toMatchObject([{ id: 1, remote: `unix:${dir}/near` }])
    expect(forwarder.connections).toBe(0)
  })

  it('tcp on a free port of the loopback, and tcp as a value', async () => {
    const { port } = await tcpServer(echo)
    const { forwarder, ended: over } = await forwarding('tcp:any', { port })
    expect(forwarder.address).toEqual({ transport: 'tcp', host: '127.0.0.1', port: expect.any(Number) })
    const socket = await dialTcp(forwarder)
    socket.end('hello')
    expect(await all(socket)).toBe('hello')
    expect(await over()).toEqual({ ...ended, sent: 5, received: 5 })
  })

  it('as a VMM, to a VMM', async () => {
    await guest(echo)
    const vmm = await listenHybrid({ path: join(dir, 'vm'), route: () => connect(`unix:${dir}/guest`) })
    closers.push(() => vmm.close())
    await forwarding(`hvsock://${dir}/near:80`, `hvsock://${dir}/vm:90`, { asVmm: true, halfClose: true })
    const socket = await connect(`hvsock://${dir}/near:80`, { halfClose: true })
    socket.end('hello')
    expect(await all(socket)).toBe('hello')
    socket.destroy()
  })

  it('as a VMM, and tells of dialers that it refused', async () => {
    const { told } = await forwarding(`hvsock://${dir}/near:80`, `unix:${dir}/guest`, { asVmm: true, profile: 'firecracker' })
    for (const words of ['CONNECT 81\n', 'CONNECT', 'GET / HTTP/1.1\r\n']) {
      const socket = await dialUnix()
      socket.end(words)
      expect(await all(socket)).toBe('')
    }
    expect(told.refusals).toEqual(['no-route', 'bad-command', 'bad-command'])
    // Nothing listens there: the dialer is refused, and that is the end of a connection.
    await expect(connect(`hvsock://${dir}/near:80`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(told.refusals).toHaveLength(3)
    expect(told.ends).toMatchObject([{ outcome: 'not-sent', error: { code: 'ECONNREFUSED' } }])
  })
})

describe('a function as the target', () => {
  it('gives a stream, an address or tcp for each connection', async () => {
    await guest(echo)
    const { port } = await tcpServer(echo)
    const [near, far] = duplexPair()
    echo(far)
    const asked: string[] = []
    const targets = [near, `unix:${dir}/guest`, { port }]
    const { told } = await forwarding(`unix:${dir}/near`, async ({ id, remote }) => {
      asked.push(`${id} ${remote}`)
      return targets[id - 1]!
    })
    for (let i = 1; i <= 3; i++) {
      const socket = await dialUnix()
      socket.end(`number ${i}`)
      expect(await all(socket)).toBe(`number ${i}`)
      await expect.poll(() => told.ends.length, { timeout: 10_000 }).toBe(i)
    }
    expect(asked).toEqual([1, 2, 3].map((id) => `${id} unix:${dir}/near`))
    expect(told.ends).toMatchObject([{ outcome: 'ok' }, { outcome: 'ok' }, { outcome: 'ok' }])
    expect(near.destroyed).toBe(true)
  })

  it.each<[string, ForwardTarget, unknown]>([
    ['throws', () => Promise.reject(new Error('no such guest')), { message: 'no such guest' }],
    ['gives nothing', () => undefined as never, { code: 'ERR_INVALID_ADDRESS' }],
    ['gives an address that does not exist', () => 'unix:/nowhere/x', { code: 'ECONNREFUSED' }],
  ])('that %s costs one connection', async (_name, to, error) => {
    const { ended: over } = await forwarding(`unix:${dir}/near`, to)
    expect(await all(await dialUnix())).toBe('')
    expect(await over()).toMatchObject({ outcome: 'not-sent', sent: 0, received: 0, error })
  })

  it('that does not answer is given up in time, and what it gives then is closed', async () => {
    const clock = new ManualClock()
    const [near] = duplexPair()
    let answer: (stream: Duplex) => void = () => {}
    const { told, ended: over } = await forwarding(
      `unix:${dir}/near`,
      () => new Promise<Duplex>((resolve) => (answer = resolve)),
      { clock, timeoutMs: 100 },
    )
    const socket = await dialUnix()
    await expect.poll(() => told.connections.length, { timeout: 10_000 }).toBe(1)
    clock.advance(100)
    expect(await over()).toMatchObject({ outcome: 'not-sent', durationMs: 100, error: { code: 'ETIMEDOUT', op: 'forward' } })
    expect(await all(socket)).toBe('')
    answer(near)
    await turn()
    expect([near.destroyed, clock.pending]).toEqual([true, 0])
  })

  it('that does not answer does not hold close() up', async () => {
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, () => new Promise<Duplex>(() => {}), { graceMs: 600_000 })
    await dialUnix()
    await expect.poll(() => told.connections.length, { timeout: 10_000 }).toBe(1)
    await forwarder.close()
    expect(told.ends).toMatchObject([{ outcome: 'not-sent', error: { code: 'ABORTED', op: 'forward' } }])
    expect(told.connections[0]?.signal.aborted).toBe(true)
  })
})

describe('how a connection ends', () => {
  it('a target that is not there: tcp is reset', async () => {
    const { forwarder, ended: over } = await forwarding('tcp:any', `unix:${dir}/guest`)
    const socket = await dialTcp(forwarder)
    const [error] = await once(socket, 'error')
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    const end = await over()
    expect(end).toMatchObject({ outcome: 'not-sent', error: { code: 'ECONNREFUSED', retryable: true } })
    expect(isVsockError(end.error)).toBe(true)
  })

  it('a target of tcp that is not there', async () => {
    const { port, server } = await tcpServer(echo)
    server.close()
    const { ended: over } = await forwarding(`unix:${dir}/near`, { port })
    expect(await all(await dialUnix())).toBe('')
    expect(await over()).toMatchObject({
      outcome: 'not-sent',
      error: { name: 'TcpError', code: 'ECONNREFUSED', op: 'connect', subject: `tcp://127.0.0.1:${port}`, retryable: true },
    })
  })

  it('a target that comes later is waited for with retry', async () => {
    const { told } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { retry: { maxDelayMs: 20 } })
    const socket = await dialUnix()
    socket.end('hello')
    await expect.poll(() => told.connections.length, { timeout: 10_000 }).toBe(1)
    await guest(echo)
    expect(await all(socket)).toBe('hello')
  })

  it('a target of tcp that comes later is waited for with retry, and for no longer than it says', async () => {
    const { port, server } = await tcpServer(echo)
    server.close()
    const clock = new ManualClock()
    const options = { clock, retry: { minDelayMs: 50, maxDelayMs: 50, budgetMs: 200, random: () => 0.5 } }
    const { told, ended: over } = await forwarding(`unix:${dir}/near`, { port }, options)
    await dialUnix()
    // It refuses at once, so that the clock has only the pauses to wait for.
    await expect
      .poll(
        () => {
          clock.advance(10)
          return told.ends.length
        },
        { timeout: 10_000, interval: 5 },
      )
      .toBe(1)
    const { outcome, error, durationMs } = await over()
    expect([outcome, (error as { code?: string }).code]).toEqual(['not-sent', 'ECONNREFUSED'])
    expect(durationMs).toBeGreaterThan(100)
    expect(durationMs).toBeLessThanOrEqual(200)
    expect(clock.pending).toBe(0)
  })

  it('a reset is passed on', async () => {
    const { port } = await tcpServer((socket) => socket.once('data', () => socket.resetAndDestroy()))
    const { forwarder, ended: over } = await forwarding('tcp:any', { port })
    const socket = await dialTcp(forwarder)
    socket.write('x')
    const [error] = await once(socket, 'error')
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    expect(await over()).toMatchObject({ outcome: 'indeterminate', side: 'to', error: { code: 'ECONNRESET' } })
  })

  it('a source that resets is told of as the side that broke', async () => {
    const { port } = await tcpServer((socket) => socket.resume().write('more than it reads'))
    const { forwarder, ended: over } = await forwarding('tcp:any', { port })
    const socket = await dialTcp(forwarder)
    socket.write('x')
    await once(socket, 'data')
    socket.resetAndDestroy()
    expect(await over()).toMatchObject({ outcome: 'indeterminate', side: 'from', sent: 1, error: { code: 'ECONNRESET' } })
  })

  it('a source that has closed is not waited for; after the end of one direction the other goes on', async () => {
    let answers = (_text: string) => {}
    await guest((socket) => {
      answers = (text) => void socket.end(text)
      socket.resume()
    })
    const clock = new ManualClock()
    const { told, ended: over } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { clock })
    const socket = await dialUnix()
    socket.end('question')
    await expect.poll(() => clock.pending, { timeout: 10_000 }).toBe(1)
    // It looks again and again, and still waits.
    for (let i = 0; i < 5; i++) {
      clock.advance(500)
      await turn()
    }
    expect(told.ends).toEqual([])
    socket.destroy()
    await expect
      .poll(
        () => {
          clock.advance(500)
          return told.ends.length
        },
        { timeout: 10_000, interval: 5 },
      )
      .toBe(1)
    expect(await over()).toMatchObject({ outcome: 'ok', sent: 8, received: 0 })
    answers('nobody')
  })

  it.each(['unix', 'tcp'])('a source of %s that has ended before there is a connection is answered', async (transport) => {
    await guest((socket) => void all(socket).then((question) => socket.end(`nothing but "${question}"`)))
    let go = () => {}
    const ready = new Promise<void>((resolve) => {
      go = resolve
    })
    const from = transport === 'unix' ? `unix:${dir}/near` : 'tcp:any'
    const {
      forwarder,
      told,
      ended: over,
    } = await forwarding(from, async () => {
      await ready
      return `unix:${dir}/guest`
    })
    const socket = await (transport === 'unix' ? dialUnix() : dialTcp(forwarder))
    const ended = once(socket, 'finish')
    socket.end()
    await ended
    await expect.poll(() => told.connections.length, { timeout: 10_000 }).toBe(1)
    // The forwarder sees the end before there is a guest.
    for (let i = 0; i < 20; i++) await turn()
    go()
    expect(await all(socket)).toBe('nothing but ""')
    expect(await over()).toMatchObject({ outcome: 'ok', sent: 0, received: 14 })
  })

  it('a peer that leaves while a function looks for its stream', async () => {
    let abort: AbortSignal | undefined
    const { told, ended: over } = await forwarding(
      `hvsock://${dir}/near:80`,
      ({ signal }) => {
        abort = signal
        return new Promise<Duplex>(() => {})
      },
      { asVmm: true },
    )
    const socket = await dialUnix()
    socket.write('CONNECT 80\n')
    await expect.poll(() => told.connections.length, { timeout: 10_000 }).toBe(1)
    socket.destroy()
    expect(await over()).toMatchObject({ outcome: 'not-sent', error: { code: 'ABORTED' } })
    expect(abort?.aborted).toBe(true)
    expect(told.ends[0]?.error?.cause).toBe(abort?.reason)
  })

  it('silence after one direction has ended is bounded by lingerMs', async () => {
    const heard: Promise<string>[] = []
    await guest((socket) => heard.push(all(socket)))
    const clock = new ManualClock()
    const { told, ended: over } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { clock, lingerMs: 60_000 })
    const socket = await dialUnix()
    socket.end('question')
    await expect.poll(() => heard.length, { timeout: 10_000 }).toBe(1)
    expect(await heard[0]).toBe('question')
    await expect.poll(() => clock.pending, { timeout: 10_000 }).toBe(2)
    for (let i = 0; i < 119; i++) {
      clock.advance(500)
      await turn()
    }
    expect(told.ends).toEqual([])
    // Then the guest is given some time to see that it is over.
    await expect
      .poll(
        () => {
          clock.advance(1_000)
          return told.ends.length
        },
        { timeout: 10_000, interval: 5 },
      )
      .toBe(1)
    expect(await over()).toMatchObject({ outcome: 'ok', sent: 8 })
  })
})

describe('how many at once', () => {
  it('more than max wait, unread', async () => {
    await guest(echo)
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { max: 1 })
    const first = await dialUnix()
    const second = await dialUnix()
    second.end('second')
    first.write('first')
    expect(String((await once(first, 'data'))[0])).toBe('first')
    for (let i = 0; i < 20; i++) await turn()
    expect([told.connections.length, forwarder.connections]).toEqual([1, 1])
    first.end()
    expect(await all(second)).toBe('second')
    expect(told.connections.map(({ id }) => id)).toEqual([1, 2])
  })

  it('what waits beyond its limit is refused', async () => {
    const { told } = await forwarding(`unix:${dir}/near`, () => new Promise<Duplex>(() => {}), { max: 1, timeoutMs: 600_000 })
    const sockets = await Promise.all(Array.from({ length: 130 }, () => dialUnix()))
    await expect.poll(() => told.refusals, { timeout: 10_000 }).toEqual(['too-many'])
    const ended = () => sockets.filter((socket) => socket.readableEnded).length
    await expect.poll(ended, { timeout: 10_000 }).toBe(1)
  })
})

describe('its end', () => {
  it('close() cuts what is open, and says so', async () => {
    await guest(echo)
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`)
    const socket = await dialUnix()
    socket.write('x')
    await once(socket, 'data')
    const closed = vi.fn()
    forwarder.on('close', closed)
    const closing = forwarder.close()
    expect(forwarder.close()).toBe(closing)
    await closing
    expect(existsSync(join(dir, 'near'))).toBe(false)
    expect(closed).toHaveBeenCalledTimes(1)
    expect(told.ends).toMatchObject([{ outcome: 'indeterminate', sent: 1, received: 1, error: { code: 'ABORTED' } }])
    expect(told.ends[0]).not.toHaveProperty('side')
    expect(await all(socket)).toBe('')
  })

  it('the grace lets it end, and listens no more', async () => {
    await guest(echo)
    const clock = new ManualClock()
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { clock, graceMs: 60_000 })
    const socket = await dialUnix()
    socket.write('x')
    await once(socket, 'data')
    const closing = forwarder.close()
    await expect.poll(() => existsSync(join(dir, 'near')), { timeout: 10_000 }).toBe(false)
    socket.end('the end')
    expect(await all(socket)).toBe('the end')
    await closing
    expect(told.ends).toMatchObject([{ outcome: 'ok', sent: 8, received: 8 }])
    expect(clock.pending).toBe(0)
  })

  it.each([
    ['when it is over', (clock: ManualClock) => clock.advance(60_000)],
    ['when the caller cannot wait for it', (_clock: ManualClock, forwarder: Forwarder) => forwarder.closeAllConnections()],
  ])('the grace ends %s', async (_name, end) => {
    await guest(echo)
    const clock = new ManualClock()
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { clock, graceMs: 60_000 })
    const socket = await dialUnix()
    socket.write('x')
    await once(socket, 'data')
    const closing = forwarder.close()
    await expect.poll(() => clock.pending, { timeout: 10_000 }).toBe(1)
    expect(told.ends).toEqual([])
    end(clock, forwarder)
    await closing
    expect(told.ends).toMatchObject([{ outcome: 'indeterminate', error: { code: 'ABORTED' } }])
  })

  it('closeAllConnections() leaves it listening', async () => {
    await guest(echo)
    const { forwarder, ended: over } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`)
    const socket = await dialUnix()
    socket.write('x')
    await once(socket, 'data')
    forwarder.closeAllConnections()
    expect(await over()).toMatchObject({ outcome: 'indeterminate', error: { code: 'ABORTED' } })
    const next = await dialUnix()
    next.end('next')
    expect(await all(next)).toBe('next')
  })

  it('the signal closes it, with its reason', async () => {
    await guest(echo)
    const stop = new AbortController()
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`, { signal: stop.signal })
    const socket = await dialUnix()
    socket.write('x')
    await once(socket, 'data')
    const reason = new Error('enough')
    stop.abort(reason)
    await once(forwarder, 'close')
    expect(told.ends).toMatchObject([{ outcome: 'indeterminate', error: { code: 'ABORTED' } }])
    expect(told.ends[0]?.error?.cause).toBe(reason)
  })

  it('connections that wait are closed with it, without an event', async () => {
    const { forwarder, told } = await forwarding(`unix:${dir}/near`, () => new Promise<Duplex>(() => {}), { max: 1 })
    await dialUnix()
    const second = await dialUnix()
    await expect.poll(() => told.connections.length, { timeout: 10_000 }).toBe(1)
    await forwarder.close()
    expect(await all(second)).toBe('')
    expect(told).toMatchObject({ connections: [{ id: 1 }], refusals: [] })
  })

  it('a signal that has aborted already', async () => {
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    await expect(forward(`unix:${dir}/near`, 'tcp:1', { signal })).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    await expect(forward('tcp:any', 'tcp:1', { signal })).rejects.toMatchObject({
      name: 'TcpError',
      code: 'ABORTED',
      cause: reason,
    })
  })

  it('a signal that aborts while it begins to listen', async () => {
    const stop = new AbortController()
    const beginning = forward(`unix:${dir}/near`, 'tcp:1', { signal: stop.signal })
    stop.abort(new Error('enough'))
    await expect(beginning).rejects.toMatchObject({ code: 'ABORTED' })
  })

  it('a listener that throws does not leave a connection open', async () => {
    await guest(echo)
    const { forwarder, ended: over } = await forwarding(`unix:${dir}/near`, `unix:${dir}/guest`)
    const uncaught = new Promise((resolve) => process.once('uncaughtException', resolve))
    const others = process.listeners('uncaughtException').slice(0, -1)
    for (const other of others) process.off('uncaughtException', other)
    forwarder.prependOnceListener('connection', () => {
      throw new Error('mine')
    })
    const socket = await dialUnix()
    socket.end('hello')
    expect(await all(socket)).toBe('hello')
    await over()
    expect(await uncaught).toMatchObject({ message: 'mine' })
    for (const other of others) process.on('uncaughtException', other)
  })
})

describe('what it cannot do', () => {
  it('listen where another one does', async () => {
    await guest(echo)
    await expect(forward(`unix:${dir}/guest`, 'tcp:1')).rejects.toMatchObject({ name: 'VsockError', code: 'EADDRINUSE' })
    const { port } = await tcpServer(echo)
    await expect(forward({ port }, 'tcp:1')).rejects.toMatchObject({
      name: 'TcpError',
      code: 'EADDRINUSE',
      op: 'listen',
      subject: `tcp://127.0.0.1:${port}`,
    })
  })

  it.each<[string, EndpointInit, ForwardTarget, object, string]>([
    ['asVmm', 'tcp:any', 'tcp:1', { asVmm: true }, 'asVmm: must be false for a tcp address, got true'],
    ['profile', 'unix:/x', 'tcp:1', { profile: 'firecracker' }, 'profile: must be left out without asVmm, got "firecracker"'],
    ['max', 'unix:/x', 'tcp:1', { max: 0 }, 'max: must be an integer of at least 1, got 0'],
    ['graceMs', 'unix:/x', 'tcp:1', { graceMs: -1 }, 'graceMs: must be a number of milliseconds above 0, got -1'],
    ['timeoutMs', 'unix:/x', 'tcp:1', { timeoutMs: 0 }, 'timeoutMs: must be a number of milliseconds above 0, got 0'],
    ['retry', 'unix:/x', 'tcp:1', { retry: 5 }, 'retry: must be true, false or an object, got 5'],
    ['signal', 'unix:/x', 'tcp:1', { signal: 1 }, 'signal: must be an AbortSignal, got 1'],
    ['clock', 'unix:/x', 'tcp:1', { clock: 1 }, 'clock: must be an object with now and setTimer, got 1'],
    ['options', 'unix:/x', 'tcp:1', 1 as never, 'options: must be an object, got 1'],
    ['to', 'unix:/x', 'tcp:any', {}, 'to: must be one port, not any, got "tcp:any"'],
    ['to', 'unix:/x', 'vsock://any:1', {}, 'address: must be one CID and one port, not any'],
  ])('take a wrong %s', async (_name, from, to, options, message) => {
    await expect(forward(from, to, options)).rejects.toThrow(message)
  })
})
