import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt } from '../../testing/addon.js'
import { Guest } from '../../testing/pass.js'
import { listenHybrid } from '../hybrid.js'
import * as loader from '../native/loader.js'
import { passDescriptor } from './pass.js'

// Each end against Python's socket.send_fds and socket.recv_fds.

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
const python = (() => {
  try {
    execFileSync('python3', ['-c', 'import socket; socket.send_fds, socket.recv_fds'], { stdio: 'ignore' })
    return true
  } catch {
    console.warn('Tests of passfd against Python are left out: there is no python3 (3.9 or later). To run them, install it.')
    return false
  }
})()

let dir: string
let path: string
const closers: (() => unknown)[] = []

beforeEach(() => {
  if (addon) vi.mocked(loader.loadBinding).mockReturnValue(addon)
  dir = mkdtempSync(join(tmpdir(), 'pass-'))
  path = join(dir, 'vm.sock')
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  rmSync(dir, { recursive: true, force: true })
})

/** Runs a program with the path as its argument; what it says on stdout. */
async function run(program: string, ...args: string[]): Promise<string> {
  const child = spawn('python3', ['-c', program, path, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  closers.push(() => child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', (chunk) => (said += chunk))
  const [status] = await once(child, 'close')
  expect(status).toBe(0)
  return said
}

/** Python takes its time on a busy machine, and accepts one connection. */
const PATIENT = { keep: true, timeoutMs: 30_000, retry: { attemptTimeoutMs: 30_000 } }

describe.skipIf(!addon || !python)('passfd and Python (needs python3)', () => {
  it("takes a descriptor of Python's, which is gone when the bytes go", async () => {
    const guest = await Guest.listen(join(dir, 'guest'))
    closers.push(() => guest.close())
    const server = await listenHybrid({
      path,
      profile: 'dragonball',
      handshakeTimeoutMs: 30_000,
      route: async () => {
        const socket = netConnect({ path: join(dir, 'guest'), allowHalfOpen: true })
        await once(socket, 'connect')
        return socket as Duplex
      },
    })
    closers.push(() => server.close())
    writeFileSync(join(dir, 'file'), 'x'.repeat(500_000))
    const said = await run(
      `
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
fd = os.open(sys.argv[2], os.O_RDONLY)
s.sendall(b'passfd\\n')
assert socket.send_fds(s, [b'1027 keep'], [fd]) == 9
os.close(fd)
print(s.makefile().read(), end='')
`,
      join(dir, 'file'),
    )
    expect(said).toBe('OK 1073741824\n')
    const inside = await guest.accept()
    let got = 0
    inside.on('data', (chunk) => (got += chunk.length))
    await expect.poll(() => got, { timeout: 10_000, interval: 5 }).toBe(500_000)
  })

  it('sends a descriptor to Python, which writes to it', async () => {
    const vmm = run(`
import os, socket, sys
l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); l.listen(1)
s, _ = l.accept()
command = s.recv(7)
text, fds, flags, _ = socket.recv_fds(s, 32, 4)
s.sendall(b'OK 1234\\n')
os.write(fds[0], b'written by the VMM')
print(repr((command, text, len(fds), flags)), end='')
`)
    const fd = openSync(join(dir, 'file'), 'w')
    try {
      expect(await passDescriptor(`hvsock://${path}:1027`, fd, PATIENT)).toEqual({ hostPort: 1234 })
    } finally {
      closeSync(fd)
    }
    expect(await vmm).toBe("(b'passfd\\n', b'1027 keep', 1, 0)")
    expect(readFileSync(join(dir, 'file'), 'latin1')).toBe('written by the VMM')
  })
})
