import { expect, test } from 'vitest'
import { Queue } from './queue.js'

const unused = () => new Error('nothing aborts')

test('calls are answered in their order', async () => {
  const queue = new Queue<string, number>()
  const calls = ['a', 'b', 'c', 'd'].map((item) => queue.add(item, undefined, unused))
  expect([queue.first, queue.size]).toEqual(['a', 4])
  queue.shift(1)
  expect(queue.first).toBe('b')
  queue.failFirst(new Error('two'))
  queue.settleAll(({ resolve }) => resolve(3))
  expect([queue.first, queue.size]).toEqual([undefined, 0])
  expect(await Promise.allSettled(calls)).toMatchObject([
    { value: 1 },
    { reason: { message: 'two' } },
    { value: 3 },
    { value: 3 },
  ])
})

test('a signal takes its call out, and no other', async () => {
  const queue = new Queue<string, number>()
  const stop = new AbortController()
  const kept = queue.add('kept', undefined, unused)
  const given = queue.add('given up', stop.signal, (reason) => new Error(String(reason)))
  const last = queue.add('last', undefined, unused)
  stop.abort('enough')
  await expect(given).rejects.toThrow('enough')
  expect(queue.size).toBe(2)
  queue.shift(1)
  queue.shift(2)
  expect(await Promise.all([kept, last])).toEqual([1, 2])
})

test('a call that was answered has left its signal', async () => {
  const queue = new Queue<string, number>()
  const stop = new AbortController()
  const answered = queue.add('answered', stop.signal, unused)
  const waiting = queue.add('waiting', undefined, unused)
  queue.shift(1)
  stop.abort()
  expect(queue.first).toBe('waiting')
  queue.shift(2)
  expect(await Promise.all([answered, waiting])).toEqual([1, 2])
})
