import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { addonIfBuilt } from '../testing/addon.js'
import { listenUnix } from './listener.js'

const binding = addonIfBuilt()

test.runIf(binding !== undefined)('of several that find a dead server’s file, one gets the path, and keeps it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vhost-user-'))
  const path = join(folder, 'socket')
  try {
    for (let round = 0; round < 20; round++) {
      // A file with nobody behind it.
      const dead = binding!.socket(binding!.AF_UNIX)
      const address = Buffer.alloc(3 + path.length)
      address.writeUInt16LE(binding!.AF_UNIX, 0)
      address.write(path, 2)
      binding!.bind(dead, address)
      binding!.close(dead)

      const starts = await Promise.allSettled(
        Array.from({ length: 5 }, () => listenUnix(binding!, path, (it) => binding!.close(it))),
      )
      const started = starts.flatMap((it) => (it.status === 'fulfilled' ? [it.value] : []))
      const refused = starts.flatMap((it) => (it.status === 'rejected' ? [it.reason.code] : []))
      expect(started).toHaveLength(1)
      expect(refused).toEqual(Array(4).fill('EADDRINUSE'))
      expect(existsSync(path)).toBe(true)
      await started[0]!.close()
      expect(existsSync(path)).toBe(false)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})
