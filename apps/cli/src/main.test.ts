import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, listen, type VsockServer } from '@upcall/vsock'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'

const program = inject('program')
let dir: string
let server: VsockServer | undefined
const running = new Set<{ kill(signal: 'SIGKILL'): unknown }>()

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-main-'))
})
afterEach(async () => {
  for (const child of running) child.kill('SIGKILL')
  running.clear()
  server?.closeAllConnections()
  await server?.close()
  server = undefined
  rmSync(dir, { recursive: true })
})

interface LaunchOptions {
  stdin?: 'pipe' | number
  stdout?: 'pipe' | number
}

function launch(args: string[], { stdin = 'pipe', stdout = 'pipe' }: LaunchOptions = {}) {
  const child = spawn(process.execPath, [program, ...args], {
    stdio: [stdin, stdout, 'pipe'],
    env: { ...process.env, UPCALL_VSOCK_ADDON: 'none' },
  })
  running.add(child)
  let said = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const ended = once(child, 'close').then(([status, signal]) => {
    running.delete(child)
    return (signal ?? status) as string | number
  })
  const says = async (text: string) => {
    while (!said.includes(text))
      await Promise.race([once(child.stderr!, 'data'), ended.then(() => Promise.reject(new Error(said)))])
  }
  return { child, ended, says, stderr: () => said }
}

test('bytes of every value, 8 MiB, from a file through an echo into a pipe', async () => {
  server = await listen(`unix:${dir}/s`)
  server.on('connection', (socket) => socket.pipe(socket))
  const bytes = randomBytes(8 << 20)
  writeFileSync(join(dir, 'in'), bytes)
  const stdin = openSync(join(dir, 'in'), 'r')
  const { child, ended, stderr } = launch(['vsock', 'connect', `unix:${dir}/s`], { stdin })
  closeSync(stdin)
  const hash = createHash('sha256')
  child.stdout!.on('data', (chunk) => hash.update(chunk))
  expect([await ended, stderr()]).toEqual([0, ''])
  expect(hash.digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'))
})

test('a reader that leaves ends it as SIGPIPE would', async () => {
  server = await listen(`unix:${dir}/s`)
  server.on('connection', (socket) => {
    const more = () =>
      void (socket.destroyed || (socket.write(Buffer.alloc(65_536)) ? setImmediate(more) : socket.once('drain', more)))
    socket.on('error', () => {})
    more()
  })
  const { child, ended, stderr } = launch(['vsock', 'connect', `unix:${dir}/s`])
  await once(child.stdout!, 'data')
  child.stdout!.destroy()
  expect([await ended, stderr()]).toEqual([141, ''])
})

test.runIf(existsSync('/dev/full'))('a stdout that cannot be written is reported, and is not a success', async () => {
  server = await listen(`unix:${dir}/s`)
  server.on('connection', (socket) =>
    socket
      .resume()
      .on('error', () => {})
      .end('bytes'),
  )
  const stdout = openSync('/dev/full', 'w')
  const { ended, stderr } = launch(['vsock', 'connect', `unix:${dir}/s`], { stdout })
  closeSync(stdout)
  expect(await ended).toBe(4)
  expect(stderr()).toContain('ENOSPC')
})

test.runIf(existsSync('/dev/full'))('nor is help that is not delivered', async () => {
  const stdout = openSync('/dev/full', 'w')
  const { ended, stderr } = launch(['--help'], { stdout })
  closeSync(stdout)
  expect(await ended).toBe(4)
  expect(stderr()).toContain('ENOSPC')
})

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s while it waits for a connection removes the socket file', async (signal, status) => {
  const { child, ended, says } = launch(['vsock', 'listen', `unix:${dir}/s`])
  await says('listening')
  child.kill(signal)
  expect(await ended).toBe(status)
  expect(existsSync(join(dir, 's'))).toBe(false)
})

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 0],
] as const)('%s ends a forwarder and what goes through it', async (signal, status) => {
  server = await listen(`unix:${dir}/to`)
  server.on('connection', (socket) => socket.pipe(socket).on('error', () => {}))
  const { child, ended } = launch(['vsock', 'forward', `unix:${dir}/from`, `unix:${dir}/to`])
  await once(child.stdout!, 'data')
  const socket = await connect(`unix:${dir}/from`)
  socket.write('x')
  await once(socket, 'data')
  child.kill(signal)
  expect(await ended).toBe(status)
  expect(existsSync(join(dir, 'from'))).toBe(false)
  socket.destroy()
})

test('a second signal does not cut the orderly end short; a second Ctrl-C ends only the grace', async () => {
  server = await listen(`unix:${dir}/to`)
  server.on('connection', (socket) => socket.pipe(socket).on('error', () => {}))
  for (const second of ['SIGTERM', 'SIGINT'] as const) {
    const { child, ended } = launch(['vsock', 'forward', `unix:${dir}/from`, `unix:${dir}/to`, '--grace', '10m'])
    await once(child.stdout!, 'data')
    const socket = await connect(`unix:${dir}/from`)
    const echoed = async (text: string) => {
      socket.write(text)
      expect(String((await once(socket, 'data'))[0])).toBe(text)
    }
    await echoed('one')
    child.kill('SIGTERM')
    // It listens no more.
    while (existsSync(join(dir, 'from'))) await new Promise(setImmediate)
    if (second === 'SIGTERM') {
      child.kill(second)
      await echoed('two')
      child.kill(second)
      await echoed('three')
      socket.end()
    } else {
      // How soon one still counts as the same Ctrl-C is in interruption.test.ts.
      const again = setInterval(() => child.kill('SIGINT'), 50)
      await once(socket.resume(), 'end')
      clearInterval(again)
    }
    expect(await ended).toBe(0)
    socket.destroy()
  }
})

