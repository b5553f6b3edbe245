import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { READY_LINE, RESULTS_PORT } from './init.js'
import { type RunOptions, startInGuest } from './run.js'

const FAKE_QEMU = fileURLToPath(new URL('../../testing/fake-qemu.mjs', import.meta.url))

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'run-'))
})
afterEach(() => rm(dir, { recursive: true }))

/** A run in a guest that is ready at once, and echoes what is written to its results port. */
async function run(options: Partial<RunOptions> = {}) {
  const at = (name: string) => join(dir, name)
  await writeFile(at('kernel'), JSON.stringify({ guests: [{ prints: [`${READY_LINE}\r\n`] }] }))
  await writeFile(at('initrd'), '')
  const modules = { virtio_pci: [], virtio_mmio: [], virtio_blk: [], virtio_console: [] }
  const image = { arch: 'x86_64', kernel: at('kernel'), initrd: at('initrd'), root: at('root'), release: '6.1', modules } as const
  return startInGuest({ image, command: ['true'], modules: [], qemu: FAKE_QEMU, ...options })
}

describe('a run', () => {
  it('whose results port breaks is told by how QEMU ends', async () => {
    await using started = await run()
    started.guest.port(RESULTS_PORT).destroy(new Error('broken'))
    started.guest.kill()
    await expect(started.result).rejects.toMatchObject({
      code: 'EXITED',
      op: 'run',
      subject: 'true',
      what: expect.stringContaining('before the command ended'),
    })
  })

  it('gives lines as they come, however they come, a last one without an end too', async () => {
    const lines: string[] = []
    await using started = await run({ onLine: (line) => lines.push(line) })
    const port = started.guest.port(RESULTS_PORT)
    const umlaut = Buffer.from('ü')
    port.emit('data', Buffer.concat([Buffer.from('one\r\ntw'), umlaut.subarray(0, 1)]))
    port.emit('data', Buffer.concat([umlaut.subarray(1), Buffer.from('\nan\u2028d\rmore\nrest')]))
    started.guest.kill()
    await expect(started.result).rejects.toMatchObject({ code: 'EXITED' })
    expect(lines).toEqual(['one', 'twü', 'an\u2028d\rmore', 'rest'])
  })

  it('rejects with what onLine throws, and its guest is gone', async () => {
    const broken = new Error('broken')
    const seen: string[] = []
    await using started = await run({
      onLine(line) {
        seen.push(line)
        throw broken
      },
    })
    started.guest.port(RESULTS_PORT).emit('data', Buffer.from('one\ntwo\n'))
    await expect(started.result).rejects.toBe(broken)
    const pid = Number(await readFile(join(dir, 'kernel.pids'), 'utf8'))
    expect(() => process.kill(pid, 0)).toThrow('ESRCH')
    expect(seen).toEqual(['one'])
  })

  it('has a bound, which says what did not end', async () => {
    await using started = await run({ timeoutMs: 1 })
    await expect(started.result).rejects.toMatchObject({
      code: 'DEADLINE',
      message: expect.stringMatching(/^run true: the command has not ended within 1 ms\nlast console lines:/),
    })
  })
})
