import { expect, test } from 'vitest'
import { ImageProgress } from './image-progress.js'

const MIB = 2 ** 20

test('steps at once, a download as it begins and then now and again, with its rate', () => {
  let now = 5_000
  const told: string[] = []
  const { on } = new ImageProgress(2_000, (text) => told.push(text), { now: () => now })
  const total = 60 * MIB
  // A mirror that begins late.
  on('downloading Debian packages', { done: 0, total })
  on('downloading Debian packages', { done: 0, total })
  for (let second = 1; second <= 4; second++) {
    now += 1_000
    on('downloading Debian packages', { done: second * 5 * MIB, total })
  }
  // Another download of the same step, in a moment.
  on('downloading Debian packages', { done: 0, total: MIB / 2 })
  on('unpacking Debian packages')
  expect(told).toEqual([
    'downloading Debian packages, 60.0 MiB',
    'downloading Debian packages: 10.0 of 60.0 MiB, 5.0 MiB/s',
    'downloading Debian packages: 20.0 of 60.0 MiB, 5.0 MiB/s',
    'downloading Debian packages, 0.5 MiB',
    'unpacking Debian packages',
  ])
})
