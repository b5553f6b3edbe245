import { spawn } from 'node:child_process'
import { getEventListeners, once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { buildPrograms } from '../../../scripts/test-programs.js'
import { connect } from './connect.js'
import { createSocket } from './create-socket.js'
import { listen } from './listen.js'
import type { Retry } from './plan.js'
import type { VsockSocket } from './socket.js'

let dir: string
let path: string
const closers: (() => unknown)[] = []

// Some tests need a process of their own, which runs the sources as a program.
const folder = `node_modules/.test-library-${process.pid}`
const packageFolder = new URL('../', import.meta.url)
const library = new URL(`${folder}/index.js`, packageFolder)
beforeAll(() => buildPrograms(packageFolder, { index: 'src/index.ts' }, folder))
afterAll(() => rmSync(new URL(folder, packageFolder), { recursive: true, force: true }))

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 'vm.sock')
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  rmSync(dir, { recursive: true, force: true })
})

async function vmm(serve: (socket: Socket) => void): Promise<Server> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket.on('error', () => {}))
    serve(socket)
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise((resolve) => server.close(resolve))
  })
  return server
}

/** Answers CONNECT with these bytes, and then echoes. */
const answering = (reply: string) => (socket: Socket) => {
  socket.once('data', () => {
    socket.write(reply)
    socket.pipe(socket)
  })
}

function hvsock(options: Parameters<typeof createSocket>[1] = {}): VsockSocket {
  const socket = createSocket({ transport: 'hvsock', path, port: 52 }, options)
  closers.push(() => socket.destroy())
  return socket
}

/** The events of a socket, in order. */
function logOf(socket: VsockSocket): string[] {
  const log: string[] = []
  for (const event of ['connect', 'ready', 'end', 'finish', 'timeout'] as const) socket.on(event, () => log.push(event))
  socket.on('data', (chunk) => log.push(`data ${chunk}`))
  socket.on('error', (error: NodeJS.ErrnoException) => log.push(`error ${error.code}`))
  socket.on('close', (hadError) => log.push(`close ${hadError}`))
  return log
}

const closed = (socket: VsockSocket) => new Promise((resolve) => socket.once('close', resolve))

const turns = async (count = 20) => {
  for (let i = 0; i < count; i++) await new Promise(setImmediate)
}

const openDescriptors = () => readdirSync('/proc/self/fd').length

