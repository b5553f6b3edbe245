import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { connect } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest'
import { start, upcall } from '../testing/harness.js'
import { parseInherited } from './streams/endpoint.js'

const program = inject('program')
const addon = fileURLToPath(new URL('../../../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))

let dir: string
const children: ChildProcess[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-systemd-'))
})
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

function launch(command: string, args: readonly string[]) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => String((await lines.next()).value)
  return { child, next, errors: text(child.stderr) }
}

const has = (command: string) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0
const hasPython = has('python3')
const hasSystemd = has('systemd-socket-activate')
if (!hasPython) console.warn('Tests of NOTIFY_SOCKET are left out: there is no python3.')
if (!hasSystemd) console.warn('Tests of socket activation are left out: there is no systemd-socket-activate (package systemd).')

async function say(address: string, words: string): Promise<string> {
  const socket = await connect(address, { allowHalfOpen: true, retry: true })
  socket.end(words)
  return text(socket)
}

describe('an address of systemd', () => {
  const environment = (more: Record<string, string> = {}) => ({
    LISTEN_PID: String(process.pid),
    LISTEN_FDS: '2',
    LISTEN_FDNAMES: 'guest:control',
    ...more,
  })

  test('is one of its sockets by name, or the only one; its variables are gone then', () => {
    const env = environment()
    expect(parseInherited('systemd:control', '<address>', env)).toEqual({ fd: 4, name: 'control' })
    expect(env).toEqual({})
    expect(parseInherited('systemd', '<address>', environment({ LISTEN_FDS: '1', LISTEN_FDNAMES: 'x' }))).toMatchObject({ fd: 3 })
    expect(parseInherited('fd:7', '<address>', {})).toEqual({ fd: 7 })
    for (const other of ['systemd.sock', 'fd:', 'fd:x', 'unix:fd:3'])
      expect(parseInherited(other, '<address>', {})).toBeUndefined()
  })

  test.each([
    ['systemd', environment(), '<address>: systemd passed more than one socket. Write one of systemd:guest, systemd:control.'],
    [
      'systemd:x',
      environment(),
      '<address>: systemd passed no socket of this name. Write one of systemd:guest, systemd:control.',
    ],
    ['systemd', {}, '<address>: systemd passed no socket. Start this command by a socket unit, or write an address.'],
    [
      'systemd',
      environment({ LISTEN_PID: '1' }),
      `<address>: systemd passed its sockets to process 1, and this is process ${process.pid}. Start upcall itself in ExecStart=, not through another program.`,
    ],
    ['systemd', environment({ LISTEN_FDS: 'x' }), '<address>: listen LISTEN_FDS: "x" is not a count of descriptors. Leave'],
  ])('%s may be refused', (address, env, message) => {
    expect(() => parseInherited(address, '<address>', env)).toThrow(message)
  })

  test('goes with no socket file, nor with a VMM', async () => {
    for (const [args, message] of [
      [['vsock', 'listen', 'fd:9', '--mode', '600'], '--mode: the socket file belongs to the program that opened the socket'],
      [['vsock', 'listen', 'fd:9', '--as-vmm'], '--as-vmm: only an hvsock:// address to listen on can use it'],
      [['serve', '--listen', 'fd:9', '--profile', 'firecracker'], '--profile: only an hvsock:// address'],
      [['vsock', 'listen', 'fd:999999'], '<address>: listen fd 999999: there is no open descriptor of this number (EBADF)'],
      [['vsock', 'forward', 'fd:999999', 'tcp:1'], '<from>: listen fd 999999: there is no open descriptor'],
      [['serve', '--listen', 'fd:999999'], '--listen: listen fd 999999: there is no open descriptor'],
    ] as const) {
      const { status, stderr } = await upcall(args)
      expect(stderr.text).toContain(message)
      expect(status).toBe(2)
    }
  })
})

test('a NOTIFY_SOCKET that is of no use is told, and the command goes on; its programs do not get it', async () => {
  const env = { NOTIFY_SOCKET: '', PATH: process.env.PATH! }
  const command = start(['vsock', 'listen', `unix:${dir}/s`, '--exec', 'sh', '-c', 'echo "[$NOTIFY_SOCKET]"'], { env })
  await command.stderr.has('systemd was not told READY=1: notify NOTIFY_SOCKET "": it is empty. ')
  expect(await say(`unix:${dir}/s`, '')).toBe('[]\n')
  expect(await command.status).toBe(0)
  await command.stderr.has('systemd was not told STOPPING=1')
  const without = start(['serve', '--listen', `unix:${dir}/g`], { env: { NOTIFY_SOCKET: `${dir}/none` } })
  await without.stderr.has('a datagram needs the addon')
  await without.stdout.has('listening')
  without.interrupt('SIGTERM')
  await without.status
})

