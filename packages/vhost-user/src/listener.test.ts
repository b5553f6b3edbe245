import { existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { addonIfBuilt } from '../testing/addon.js'
import { listenUnix, lock, unixAddress } from './listener.js'
import type { Binding } from './native/binding.js'

const addon = addonIfBuilt()

let folder: string
let path: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vhost-user-'))
  path = join(folder, 'socket')
})
afterEach(() => rmSync(folder, { recursive: true }))

/** Leaves a file with nobody behind it. */
function die(binding: Binding): void {
  const dead = binding.socket(binding.AF_UNIX)
  const address = Buffer.alloc(3 + path.length)
  address.writeUInt16LE(binding.AF_UNIX, 0)
  address.write(path, 2)
  binding.bind(dead, address)
  binding.close(dead)
}

describe.runIf(addon !== undefined)('a path', () => {
  const binding = addon!
  const listen = (by: Binding = binding) => listenUnix(by, path, (it) => binding.close(it))

  test('of several that find a dead server’s file, one gets it, and keeps it', async () => {
    for (let round = 0; round < 20; round++) {
      die(binding)
      const starts = await Promise.allSettled(Array.from({ length: 5 }, () => listen()))
      const started = starts.flatMap((it) => (it.status === 'fulfilled' ? [it.value] : []))
      const refused = starts.flatMap((it) => (it.status === 'rejected' ? [it.reason.code] : []))
      expect(started).toHaveLength(1)
      expect(refused).toEqual(Array(4).fill('EADDRINUSE'))
      expect(existsSync(path)).toBe(true)
      await started[0]!.close()
      expect(existsSync(path)).toBe(false)
    }
  })

  test('whoever finds a dead server’s file leaves it alone while another starter looks at it', async () => {
    die(binding)
    const { ino } = lstatSync(path)
    const unlock = await lock(binding, path)
    let refusals = 0
    let waits!: () => void
    const waiting = new Promise<void>((resolve) => (waits = resolve))
    const counting: Binding = {
      ...binding,
      bind(...args) {
        try {
          binding.bind(...args)
        } catch (error) {
          if (++refusals === 2) waits()
          throw error
        }
      },
    }
    const starting = listen(counting)
    await Promise.race([waiting, starting])
    expect(lstatSync(path).ino).toBe(ino)
    unlock()
    await (await starting).close()
  })

  test('may be as long as a Unix socket’s can, however short its last part is', async () => {
    const directory = join(folder, 'd'.repeat(107 - folder.length - 3))
    mkdirSync(directory)
    path = join(directory, 's')
    expect(path).toHaveLength(107)
    const listener = await listen()
    binding.close(binding.connect(unixAddress(binding, path)))
    await listener.close()
    expect(existsSync(path)).toBe(false)
  })
})
