import { execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { createServer, connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../../testing/addon.js'
import { FiredClock } from '../../testing/fired-clock.js'
import { Guest, makeFifo, openFifo, socketPair } from '../../testing/pass.js'
import { type HybridServer, type ListenHybridOptions, listenHybrid } from '../hybrid.js'
import * as loader from '../native/loader.js'
import { passDescriptor } from './pass.js'

// The ends of each kind of descriptor, with and without half-close, and with `keep`.

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
  await until(() => openDescriptors() <= before)
  rmSync(dir, { recursive: true, force: true })
})

async function until(holds: () => boolean): Promise<void> {
  await expect.poll(holds, { timeout: 10_000, interval: 2 }).toBe(true)
}

const route: ListenHybridOptions['route'] = () =>
  new Promise<Duplex>((resolve) => {
    const socket = netConnect({ path: join(dir, 'guest'), allowHalfOpen: true })
    socket.once('connect', () => resolve(socket))
  })

async function serve(options: Partial<ListenHybridOptions> = {}): Promise<HybridServer> {
  const server = await listenHybrid({ path, route, ...options })
  closers.push(() => server.close())
  return server
}

/** Passes a descriptor and closes this process's own. */
async function pass(fd: number, keep = false) {
  await passDescriptor(address, fd, { keep })
  closeSync(fd)
  const inside = await guest.accept()
  return { inside, heard: listenTo(inside) }
}

function listenTo(socket: Duplex) {
  const heard = { text: '', ended: false }
  socket
    .on('data', (chunk) => (heard.text += chunk.toString('latin1')))
    .on('end', () => (heard.ended = true))
    .on('error', () => {})
  return heard
}

/** Reads what is there of a descriptor that does not block. undefined: nothing yet. '': the end. */
function readNow(fd: number): string | undefined {
  const buffer = Buffer.alloc(65_536)
  try {
    return buffer.toString('latin1', 0, readSync(fd, buffer))
  } catch {
    return undefined
  }
}

/** One kind of descriptor for bytes to the guest. */
interface Giver {
  readonly fd: number
  say(text: string): void
  end(): void
}

const givers: Record<string, () => Promise<Giver>> = {
  async 'a FIFO'() {
    const fifo = makeFifo(dir, 'fifo')
    const fd = openFifo(fifo, 'read')
    const writer = openFifo(fifo, 'write')
    return { fd, say: (text) => void writeSync(writer, text), end: () => closeSync(writer) }
  },
  async 'a Unix socket'() {
    const [fd, far] = socketPair(addon!)
    closers.push(() => far.destroy())
    return { fd, say: (text) => void far.write(text), end: () => void far.end() }
  },
  async 'a TCP socket'() {
    const { fd, far } = await tcpPair()
    return { fd, say: (text) => void far.write(text), end: () => void far.end() }
  },
}

/** A connected TCP socket as a number, and its peer. */
async function tcpPair() {
  const server = createServer({ allowHalfOpen: true })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const accepted = new Promise<import('node:net').Socket>((resolve) => server.once('connection', resolve))
  const near = netConnect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const far = await accepted
  server.close()
  far.on('error', () => {})
  closers.push(() => far.destroy())
  const descriptor = addon!.duplicate((near as unknown as { _handle: { fd: number } })._handle.fd)
  near.destroy()
  return { fd: addon!.release(descriptor), far }
}