test('as a VMM, whose socket file stays to the end, too', async () => {
  const { child, ended, says } = launch([
    'vsock',
    'listen',
    '--as-vmm',
    `hvsock://${dir}/vm:1`,
    '--exec',
    'sh',
    '-c',
    'trap "" TERM; echo up; sleep 0.2',
  ])
  await says('listening')
  const socket = await connect(`hvsock://${dir}/vm:1`)
  await once(socket, 'data')
  child.kill('SIGINT')
  await once(socket.resume(), 'end')
  child.kill('SIGINT')
  child.kill('SIGTERM')
  expect(await ended).toBe(130)
  socket.destroy()
  expect(existsSync(join(dir, 'vm'))).toBe(false)
})

test.each([
  ['forward', () => ['vsock', 'forward', `unix:${dir}/from`, `unix:${dir}/to`]],
  ['listen', () => ['vsock', 'listen', `unix:${dir}/from`, '--keep', '--exec', 'cat']],
])('%s has nothing to say of many connections at once', async (command, argv) => {
  server = await listen(`unix:${dir}/to`)
  server.on('connection', (socket) => socket.pipe(socket).on('error', () => {}))
  const { child, ended, says, stderr } = launch(['--json', ...argv()])
  if (command === 'forward') await once(child.stdout!, 'data')
  else await says('listening')
  const sockets = await Promise.all(Array.from({ length: 12 }, () => connect(`unix:${dir}/from`)))
  const answers = sockets.map((socket) => once(socket, 'data'))
  for (const socket of sockets) socket.write('x')
  await Promise.all(answers)
  for (const socket of sockets) socket.destroy()
  child.kill('SIGTERM')
  expect(await ended).toBe(0)
  // Of events alone: a warning of Node's would be no JSON.
  for (const line of stderr().split('\n').filter(Boolean)) expect(JSON.parse(line)).toHaveProperty('event')
})

test('it ends although its stdin stays open, once the peer of a transport without half-close has ended', async () => {
  server = await listen(`unix:${dir}/s`)
  server.on('connection', (socket) => socket.resume().end('bye'))
  const { ended } = launch(['vsock', 'connect', `unix:${dir}/s`, '--no-half-close'])
  expect(await ended).toBe(0)
})

test('hvsock: a VMM that ends first still takes the whole of a file', async () => {
  const bytes = randomBytes(32 << 20)
  writeFileSync(join(dir, 'in'), bytes)
  const [stdin, stdout, nothing] = [openSync(join(dir, 'in'), 'r'), openSync(join(dir, 'out'), 'w'), openSync('/dev/null', 'r')]
  const vmm = launch(['vsock', 'listen', '--as-vmm', `hvsock://${dir}/vm:1`], { stdin: nothing, stdout })
  await vmm.says('listening')
  const { ended, stderr } = launch(['--json', 'vsock', 'connect', `hvsock://${dir}/vm:1`], { stdin })
  for (const fd of [stdin, stdout, nothing]) closeSync(fd)
  expect([await ended, await vmm.ended]).toEqual([0, 0])
  expect(JSON.parse(stderr())).toMatchObject({ outcome: 'ok', sent: 32 << 20 })
  expect(readFileSync(join(dir, 'out')).equals(bytes)).toBe(true)
})

test('a program gets its stdin, stdout and stderr, and its status is the exit status', async () => {
  server = await listen(`unix:${dir}/s`)
  server.on('connection', (socket) => socket.pipe(socket))
  const script = 'echo ping; read -r line; echo "$line back" >&2; exit 3'
  const { ended, stderr } = launch(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'sh', '-c', script])
  expect(await ended).toBe(3)
  expect(stderr()).toBe('ping back\n')
})

test('two of them, in a pipe of processes: listen and connect', async () => {
  const receiver = launch(['vsock', 'listen', `unix:${dir}/s`])
  await receiver.says('listening')
  const sender = launch(['vsock', 'connect', `unix:${dir}/s`])
  const bytes = randomBytes(1 << 20)
  sender.child.stdin!.end(bytes)
  receiver.child.stdin!.end('thanks')
  const received: Buffer[] = []
  receiver.child.stdout!.on('data', (chunk: Buffer) => received.push(chunk))
  let thanks = ''
  sender.child.stdout!.on('data', (chunk: Buffer) => {
    thanks += chunk
  })
  expect([await receiver.ended, await sender.ended, thanks]).toEqual([0, 0, 'thanks'])
  expect(Buffer.concat(received).equals(bytes)).toBe(true)
})