describe('createSocket', () => {
  it('is there at once, and tells connect after the handshake and before the first bytes', async () => {
    await vmm(answering('OK 1073741824\nbanner\n'))
    const socket = hvsock()
    expect(socket).toMatchObject({ connecting: true, pending: true, readyState: 'opening', bytesRead: 0, allowHalfOpen: false })
    const log = logOf(socket)
    await once(socket, 'data')
    expect(socket).toMatchObject({ connecting: false, pending: false, readyState: 'open', bytesRead: 7 })
    expect(log).toEqual(['connect', 'ready', 'data banner\n'])
  })

  it('keeps what is written and ended before it is connected', async () => {
    await vmm(answering('OK 1\n'))
    const socket = hvsock({ halfClose: true, allowHalfOpen: true })
    expect(socket.allowHalfOpen).toBe(true)
    const log = logOf(socket)
    const written = new Promise((resolve) => socket.write('early ', resolve))
    socket.end('and late')
    await closed(socket)
    expect(await written).toBeFalsy()
    expect(log.filter((each) => !each.startsWith('data'))).toEqual(['connect', 'ready', 'finish', 'end', 'close false'])
    expect(
      log
        .filter((each) => each.startsWith('data'))
        .join('')
        .replaceAll('data ', ''),
    ).toBe('early and late')
  })

  it('hands on an end that came with the reply', async () => {
    await vmm((socket) => socket.once('data', () => socket.end('OK 1\nbye')))
    const socket = hvsock()
    const log = logOf(socket)
    await closed(socket)
    expect(log).toEqual(['connect', 'ready', 'data bye', 'end', 'finish', 'close false'])
  })

  it('fails with the error of connect, and closes', async () => {
    const socket = hvsock()
    const log = logOf(socket)
    const written = new Promise<unknown>((resolve) => socket.write('never', resolve))
    await closed(socket)
    expect(log).toEqual(['error ECONNREFUSED', 'close true'])
    // As in net.
    expect(await written).toMatchObject({ code: 'ERR_SOCKET_CLOSED_BEFORE_CONNECTION' })
    expect(socket).toMatchObject({ connecting: false, destroyed: true })
  })

  it.each(['in the same tick', 'while it waits for the reply', 'between two attempts'])('can be destroyed %s', async (when) => {
    const clock = new ManualClock()
    let ended = 0
    if (when !== 'between two attempts')
      await vmm((socket) =>
        socket
          .resume()
          .once('end', () => socket.destroy())
          .once('close', () => ended++),
      )
    const before = openDescriptors()
    const retries: Retry[] = []
    const socket = hvsock({ clock, retry: true, onRetry: (retry) => retries.push(retry) })
    const log = logOf(socket)
    if (when === 'while it waits for the reply') await turns()
    if (when === 'between two attempts') await expect.poll(() => retries.length, { timeout: 10_000 }).toBe(1)
    socket.destroy()
    await closed(socket)
    expect(log).toEqual(['close false'])
    expect(clock.pending).toBe(0)
    await expect.poll(openDescriptors, { timeout: 10_000 }).toBeLessThanOrEqual(before)
    if (when === 'while it waits for the reply') await expect.poll(() => ended, { timeout: 10_000 }).toBe(1)
  })

  it('is destroyed by its signal while it connects and afterwards; connect() only while it connects', async () => {
    await vmm(answering('OK 1\n'))
    const first = new AbortController()
    const connecting = hvsock({ signal: first.signal })
    first.abort('early')
    await expect(once(connecting, 'connect')).rejects.toMatchObject({ code: 'ABORTED', cause: 'early' })

    const second = new AbortController()
    const open = hvsock({ signal: second.signal })
    await once(open, 'connect')
    second.abort('late')
    await expect(once(open, 'data')).rejects.toMatchObject({ code: 'ABORTED', cause: 'late' })
    await expect.poll(() => getEventListeners(second.signal, 'abort').length, { timeout: 10_000 }).toBe(0)

    const third = new AbortController()
    const socket = await connect({ transport: 'hvsock', path, port: 52 }, { signal: third.signal })
    third.abort()
    socket.write('still here')
    expect(String((await once(socket, 'data'))[0])).toBe('still here')
    socket.destroy()
  })

  it('has an idle timeout while it connects', async () => {
    await vmm((socket) => socket.resume())
    const socket = hvsock()
    const log = logOf(socket)
    socket.setTimeout(5)
    await once(socket, 'timeout')
    expect(socket.connecting).toBe(true)
    socket.destroy()
    await closed(socket)
    expect(log).toEqual(['timeout', 'close false'])
  })

  it('tells each retry before its delay', async () => {
    const clock = new ManualClock()
    const retries: Retry[] = []
    const socket = hvsock({ clock, retry: { random: () => 0.5 }, onRetry: (retry) => retries.push(retry) })
    await expect.poll(() => retries.length, { timeout: 10_000 }).toBe(1)
    expect(retries[0]).toMatchObject({ attempts: 1, error: { code: 'ECONNREFUSED', retryable: true } })
    expect(retries[0]?.delayMs).toBeGreaterThan(0)
    await vmm(answering('OK 1\n'))
    clock.advance(retries[0]!.delayMs)
    await once(socket, 'connect')
    expect(retries.length).toBe(1)
  })

  it('an exception of a listener is uncaught, as it is with net', async () => {
    await vmm(answering('OK 1\n'))
    const program = `
      const { createSocket } = await import(${JSON.stringify(library.href)})
      process.on('uncaughtException', (error, origin) => (console.log(error.message, origin), process.exit(0)))
      createSocket(${JSON.stringify(`hvsock://${path}:52`)}).on('connect', () => { throw new Error('mine') })`
    expect(await run(program)).toBe('mine uncaughtException\n')
  })

  it.each(['hvsock', 'unix'])('%s: unref() and ref() while it connects', async (transport) => {
    await vmm((socket) => socket.resume().unref())
    const held = () => process.getActiveResourcesInfo().filter((each) => /Pipe|Timeout/.test(each)).length
    const address = transport === 'hvsock' ? `hvsock://${path}:52` : `unix:${path}.none`
    const socket = createSocket(address, {
      timeoutMs: 600_000,
      retry: { minDelayMs: 60_000, maxDelayMs: 60_000, attemptTimeoutMs: 600_000 },
    })
    closers.push(() => socket.destroy())
    await turns()
    // No turn between these: the test runner has timers of its own, which come and go.
    const all = held()
    socket.unref()
    const others = held()
    socket.ref()
    // Over hvsock the socket of the attempt and the deadline; over unix the pause before the next attempt.
    expect([all - others, held() - others]).toEqual(transport === 'hvsock' ? [2, 2] : [1, 1])
  })

  it.each(['hvsock', 'unix'])('%s: ref() after unref() holds once it is connected, too', async (transport) => {
    await vmm((socket) => socket.unref().once('data', () => socket.write('OK 1\n')))
    await turns()
    const held = () => process.getActiveResourcesInfo().filter((each) => each === 'PipeWrap').length
    const before = held()
    const socket = createSocket(transport === 'hvsock' ? `hvsock://${path}:52` : `unix:${path}`)
    closers.push(() => socket.destroy())
    socket.unref().ref()
    await once(socket, 'ready')
    await turns()
    expect(held()).toBe(before + 1)
    socket.unref()
    expect(held()).toBe(before)
  })

  it('loses nothing that came with the reply, if a listener throws', async () => {
    await vmm(answering('OK 1\nhello'))
    const program = `
      const { createSocket } = await import(${JSON.stringify(library.href)})
      process.on('uncaughtException', (error) => console.log(error.message))
      createSocket(${JSON.stringify(`hvsock://${path}:52`)})
        .on('connect', () => { throw new Error('mine') })
        .once('data', (data) => (console.log(String(data)), process.exit(0)))`
    expect(await run(program)).toBe('mine\nhello\n')
  })

  it('takes a timeout of 0 for none, as net does', () => {
    const socket = hvsock({ timeout: 0 }).on('error', () => {})
    expect(socket.timeout).toBeUndefined()
    expect(() => hvsock({ timeout: -1 })).toThrow('timeout: must be a finite number of milliseconds above 0, got -1')
  })

  it('refuses bad arguments where they are written', () => {
    expect(() => createSocket('hvsock://x')).toThrow(/no port/)
    expect(() => createSocket(`unix:${path}`, { allowHalfOpen: 1 as never })).toThrow(/allowHalfOpen: must be true or false/)
    expect(() => createSocket(`unix:${path}`, { halfClose: 'no' as never })).toThrow(/halfClose: must be true or false/)
    expect(() => createSocket(`unix:${path}`, { onRetry: 1 as never })).toThrow(/onRetry: must be a function/)
    expect(() => createSocket(`unix:${path}`, { signal: 1 as never })).toThrow(/signal/)
  })
})

/** What a program prints. */
function run(program: string): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  closers.push(() => child.kill())
  return new Promise((resolve) => {
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    child.once('close', () => resolve(text))
  })
}

describe('allowHalfOpen', () => {
  it.each([false, true])('%s: what the end of the peer does to a dialled and an accepted socket', async (allowHalfOpen) => {
    const server = await listen(`unix:${path}`, { allowHalfOpen })
    closers.push(() => server.close())
    const accepted = once(server as never, 'connection') as Promise<[VsockSocket]>
    const near = createSocket(`unix:${path}`, { allowHalfOpen: true })
    const [far] = await accepted
    const log = logOf(far)
    near.end('question')
    await new Promise((resolve) => far.once('end', resolve))
    far.write('answer', () => {})
    if (allowHalfOpen) far.end()
    await closed(far)
    expect(log).toEqual(
      allowHalfOpen
        ? ['data question', 'end', 'finish', 'close false']
        : // What is written after the end of the peer is an error there, as in net.
          ['data question', 'end', 'error EPIPE', 'close true'],
    )
    near.destroy()
  })

  it('a connection that waits to be taken keeps its end for its taker', async () => {
    const server = await listen(`unix:${path}`)
    closers.push(() => server.close())
    const near = createSocket(`unix:${path}`, { allowHalfOpen: true })
    near.end()
    await expect.poll(() => server.connections.size, { timeout: 10_000 }).toBe(1)
    await turns()
    for await (const socket of server) {
      const log = logOf(socket)
      socket.write('banner')
      await closed(socket)
      expect(log).toEqual(['end', 'finish', 'close false'])
      break
    }
    expect(String((await once(near, 'data'))[0])).toBe('banner')
  })
})
