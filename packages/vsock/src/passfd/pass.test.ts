import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../../testing/addon.js'
import { FiredClock } from '../../testing/fired-clock.js'
import { Guest, makeFifo, openFifo, openIn, RawDialer, socketPair } from '../../testing/pass.js'
import { isVsockError } from '../errors.js'
import { type HybridServer, type ListenHybridOptions, listenHybrid } from '../hybrid.js'
import type { Refusal } from '../hybrid-handshake.js'
import * as loader from '../native/loader.js'
import { passDescriptor } from './pass.js'

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
let dir: string
let path: string
let address: string
let guest: Guest
let before: number
const closers: (() => unknown)[] = []

beforeEach(async () => {
  if (addon) vi.mocked(loader.loadBinding).mockReturnValue(addon)
  dir = mkdtempSync(join(tmpdir(), 'pass-'))
  path = join(dir, 'vm.sock')
  address = `hvsock://${path}:52`
  before = openDescriptors()
  guest = await Guest.listen(join(dir, 'guest'))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  await guest.close()
  // Nothing that came is left open, whatever became of it.
  await until(() => openDescriptors() <= before)
  rmSync(dir, { recursive: true, force: true })
  vi.mocked(loader.loadBinding).mockReset()
})

async function until(holds: () => boolean): Promise<void> {
  await expect.poll(holds, { timeout: 10_000, interval: 2 }).toBe(true)
}

/** The guest listens on port 52 and on nothing else. */
const toGuest: ListenHybridOptions['route'] = (port) =>
  port === 52
    ? new Promise<Duplex>((resolve) => {
        const socket = netConnect({ path: join(dir, 'guest'), allowHalfOpen: true })
        socket.once('connect', () => resolve(socket))
      })
    : undefined

async function serve(options: Partial<ListenHybridOptions> = {}): Promise<HybridServer & { refusals: Refusal[] }> {
  const server = await listenHybrid({ path, route: toGuest, ...options })
  closers.push(() => server.close())
  const refusals: Refusal[] = []
  server.on('refused', (refusal) => refusals.push(refusal))
  return Object.assign(server, { refusals })
}

function keepOpen(fd: number): number {
  closers.push(() => closeSync(fd))
  return fd
}

/** What a socket hears, and how it ended. */
function listenTo(socket: Duplex) {
  const heard = { text: '', ended: false, closed: false, error: undefined as Error | undefined }
  socket
    .on('data', (chunk) => (heard.text += chunk.toString('latin1')))
    .on('end', () => (heard.ended = true))
    .on('close', () => (heard.closed = true))
    .on('error', (error) => (heard.error = error))
  return heard
}

