import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt } from '../../testing/addon.js'
import { bytes, nextOf, SeqpacketRig, text } from '../../testing/seqpacket.js'
import * as loader from '../native/loader.js'

// Each end against Python's socket module.

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
const python = (() => {
  try {
    execFileSync('python3', ['-c', 'import socket; socket.SOCK_SEQPACKET'], { stdio: 'ignore' })
    return true
  } catch {
    console.warn('Tests of message sockets against Python are left out: there is no python3. To run them, install it.')
    return false
  }
})()

let rig: SeqpacketRig
const closers: (() => unknown)[] = []

beforeEach(() => {
  if (addon) vi.mocked(loader.loadBinding).mockReturnValue(addon)
  rig = new SeqpacketRig()
})
afterEach(async () => {
  for (const close of closers.splice(0)) close()
  await rig.close()
})

/** Starts a program with the path of the socket as its argument. Resolves with what it says on stdout, once it has ended well. */
function start(program: string): { ended: Promise<string>; ready: Promise<unknown> } {
  const child = spawn('python3', ['-u', '-c', `import socket, sys\n${program}`, rig.path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  closers.push(() => child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', (chunk) => (said += chunk))
  const ended = once(child, 'close').then(([status]) => {
    expect(status).toBe(0)
    return said
  })
  return { ended, ready: once(child.stdout, 'data') }
}

describe.skipIf(!addon || !python)("message sockets and Python's (needs python3)", () => {
  it('serve a client', async () => {
    const server = await rig.listen()
    const client = start(`
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
for message in (b'one', b'two', b'x' * 100000): s.send(message, socket.MSG_EOR)
s.send(b'')
s.send(b'last')
print(s.recv(4), s.recv(100))
s.shutdown(socket.SHUT_WR)
print(s.recv(100))
`)
    const socket = await nextOf(server)
    const lengths: number[] = []
    for (let i = 0; i < 5; i++) lengths.push((await socket.receive())!.sentBytes)
    expect(lengths).toEqual([3, 3, 100_000, 0, 4])
    await socket.send(bytes('cut there'))
    await socket.send(bytes('whole'))
    expect(await socket.receive()).toBeUndefined()
    socket.end()
    expect(await client.ended).toBe("b'cut ' b'whole'\nb''\n")
    await socket.closed
  })

  it('use a server', async () => {
    const server = start(`
l = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
l.bind(sys.argv[1]); l.listen(1)
print('ready')
s, _ = l.accept()
while message := s.recv(200000): s.send(message[::-1])
s.send(b'bye')
`)
    await server.ready
    const socket = await rig.dial()
    await socket.send(bytes('abc'))
    await socket.send(new Uint8Array(100_000))
    expect(text((await socket.receive())?.data)).toBe('cba')
    expect((await socket.receive())?.sentBytes).toBe(100_000)
    socket.end()
    expect(text((await socket.receive())?.data)).toBe('bye')
    expect(await socket.receive()).toBeUndefined()
    await socket.closed
    expect(await server.ended).toBe('ready\n')
  })
})
