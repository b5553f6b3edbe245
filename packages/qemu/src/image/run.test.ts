import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { READY_LINE, RESULTS_PORT } from './init.js'
import { startInGuest } from './run.js'

const FAKE_QEMU = fileURLToPath(new URL('../fixtures/fake-qemu.mjs', import.meta.url))

it('a results port that breaks is told by how QEMU ends', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'run-'))
  const at = (name: string) => join(dir, name)
  await writeFile(at('kernel'), JSON.stringify({ guests: [{ prints: [`${READY_LINE}\r\n`] }] }))
  await writeFile(at('initrd'), '')
  const modules = { virtio_pci: [], virtio_mmio: [], virtio_blk: [], virtio_console: [] }
  const image = { arch: 'x86_64', kernel: at('kernel'), initrd: at('initrd'), root: at('root'), release: '6.1', modules } as const
  const run = await startInGuest({ image, command: ['true'], modules: [], qemu: FAKE_QEMU })
  try {
    run.guest.port(RESULTS_PORT).destroy(new Error('broken'))
    run.guest.kill()
    await expect(run.result).rejects.toMatchObject({
      code: 'EXITED',
      summary: expect.stringContaining('before it told an exit status'),
    })
  } finally {
    await run.close()
    await rm(dir, { recursive: true })
  }
})