describe.skipIf(!addon)('passDescriptor and listenHybrid', () => {
  it('carries bytes both ways between a socket and the guest, and the dialer has no part in it', async () => {
    const server = await serve()
    const infos: unknown[] = []
    server.on('connection', (info) => infos.push(info))
    const [fd, far] = socketPair(addon!)
    const result = await passDescriptor(address, fd)
    expect(result).toEqual({ hostPort: 1073741824 })
    expect(infos).toEqual([{ port: 52, hostPort: 1073741824, passed: true }])
    closeSync(fd)
    const inside = await guest.accept()
    const [out, into] = [listenTo(far), listenTo(inside)]
    far.write('to the guest')
    inside.write('to the host')
    await until(() => into.text === 'to the guest' && out.text === 'to the host')
    far.end()
    await until(() => into.ended)
    inside.end('last words')
    await until(() => out.closed && into.closed)
    expect(out.text).toBe('to the hostlast words')
    await until(() => server.size === 0)
    expect(server.refusals).toEqual([])
  })

  it("passes fifty containers' streams, and closes its own descriptors of them", async () => {
    const server = await serve()
    const names = Array.from({ length: 50 }, (_, i) => i)
    // All of them first: a program runs for each, and no deadline is to run meanwhile.
    const fifos = names.map((i) => [makeFifo(dir, `in${i}`), makeFifo(dir, `out${i}`)] as const)
    const streams = await Promise.all(
      fifos.map(async ([stdin, stdout], i) => {
        // Both ends of each FIFO: what is passed, and the container's.
        const reader = openFifo(stdin, 'read')
        const writer = keepOpen(openFifo(stdin, 'write'))
        const outReader = keepOpen(openFifo(stdout, 'read'))
        const outWriter = openFifo(stdout, 'write')
        const [a, b] = await Promise.all([passDescriptor(address, reader), passDescriptor(address, outWriter)])
        closeSync(reader)
        closeSync(outWriter)
        return { i, writer, outReader, ports: [a.hostPort, b.hostPort] }
      }),
    )
    expect(new Set(streams.flatMap(({ ports }) => ports)).size).toBe(100)
    await until(() => server.size === 100)
    const inside = await Promise.all(Array.from({ length: 100 }, () => guest.accept()))
    const heard = inside.map(listenTo)
    for (const { i, writer } of streams) writeSync(writer, `hello ${i}`)
    await until(() => heard.filter(({ text }) => text !== '').length === 50)
    expect(
      heard
        .map(({ text }) => text)
        .filter(Boolean)
        .sort(),
    ).toEqual(names.map((i) => `hello ${i}`).sort())
    // The guest's side of the 50 that only take.
    for (const [n, socket] of inside.entries()) if (heard[n]!.text === '') socket.end(`out ${n}`)
    const said = new Set<string>()
    const buffer = Buffer.alloc(64)
    for (const { outReader } of streams) {
      let count = 0
      await until(() => {
        try {
          count = readSync(outReader, buffer)
        } catch {
          return false
        }
        return count > 0
      })
      said.add(buffer.toString('latin1', 0, count))
    }
    expect(said.size).toBe(50)
  })

  it('answers with the port that the stream of the route has', async () => {
    await serve({
      route: async (port, context) => Object.assign((await toGuest(port, context)) as Duplex, { hostPort: 4_000_000_001 }),
    })
    const [fd, far] = socketPair(addon!)
    expect(await passDescriptor(address, fd)).toEqual({ hostPort: 4_000_000_001 })
    closeSync(fd)
    far.destroy()
  })

  it('reads nothing of a descriptor whose guest refuses', async () => {
    const server = await serve()
    const file = join(dir, 'file')
    writeFileSync(file, 'content')
    const fd = keepOpen(openSync(file, 'r'))
    const error = await failure(passDescriptor(`hvsock://${path}:53`, fd))
    expect(error).toMatchObject({ code: 'ECONNREFUSED', op: 'pass', retryable: true })
    expect(error.message).toMatch(/^pass hvsock:.*:53: the VMM closed the connection instead of answering: .* port 53 /)
    expect(readFileSync(fd, 'utf8')).toBe('content')
    expect(server.refusals).toMatchObject([{ port: 53, reason: 'no-route' }])
  })

  it('reads a file from its offset, and the guest sees its end', async () => {
    await serve()
    const file = join(dir, 'file')
    writeFileSync(file, 'skipped, read')
    const fd = keepOpen(openSync(file, 'r'))
    readSync(fd, Buffer.alloc(9))
    await passDescriptor(address, fd)
    const inside = await guest.accept()
    const heard = listenTo(inside)
    await until(() => heard.ended)
    expect(heard.text).toBe('read')
    inside.end()
    await until(() => heard.closed)
  })

  it('writes what the guest sends to a file that is only written, to its last byte', async () => {
    const server = await serve()
    const file = join(dir, 'file')
    const fd = openSync(file, 'w')
    await passDescriptor(address, fd)
    closeSync(fd)
    const inside = await guest.accept()
    const text = 'x'.repeat(300_000)
    inside.end(text)
    await until(() => server.size === 0)
    expect(readFileSync(file, 'latin1')).toBe(text)
  })

  it('tells a guest that sends to a descriptor that is only read', async () => {
    const server = await serve()
    const fifo = makeFifo(dir, 'fifo')
    const reader = openFifo(fifo, 'read')
    const writer = keepOpen(openFifo(fifo, 'write'))
    await passDescriptor(address, reader)
    closeSync(reader)
    const inside = await guest.accept()
    const heard = listenTo(inside)
    writeSync(writer, 'before')
    await until(() => heard.text === 'before')
    inside.write('no')
    await until(() => heard.ended && server.size === 0)
  })
})

function dial(): RawDialer {
  const dialer = new RawDialer(addon!, path)
  closers.push(() => dialer.close())
  return dialer
}

