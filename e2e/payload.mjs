import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** A folder for a guest: its programs, and the packages of ours they use, as they were built. The caller removes it. */
export function guestPayload(packages) {
  const dir = mkdtempSync(join(tmpdir(), 'upcall-payload-'))
  cpSync(join(root, 'e2e/guest'), dir, { recursive: true })
  for (const name of packages) {
    for (const part of ['package.json', 'dist', 'build/Release']) {
      cpSync(join(root, 'packages', name, part), join(dir, 'node_modules/@upcall', name, part), { recursive: true })
    }
  }
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) }
}
