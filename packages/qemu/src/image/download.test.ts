// A download as an apt of this test does it: in two halves, of which the test asks for the second.
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type DownloadAmount, fetchPackages } from './debian.js'

const HALF = 600
const FILE = 'socat_1_amd64.deb'
const CONTENT = Buffer.alloc(2 * HALF, 'x')
const socat = { name: 'socat', file: FILE, size: CONTENT.length, sha256: createHash('sha256').update(CONTENT).digest('hex') }

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'download-'))
  const half = `head -c ${HALF} ${join(dir, 'content')} >> ${FILE}`
  await mkdir(join(dir, 'bin'))
  await writeFile(join(dir, 'content'), CONTENT)
  const script = `#!/bin/sh\n${half}\ntouch ${join(dir, 'half')}\nwhile ! [ -e ${join(dir, 'go')} ]; do sleep 0.02; done\n${half}\n`
  await writeFile(join(dir, 'bin', 'apt-get'), script, { mode: 0o755 })
  vi.stubEnv('PATH', `${join(dir, 'bin')}:/bin:/usr/bin`)
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(dir, { recursive: true })
})

const isHalfDone = () => expect.poll(() => existsSync(join(dir, 'half'))).toBe(true)

test('it is told as it begins, and each second how many bytes are there', async () => {
  const clock = new ManualClock()
  const told: DownloadAmount[] = []
  const fetching = fetchPackages([socat], join(dir, 'cache'), { clock }, (amount) => told.push(amount))
  await isHalfDone()
  const total = CONTENT.length
  expect(told).toEqual([{ done: 0, total }])
  clock.advance(1000)
  await expect
    .poll(() => told)
    .toEqual([
      { done: 0, total },
      { done: HALF, total },
    ])
  await writeFile(join(dir, 'go'), '')
  await fetching
  expect(await readdir(join(dir, 'cache'))).toEqual([FILE])
  // What is in the cache is not downloaded.
  told.length = 0
  await fetchPackages([socat], join(dir, 'cache'), { clock }, (amount) => told.push(amount))
  expect(told).toEqual([])
})

test.each([0, HALF])('what the callback throws at %d bytes ends the download, and leaves nothing', async (bytes) => {
  const clock = new ManualClock()
  const fetching = fetchPackages([socat], join(dir, 'cache'), { clock }, ({ done }) => {
    if (done === bytes) throw new Error('enough')
  })
  fetching.catch(() => {})
  if (bytes > 0) {
    await isHalfDone()
    clock.advance(1000)
  }
  await expect(fetching).rejects.toThrow('enough')
  expect(await readdir(join(dir, 'cache'))).toEqual([])
})

test('an abort ends it', async () => {
  const controller = new AbortController()
  const fetching = fetchPackages([socat], join(dir, 'cache'), { signal: controller.signal }, () => {})
  fetching.catch(() => {})
  await isHalfDone()
  controller.abort(new Error('not now'))
  await expect(fetching).rejects.toMatchObject({ code: 'ABORTED' })
  expect(await readdir(join(dir, 'cache'))).toEqual([])
})