describe.runIf(existsSync(addon))('a process', () => {
  test.runIf(hasPython).each([
    ['serve', ['serve', '--listen', 'unix:@/s'], 0],
    ['listen', ['vsock', 'listen', 'unix:@/s', '--keep', '--exec', 'cat'], 0],
    ['listen once', ['vsock', 'listen', 'unix:@/s'], 143],
    ['forward', ['vsock', 'forward', 'unix:@/s', 'tcp:9'], 0],
  ])('%s tells systemd when it is ready and when it ends', async (_, args) => {
    const receiver = `
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(${JSON.stringify(`${dir}/notify`)})
print('bound', flush=True)
while True: print(s.recv(4096), flush=True)
`
    const manager = launch('python3', ['-c', receiver])
    expect(await manager.next()).toBe('bound')
    const command = spawn(process.execPath, [program, ...args.map((arg) => arg.replace('@', dir))], {
      stdio: 'ignore',
      env: { ...process.env, UPCALL_VSOCK_ADDON: addon, NOTIFY_SOCKET: `${dir}/notify` },
    })
    children.push(command)
    const exited = once(command, 'exit')
    expect(await manager.next()).toBe(String.raw`b'READY=1\nSTATUS=listening on unix:${dir}/s'`)
    expect(existsSync(join(dir, 's'))).toBe(true)
    command.kill('SIGTERM')
    expect(await manager.next()).toBe("b'STOPPING=1'")
    await exited
  })

  test.runIf(hasSystemd).each([
    ['with the addon', addon],
    ['without the addon', 'none'],
  ])('is started by systemd-socket-activate, %s', async (_, UPCALL_VSOCK_ADDON) => {
    const path = join(dir, 'unit.sock')
    const activate = (name: string, ...args: string[]) =>
      launch('systemd-socket-activate', [
        ...['-l', path, '--fdname', name, '-E', `UPCALL_VSOCK_ADDON=${UPCALL_VSOCK_ADDON}`, process.execPath, program, ...args],
      ])
    const echo = activate('echo', 'vsock', 'listen', 'systemd:echo', '--keep', '--exec', 'sh', '-c', 'cat; echo "[$LISTEN_FDS]"')
    expect(await say(`unix:${path}`, 'one ')).toBe('one []\n')
    expect(await say(`unix:${path}`, 'two ')).toBe('two []\n')
    echo.child.kill('SIGTERM')
    await once(echo.child, 'exit')
    // The file is systemd's.
    expect(existsSync(path)).toBe(true)
    rmSync(path)

    const served = activate('guest', 'serve', '--listen', 'systemd')
    await connect(`unix:${path}`, { retry: true }).then((socket) => socket.destroy())
    expect(await served.next()).toContain(`listening on unix:${path}`)
    const asked = await upcall(['status', '--target', `unix:${path}`, '--arch', 'x86_64'])
    expect(asked.stderr.text).toBe('')
    expect(asked.status).toBe(0)
    served.child.kill('SIGTERM')
    await once(served.child, 'exit')
  })

  test.runIf(hasPython)('serves a message socket that its parent opened', async () => {
    const parent = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(${JSON.stringify(`${dir}/unit.sock`)})
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', UPCALL_VSOCK_ADDON=${JSON.stringify(addon)})
print('bound', flush=True)
os.execv(sys.argv[1], sys.argv[1:])
`
    const peer = `
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(${JSON.stringify(`${dir}/unit.sock`)})
for m in (b'one', b'two'): s.send(m)
print(s.recv(9), s.recv(9), flush=True)
`
    const listen = ['vsock', 'listen', 'systemd', '--keep', '--exec', 'cat']
    const command = launch('python3', ['-c', parent, process.execPath, program, ...listen])
    expect(await command.next()).toBe('bound')
    expect(await launch('python3', ['-c', peer]).next()).toBe("b'one' b'two'")
    command.child.kill('SIGTERM')
    await once(command.child, 'exit')
    expect(existsSync(join(dir, 'unit.sock'))).toBe(true)
  })

  test.runIf(hasPython)('forwards from an AF_VSOCK socket that its parent opened', async () => {
    // Only bound and listening: nothing is connected to AF_VSOCK here.
    const parent = `
import os, socket, sys
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
s.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', UPCALL_VSOCK_ADDON=${JSON.stringify(addon)})
print(s.getsockname()[1], flush=True)
os.execv(sys.argv[1], sys.argv[1:])
`
    const command = launch('python3', ['-c', parent, process.execPath, program, 'vsock', 'forward', 'systemd', 'tcp:9'])
    const port = await command.next()
    if (port === 'undefined') return expect(await command.errors).toMatch(/Address family|AF_VSOCK/)
    expect(await command.next()).toBe(`listening on vsock://any:${port}, to tcp://127.0.0.1:9`)
    command.child.kill('SIGTERM')
    await once(command.child, 'exit')
  })
})
