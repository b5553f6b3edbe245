import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { type ListenHybridOptions, listenHybrid } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { endCases, type PassageKind, runEndCase } from './support/ends.js'
import { hybridPassage } from './support/passage.js'

/** The hybrid server, with a guest on a Unix socket: all that joins the two is the library's. */
function hybrid(name: string, options: Partial<ListenHybridOptions>): PassageKind {
  return {
    name,
    greeting: 'CONNECT 52\n',
    halfClose: options.profile !== 'firecracker',
    closesAtOnce: true,
    breaks: true,
    open: ({ near, far }) => hybridPassage(near, far, options),
  }
}

const kinds = [hybrid('hybrid server', {}), hybrid('hybrid server without half-close', { profile: 'firecracker' })]

describe.each(kinds)('$name', (kind) => {
  it.concurrent.each(endCases(kind))('$name', { timeout: 90_000 }, (row) => runEndCase(kind, row))
})

const socat = spawnSync('socat', ['-V']).status === 0

describe.skipIf(!socat)('socat as the dialer (skipped where it is not installed)', () => {
  it.each([
    ['', 'banner'],
    ['hello', 'banner'],
  ])('echo CONNECT with %j after it, to a guest that speaks first', async (more, banner) => {
    const dir = mkdtempSync(join(tmpdir(), 'socat-'))
    let heard = ''
    const guest = new Duplex({
      read() {},
      write(chunk, _encoding, done) {
        heard += chunk
        done()
      },
    })
    guest.on('error', () => {})
    const refusals: unknown[] = []
    await using server = await listenHybrid({
      handshakeTimeoutMs: 30_000,
      path: join(dir, 'vm.sock'),
      // Later than socat has ended its side, and before it gives up (0.5 s after that).
      route: () =>
        new Promise((resolve) => {
          setTimeout(() => {
            guest.push(banner)
            guest.push(null)
            resolve(guest)
          }, 100)
        }),
    })
    server.on('refused', (refusal) => refusals.push(refusal))
    const dialer = spawn('socat', ['-t', '10', '-', `UNIX-CONNECT:${server.path}`], { stdio: ['pipe', 'pipe', 'inherit'] })
    let said = ''
    dialer.stdout.on('data', (chunk) => {
      said += chunk
    })
    const gone = new Promise((resolve) => dialer.once('close', resolve))
    dialer.stdin.end(`CONNECT 52\n${more}`)
    await gone
    expect([said, heard, refusals]).toEqual([`OK 1073741824\n${banner}`, more, []])
    rmSync(dir, { recursive: true, force: true })
  })
})
