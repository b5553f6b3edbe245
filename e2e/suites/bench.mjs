// Speed in the guest: Node's sockets against a C program's. Nothing here fails for being slow; it prints ratios.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compile } from '../compile.mjs'
import { runGuestTests } from '../guest-tests.mjs'

const source = fileURLToPath(new URL('../bench/peer.c', import.meta.url))

export async function run(checks, image) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-e2e-bench-'))
  try {
    const peer = join(folder, 'peer')
    const compiled = await checks.check('the C program is compiled', () => {
      compile(source, peer)
      return true
    })
    if (!compiled) return
    const programs = ['guest/bench', '../tests/bench/measure.mjs', peer]
    const payload = { programs, packages: ['@upcall/vsock'] }
    // The guest's clock counts its instructions, one a nanosecond: what else the host does is not in the figures.
    const boot = { cpus: 1, args: ['-icount', 'shift=0'] }
    await runGuestTests(checks, { name: 'bench', image, payload, program: 'main.mjs', timeoutMs: 400_000, boot })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