describe.skipIf(!addon)('bytes to the guest', () => {
  for (const [name, open] of Object.entries(givers)) {
    for (const halfClose of [true, false]) {
      it(`from ${name}, to its end, ${halfClose ? 'with' : 'without'} half-close`, async () => {
        const server = await serve({ halfClose })
        const giver = await open()
        const { inside, heard } = await pass(giver.fd)
        const text = 'g'.repeat(50_000)
        giver.say(text)
        await until(() => heard.text.length === text.length)
        giver.say('last')
        giver.end()
        await until(() => heard.ended)
        expect(heard.text).toBe(`${text}last`)
        inside.end()
        await until(() => server.size === 0)
      })
    }

    it(`from ${name}, to a guest that goes away`, async () => {
      const server = await serve()
      const giver = await open()
      const { inside } = await pass(giver.fd)
      inside.destroy()
      await until(() => server.size === 0)
      giver.end()
    })
  }

  it('from a file and from /dev/null ends where they end', async () => {
    const server = await serve()
    writeFileSync(join(dir, 'file'), 'f'.repeat(200_000))
    const file = await pass(openSync(join(dir, 'file'), 'r'))
    await until(() => file.heard.ended)
    expect(file.heard.text.length).toBe(200_000)
    const nothing = await pass(openSync('/dev/null', 'r+'))
    await until(() => nothing.heard.ended)
    expect(nothing.heard.text).toBe('')
    for (const { inside } of [file, nothing]) inside.end()
    await until(() => server.size === 0)
  })
})

describe.skipIf(!addon)('bytes from the guest', () => {
  it('to a FIFO whose reader sees the end when the guest ends', async () => {
    const server = await serve()
    const fifo = makeFifo(dir, 'fifo')
    const reader = openFifo(fifo, 'read')
    closers.push(() => closeSync(reader))
    const { inside } = await pass(openFifo(fifo, 'write'))
    const text = 'b'.repeat(300_000)
    inside.end(text)
    let got = ''
    await until(() => {
      const more = readNow(reader)
      got += more ?? ''
      return more === ''
    })
    expect(got).toBe(text)
    await until(() => server.size === 0)
  })

  it('to a FIFO without a reader break the connection', async () => {
    const server = await serve()
    const fifo = makeFifo(dir, 'fifo')
    const reader = openFifo(fifo, 'read')
    const { inside, heard } = await pass(openFifo(fifo, 'write'))
    inside.write('first')
    await until(() => readNow(reader) === 'first')
    closeSync(reader)
    inside.write('second')
    await until(() => heard.ended && server.size === 0)
  })

  it('to a socket go on after the socket has ended its own direction', async () => {
    const server = await serve()
    const [fd, far] = socketPair(addon!)
    const outside = listenTo(far)
    const { inside, heard } = await pass(fd)
    far.end('question')
    await until(() => heard.ended)
    inside.end('answer')
    await until(() => outside.ended && server.size === 0)
    expect([heard.text, outside.text]).toEqual(['question', 'answer'])
  })

  it('to a socket stop at its end without half-close, as with Dragonball', async () => {
    const server = await serve({ profile: 'dragonball' })
    const [fd, far] = socketPair(addon!)
    const { heard } = await pass(fd)
    far.end('question')
    await until(() => heard.ended && server.size === 0)
    expect(heard.text).toBe('question')
    far.destroy()
  })

  it('to a file stay behind what it has', async () => {
    const server = await serve()
    writeFileSync(join(dir, 'log'), 'old ')
    const { inside } = await pass(openSync(join(dir, 'log'), 'a'))
    inside.end('new')
    await until(() => server.size === 0)
    expect(readFileSync(join(dir, 'log'), 'latin1')).toBe('old new')
  })
})

