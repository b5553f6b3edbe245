import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors, standInForVsock } from '../../testing/addon.js'
import { textsOf } from '../../testing/seqpacket.js'
import { listen } from '../listen.js'
import * as loader from '../native/loader.js'
import { listenSeqpacket } from '../seqpacket/listen.js'
import { notifySystemd, parseNotifySocket } from './notify.js'

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
let dir: string
const children: { child: ChildProcess; closed: Promise<unknown> }[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-notify-'))
})
afterEach(async () => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  // The next test counts descriptors, and this process has one for each of these as long as it runs.
  for (const { child, closed } of children.splice(0)) {
    child.kill('SIGKILL')
    child.stdout?.destroy()
    await closed
  }
  rmSync(dir, { recursive: true, force: true })
})

/** A service manager's socket. What Node cannot open, Python can. */
async function manager(address: string): Promise<{ next(): Promise<string> }> {
  const program = `
import os, socket, sys
name = ${JSON.stringify(address)}
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
if name.startswith('/'):
    os.chdir(os.path.dirname(name))
    s.bind(os.path.basename(name))
else:
    s.bind('\\0' + name[1:])
print('ready', flush=True)
while True:
    print(repr(s.recv(4096)), flush=True)
`
  const child = spawn('python3', ['-c', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push({ child, closed: once(child, 'close') })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => String((await lines.next()).value)
  expect(await next()).toBe('ready')
  return { next }
}

const hasPython = await (async () => {
  const child = spawn('python3', ['--version'], { stdio: 'ignore' })
  return once(child, 'exit').then(
    ([code]) => code === 0,
    () => false,
  )
})()
if (!hasPython) console.warn('Tests of NOTIFY_SOCKET with a receiver are left out: there is no python3.')

describe('NOTIFY_SOCKET', () => {
  it.each([
    ['/run/systemd/notify', { kind: 'path', path: '/run/systemd/notify' }],
    ['@/org/freedesktop/notify', { kind: 'abstract', name: '/org/freedesktop/notify' }],
    ['vsock:2:1234', { kind: 'vsock', type: 'stream', address: { transport: 'vsock', cid: 2, port: 1234 } }],
    ['vsock-stream:2:1', { kind: 'vsock', type: 'stream', address: { transport: 'vsock', cid: 2, port: 1 } }],
    ['vsock-seqpacket:2:1', { kind: 'vsock', type: 'seqpacket', address: { transport: 'vsock', cid: 2, port: 1 } }],
  ])('may be %s', (value, target) => {
    expect(parseNotifySocket(value)).toEqual(target)
  })

  it.each([
    ['', 'it is empty'],
    ['@', 'its form is unknown'],
    ['run/notify', 'its form is unknown'],
    ['vsock:2', 'its form is unknown'],
    ['vsock:2:-1', 'its form is unknown'],
    ['vsock:4294967295:1', 'its CID and port must be below 4294967295'],
    ['vsock:2:4294967295', 'its CID and port must be below 4294967295'],
    ['vsock-dgram:2:1', 'vsock-dgram is not supported'],
  ])('may not be %j', async (socket, what) => {
    await expect(notifySystemd('READY=1', { socket })).rejects.toMatchObject({
      name: 'VsockError',
      code: 'EINVAL',
      op: 'notify',
      retryable: false,
      message: `notify NOTIFY_SOCKET ${JSON.stringify(socket)}: ${what}. It is a path, @<name>, vsock:<cid>:<port>, vsock-stream:<cid>:<port> or vsock-seqpacket:<cid>:<port>.`,
    })
  })

  it('is that of the process, and need not be', async () => {
    expect(await notifySystemd('READY=1')).toBe(false)
    vi.stubEnv('NOTIFY_SOCKET', '')
    await expect(notifySystemd('READY=1')).rejects.toMatchObject({ code: 'EINVAL' })
    await expect(notifySystemd(1 as never)).rejects.toThrow('state: must be a string, got 1')
  })

  it('needs the addon', async () => {
    vi.mocked(loader.loadBinding).mockImplementation(() => {
      throw new loader.AddonError('@upcall/vsock', 'it is not here', 'Get it.', [])
    })
    await expect(notifySystemd('READY=1', { socket: join(dir, 'n') })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: `notify NOTIFY_SOCKET "${dir}/n": a datagram needs the addon: it is not here. Get it.`,
    })
  })
})

describe.runIf(addon !== undefined)('with the addon', () => {
  beforeEach(() => void vi.mocked(loader.loadBinding).mockReturnValue(addon!))

  it.runIf(hasPython).each(['a path', 'a long path', 'an abstract name'])('sends a datagram to %s', async (kind) => {
    const deep = join(dir, 'd'.repeat(200))
    mkdirSync(deep)
    const socket = {
      'a path': join(dir, 'notify'),
      'a long path': join(deep, 'notify'),
      'an abstract name': `@upcall-notify-${process.pid}`,
    }[kind]!
    const { next } = await manager(socket)
    const before = openDescriptors()
    expect(await notifySystemd('READY=1\nSTATUS=listening', { socket })).toBe(true)
    expect(openDescriptors()).toBe(before)
    expect(await next()).toBe(String.raw`b'READY=1\nSTATUS=listening'`)
    await notifySystemd('STOPPING=1', { socket })
    expect(await next()).toBe("b'STOPPING=1'")
  })

  it('says what is wrong at the other end', async () => {
    const tell = (socket: string) => notifySystemd('READY=1', { socket }).catch((error: Error) => error)
    expect(await tell(join(dir, 'n'))).toMatchObject({
      code: 'ECONNREFUSED',
      message: `notify NOTIFY_SOCKET "${dir}/n": there is no socket (ENOENT). Look at the unit: NotifyAccess= and Type=notify.`,
    })
    writeFileSync(join(dir, 'f'), '')
    expect(await tell(join(dir, 'f'))).toMatchObject({ code: 'ECONNREFUSED', what: 'there is no listener (ECONNREFUSED)' })
    expect(await tell(`@${'n'.repeat(200)}`)).toMatchObject({ op: 'notify' })
    await using stream = await listen(`unix:${dir}/s`)
    expect(await tell(join(dir, 's'))).toMatchObject({ code: 'EPROTOTYPE' })
    expect(stream.connections.size).toBe(0)
  })

  it.runIf(hasPython)('does not wait for a manager that does not read', async () => {
    const socket = join(dir, 'notify')
    await manager(socket)
    children[0]!.child.kill('SIGSTOP')
    const failed = await (async () => {
      for (let i = 0; i < 100_000; i++) await notifySystemd('WATCHDOG=1', { socket })
      return undefined
    })().catch((error: unknown) => error)
    expect(failed).toMatchObject({ code: 'EAGAIN', retryable: true, what: "the listener's queue is full (EAGAIN)" })
    children[0]!.child.kill('SIGKILL')
  })

  it('makes a connection over AF_VSOCK', async () => {
    vi.mocked(loader.loadBinding).mockReturnValue(standInForVsock(addon!).binding)
    await using server = await listen('vsock://any:4711')
    const received = new Promise<string>((resolve) => server.on('connection', (socket) => resolve(text(socket))))
    expect(await notifySystemd('READY=1', { socket: 'vsock:2:4711' })).toBe(true)
    expect(await received).toBe('READY=1')
    await expect(notifySystemd('READY=1', { socket: 'vsock-stream:2:4712' })).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      op: 'notify',
      next: 'Look at the service manager outside of this guest.',
    })
    await vi.waitFor(() => expect(server.connections.size).toBe(0))
  })
  it('sends one message over AF_VSOCK', async () => {
    vi.mocked(loader.loadBinding).mockReturnValue(standInForVsock(addon!).binding)
    await using server = await listenSeqpacket('vsock+seq://any:4713')
    const received = new Promise<string[]>((resolve) => server.on('connection', (socket) => resolve(textsOf(socket))))
    const before = openDescriptors()
    expect(await notifySystemd('READY=1\nSTATUS=listening', { socket: 'vsock-seqpacket:2:4713' })).toBe(true)
    expect(await received).toEqual(['READY=1\nSTATUS=listening'])
    await expect(notifySystemd('READY=1', { socket: 'vsock-seqpacket:2:4714' })).rejects.toMatchObject({
      code: 'ECONNREFUSED',
      op: 'notify',
      next: 'Look at the service manager outside of this guest.',
    })
    server.closeAllConnections()
    await vi.waitFor(() => expect(openDescriptors()).toBe(before))
  })
})
