import { afterEach, expect, test, vi } from 'vitest'
import { ByteQueue } from './byte-queue.js'

afterEach(() => void vi.restoreAllMocks())

test('bytes come out in the order in which they went in, in any pieces', () => {
  const queue = new ByteQueue()
  for (const text of ['ab', '', 'cdef', 'g']) queue.push(Buffer.from(text))
  expect([1, 3, 0, 2].map((length) => String(queue.take(length)))).toEqual(['a', 'bcd', '', 'ef'])
  expect(queue.length).toBe(1)
  queue.push(Buffer.from('h'))
  expect(String(queue.take(2))).toBe('gh')
  expect(queue.length).toBe(0)
})

test('each byte is copied at most once, after a backlog of any length', () => {
  const queue = new ByteQueue()
  const concat = vi.spyOn(Buffer, 'concat')
  for (let i = 0; i < 1000; i++) queue.push(Buffer.alloc(10))
  for (let i = 0; i < 1000; i++) {
    queue.push(Buffer.alloc(10))
    queue.take(15)
  }
  const copied = concat.mock.results.reduce((sum, { value }) => sum + (value as Buffer).length, 0)
  expect(copied).toBeLessThanOrEqual(15_000)
})