describe.skipIf(!addon)('with keep', () => {
  it('a FIFO that loses its writer is read again when it has another', async () => {
    const clock = new FiredClock()
    const server = await serve({ clock })
    const fifo = makeFifo(dir, 'fifo')
    const fd = openFifo(fifo, 'read')
    const first = openFifo(fifo, 'write')
    const { heard, inside } = await pass(fd, true)
    writeSync(first, 'one ')
    await until(() => heard.text === 'one ')
    closeSync(first)
    await until(() => clock.pending > 0)
    const second = openFifo(fifo, 'write')
    closers.push(() => closeSync(second))
    writeSync(second, 'two')
    expect(heard).toEqual({ text: 'one ', ended: false })
    clock.fire()
    await until(() => heard.text === 'one two')
    inside.destroy()
    await until(() => server.size === 0)
  })

  it('a file at its end is looked at again, and when the guest sends', async () => {
    const clock = new FiredClock()
    const server = await serve({ clock })
    const file = join(dir, 'file')
    writeFileSync(file, '')
    const appender = openSync(file, 'a')
    closers.push(() => closeSync(appender))
    const { heard, inside } = await pass(openSync(file, 'r+'), true)
    await until(() => clock.pending > 0)
    writeSync(appender, 'news')
    inside.write('xxxx')
    // The guest's bytes and the reading share the file's offset.
    await until(() => readFileSync(file, 'latin1').length >= 4)
    writeSync(appender, ' more')
    await until(() => {
      clock.fire()
      return heard.text.endsWith(' more')
    })
    inside.destroy()
    await until(() => server.size === 0)
  })

  it('a FIFO that loses its reader gets what the guest sent when it has another', async () => {
    const clock = new FiredClock()
    const server = await serve({ clock })
    const fifo = makeFifo(dir, 'fifo')
    const first = openFifo(fifo, 'read')
    const { inside } = await pass(openFifo(fifo, 'write'), true)
    inside.write('one')
    await until(() => readNow(first) === 'one')
    closeSync(first)
    inside.write('two')
    await until(() => clock.pending > 0)
    const second = openFifo(fifo, 'read')
    closers.push(() => closeSync(second))
    clock.fire()
    await until(() => readNow(second) === 'two')
    inside.end('three')
    await until(() => readNow(second) === 'three')
    await until(() => readNow(second) === '' && server.size === 0)
  })

  it('ends with the server', async () => {
    const server = await serve()
    const fifo = makeFifo(dir, 'fifo')
    const { heard } = await pass(openFifo(fifo, 'read'), true)
    expect(server.size).toBe(1)
    await server.close()
    await until(() => heard.ended)
    expect(server.size).toBe(0)
  })
})

const python = (() => {
  try {
    execFileSync('python3', ['-c', 'import pty, socket; socket.send_fds'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

describe.skipIf(!addon || !python)('a terminal (needs python3 to open one)', () => {
  /** A terminal, its other end in a program that says what it hears and types what it is told. */
  async function terminal() {
    const program = `
import os, pty, sys, threading, tty
master, slave = pty.openpty()
tty.setraw(slave)
print(os.ttyname(slave), flush=True)
def hear():
    while True:
        try: data = os.read(master, 65536)
        except OSError: break
        if not data: break
        sys.stdout.write(data.decode('latin1')); sys.stdout.flush()
threading.Thread(target=hear, daemon=True).start()
for line in sys.stdin:
    if line == 'close\\n': os.close(slave); os.close(master); os._exit(0)
    os.write(master, line.encode())
`
    const child = spawn('python3', ['-c', program], { stdio: ['pipe', 'pipe', 'inherit'] })
    closers.push(async () => {
      const exited = new Promise((resolve) => child.once('close', resolve))
      if (child.exitCode === null && !child.killed) child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await exited
    })
    const said = listenTo(child.stdout as unknown as Duplex)
    await until(() => said.text.includes('\n'))
    const name = said.text.trim()
    said.text = ''
    return { fd: openSync(name, 'r+'), said, type: (text: string) => child.stdin.write(text) }
  }

  it('carries what is typed and what the guest prints, and its other holders go on blocking', async () => {
    const server = await serve()
    const { fd, said, type } = await terminal()
    const kept = addon!.duplicate(fd)
    const { inside, heard } = await pass(fd)
    type('ls\n')
    await until(() => heard.text === 'ls\n')
    inside.write('file1\n')
    await until(() => said.text === 'file1\n')
    expect(addon!.describe(kept).flags & 0o4000).toBe(0)
    addon!.close(kept)
    inside.end()
    type('close\n')
    await until(() => heard.ended && server.size === 0)
  })
})