describe.skipIf(!addon)('a dialer', () => {
  let fd: number
  beforeEach(() => {
    writeFileSync(join(dir, 'passed'), '')
    fd = keepOpen(openSync(join(dir, 'passed'), 'r+'))
  })

  it.each(['passfd\n', 'PASSFD\n', 'PassFd\n'])('is answered if it says %j', async (command) => {
    const server = await serve({ profile: 'dragonball' })
    const dialer = dial().send(command).send('52 keep', fd)
    await until(() => dialer.ended)
    expect(dialer.heard).toBe('OK 1073741824\n')
    expect(server.refusals).toEqual([])
    await guest.accept()
  })

  const cases: [what: string, send: (dialer: RawDialer) => unknown, why: RegExp][] = [
    ['a message without a descriptor', (dialer) => dialer.send('52'), /0 descriptors came/],
    ['two descriptors', (dialer) => dialer.send('52', fd, fd), /2 descriptors came/],
    ['eight descriptors', (dialer) => dialer.send('52', ...Array(8).fill(fd)), /8 descriptors came/],
    ['more descriptors than there is room for', (dialer) => dialer.send('52', ...Array(16).fill(fd)), /EMSGSIZE/],
    ['no port', (dialer) => dialer.send('keep', fd), /"keep", not "<port>"/],
    ['a port that is not a u32', (dialer) => dialer.send('4294967296', fd), /"4294967296", not/],
    ['another word than keep', (dialer) => dialer.send('52 kept', fd), /"52 kept", not/],
    ['33 bytes of text', (dialer) => dialer.send('52'.padEnd(33), fd), /not "<port>"/],
    ['an end instead of a message', (dialer) => dialer.end(), /ended before it sent a descriptor/],
  ]
  it.each(cases)('is closed without text after %s', async (_what, send, why) => {
    const server = await serve()
    const dialer = dial().send('passfd\n')
    send(dialer)
    await until(() => dialer.ended)
    expect(dialer.heard).toBe('')
    expect(server.refusals).toMatchObject([
      { port: undefined, reason: 'bad-descriptor', cause: { message: expect.stringMatching(why) } },
    ])
    expect(server.size).toBe(0)
    expect(openIn(dir)).toEqual([join(dir, 'passed')])
  })

  it('is closed if it closes before the message', async () => {
    const server = await serve()
    new RawDialer(addon!, path).send('passfd\n').close()
    await until(() => server.refusals.length === 1)
    expect(server.refusals).toMatchObject([{ reason: 'bad-descriptor' }])
  })

  it('has its descriptor closed if it closes before the reply, and the guest is told', async () => {
    let aborted = false
    const server = await serve({
      route: (_port, { signal }) => {
        signal.addEventListener('abort', () => (aborted = true))
        return new Promise(() => {})
      },
    })
    const dialer = new RawDialer(addon!, path).send('passfd\n').send('52', fd)
    await until(() => server.size === 1)
    await new Promise(setImmediate)
    dialer.close()
    await until(() => server.refusals.length === 1 && aborted)
    expect(server.refusals).toMatchObject([{ port: 52, reason: 'dialer-gone' }])
    expect(openIn(dir)).toEqual([join(dir, 'passed')])
  })

  it('is waited for, and not for ever', async () => {
    const clock = new FiredClock()
    const server = await serve({ clock })
    const dialer = dial().send('passfd\n')
    await until(() => server.size === 1)
    clock.fire(2_000)
    await until(() => dialer.ended)
    expect(server.refusals).toMatchObject([{ reason: 'timeout' }])
  })

  it('reaches the guest with CONNECT, without the descriptors that it put beside it', async () => {
    await serve()
    const dialer = dial().send('CONN', fd).send('ECT 52\nhello', fd)
    const heard = listenTo(await guest.accept())
    await until(() => dialer.heard === 'OK 1073741824\n' && heard.text === 'hello')
    dialer.send(' again', fd)
    await until(() => heard.text === 'hello again')
    expect(openIn(dir)).toEqual([join(dir, 'passed')])
  })

  it('is closed by a strict server if its command comes in pieces', async () => {
    const server = await serve({ profile: 'dragonball' })
    const dialer = dial().send('pass')
    await until(() => dialer.ended)
    expect(server.refusals).toMatchObject([{ reason: 'bad-command', cause: { message: /more than one piece/ } }])
  })

  it.each(['firecracker', 'cloud-hypervisor'] as const)('is closed by %s, which has no passfd', async (profile) => {
    const server = await serve({ profile })
    const dialer = dial().send('passfd\n')
    await until(() => dialer.ended)
    expect(server.refusals).toMatchObject([{ reason: 'bad-command' }])
  })

  it('is refused in words where descriptors are switched off', async () => {
    const server = await serve({ passfd: false })
    const dialer = dial().send('passfd\n').send('52', fd)
    await until(() => dialer.ended)
    expect(server.refusals).toMatchObject([{ reason: 'no-descriptors', cause: { message: 'this server takes no descriptors' } }])
  })
})

describe('without the addon', () => {
  beforeEach(() => {
    vi.mocked(loader.loadBinding).mockReset()
  })

  it('passDescriptor says so', async () => {
    const error = await failure(passDescriptor(address, 0))
    expect(error).toMatchObject({ code: 'ENOTSUP', op: 'pass', retryable: false })
    expect(error.message).toMatch(/^pass hvsock:.*: only the native addon can send descriptors: .*switched off/)
  })

  it('listenHybrid refuses passfd in words, and serves CONNECT', async () => {
    const server = await serve()
    const say = async (text: string) => {
      const socket = netConnect({ path, allowHalfOpen: true })
      closers.push(() => socket.destroy())
      const heard = listenTo(socket)
      socket.write(text)
      await until(() => heard.closed || heard.ended || heard.text !== '')
      return heard.text
    }
    expect(await say('passfd\n')).toBe('')
    expect(server.refusals).toMatchObject([
      {
        reason: 'no-descriptors',
        cause: { message: expect.stringMatching(/^descriptors cannot be received here: .*switched off/) },
      },
    ])
    expect(await say('CONNECT 52\n')).toBe('OK 1073741824\n')
  })
})

async function failure(promise: Promise<unknown>) {
  const error = await promise.then(
    () => expect.unreachable('resolved'),
    (reason: unknown) => reason,
  )
  if (!isVsockError(error)) throw error
  return error
}
