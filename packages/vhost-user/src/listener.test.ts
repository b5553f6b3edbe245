import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { withShortPath } from '@upcall/foundation/long-path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { addonIfBuilt } from '../testing/addon.js'
import { listenUnix, unixAddress } from './listener.js'
import type { Binding, Descriptor } from './native/binding.js'

const addon = addonIfBuilt()

let folder: string
let path: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vhost-user-'))
  path = join(folder, 'socket')
})
afterEach(() => rmSync(folder, { recursive: true }))

const openDescriptors = () => readdirSync('/proc/self/fd').length

/** Leaves the file of a process that is gone. */
function die(binding: Binding): void {
  const dead = binding.socket(binding.AF_UNIX)
  const address = Buffer.alloc(3 + path.length)
  address.writeUInt16LE(binding.AF_UNIX, 0)
  address.write(path, 2)
  binding.bind(dead, address)
  binding.close(dead)
}

test('a socket file that cannot be removed stays, and the listener is closed all the same', async () => {
  vi.resetModules()
  vi.doMock('@upcall/foundation/unix-path', () => ({
    takePath: async () => () => Promise.reject(Object.assign(new Error('EACCES'), { code: 'EACCES' })),
  }))
  const { listenUnix } = await import('./listener.js')
  vi.doUnmock('@upcall/foundation/unix-path')
  const close = vi.fn()
  const binding = { socket: () => ({}), watch() {}, unwatch() {}, close } as unknown as Binding
  const listener = await listenUnix(binding, path, { onConnection() {} })
  await listener.close()
  expect(close).toHaveBeenCalledOnce()
})

describe.runIf(addon !== undefined)('a path', () => {
  const binding = addon!
  const listen = (by: Binding = binding) => listenUnix(by, path, { onConnection: (it) => binding.close(it) })

  test("of several that find a dead server's file, one gets it, and keeps it", async () => {
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

  test.each([107, 400])('may have %d bytes, and leaves no descriptor open', async (length) => {
    const directory = join(folder, 'd'.repeat(Math.min(length - folder.length - 3, 200)), 'e'.repeat(Math.max(0, length - 300)))
    mkdirSync(directory, { recursive: true })
    path = join(directory, 's'.repeat(length - directory.length - 1))
    expect(path).toHaveLength(length)
    const listener = await listen()
    const before = openDescriptors()
    binding.close(withShortPath(path, (short) => binding.connect(unixAddress(binding, short))))
    expect(openDescriptors()).toBe(before)
    await listener.close()
    expect(existsSync(path)).toBe(false)
  })
})

describe.runIf(addon !== undefined)('out of descriptors', () => {
  const binding = addon!

  /** A listener whose accept fails while `exhausted`; pauses end when the test says so. */
  async function starved() {
    const pauses: { ms: number; resume: () => void }[] = []
    const told: unknown[] = []
    const seen = { tries: 0, exhausted: true, accepted: 0, cancelled: 0 }
    const by: Binding = {
      ...binding,
      accept(descriptor) {
        seen.tries++
        if (seen.exhausted) throw Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' })
        return binding.accept(descriptor)
      },
    }
    const onConnection = (it: Descriptor) => {
      seen.accepted++
      binding.close(it)
    }
    const sleep = (ms: number, resume: () => void) => {
      pauses.push({ ms, resume })
      return () => void seen.cancelled++
    }
    const listener = await listenUnix(by, path, { onConnection, onPause: (error, ms) => told.push([error, ms]) }, sleep)
    const until = async (condition: () => boolean) => {
      const deadline = performance.now() + 5_000
      while (!condition()) {
        if (performance.now() > deadline) throw new Error('it does not come')
        await turn()
      }
    }
    return { listener, pauses, told, seen, until }
  }

  test('it pauses longer and longer instead of spinning, loses no VMM, and begins again with the shortest pause', async () => {
    const { listener, pauses, told, seen, until } = await starved()
    const vmm = binding.connect(unixAddress(binding, path))
    for (let i = 1; i <= 9; i++) {
      await until(() => pauses.length === i)
      for (let turns = 0; turns < 3; turns++) await turn()
      expect(seen.tries).toBe(i)
      if (i < 9) pauses[i - 1]!.resume()
    }
    expect(pauses.map(({ ms }) => ms)).toEqual([10, 20, 40, 80, 160, 320, 640, 1_000, 1_000])
    expect(told[0]).toEqual([expect.objectContaining({ code: 'EMFILE' }), 10])
    seen.exhausted = false
    pauses[8]!.resume()
    await until(() => seen.accepted === 1)
    seen.exhausted = true
    const next = binding.connect(unixAddress(binding, path))
    await until(() => pauses.length === 10)
    expect(pauses[9]!.ms).toBe(10)
    await listener.close()
    for (const it of [vmm, next]) binding.close(it)
  })

  test('closed during a pause, it does not look again', async () => {
    const { listener, pauses, seen, until } = await starved()
    const vmm = binding.connect(unixAddress(binding, path))
    await until(() => pauses.length === 1)
    await listener.close()
    expect(seen).toMatchObject({ tries: 1, cancelled: 1 })
    binding.close(vmm)
  })
})
