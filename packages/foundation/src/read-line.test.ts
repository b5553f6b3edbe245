import { PassThrough } from 'node:stream'
import { afterEach, expect, test, vi } from 'vitest'
import { readLine } from './read-line.js'

const limits = { longest: 10, timeoutMs: 60_000 }

afterEach(() => void vi.restoreAllMocks())

test('a line in any pieces, and what follows it is not waited for', async () => {
  const stream = new PassThrough()
  const line = readLine(stream, limits)
  for (const piece of ['a', 'bü'.slice(0, 1), 'ü', 'c\nmore']) stream.write(piece)
  expect(await line).toBe('abüc')
})

test('what follows is thrown away', async () => {
  const stream = new PassThrough({ highWaterMark: 4 })
  const line = readLine(stream, limits)
  stream.write('more than ten characters')
  await expect(line).rejects.toThrow('more than 10 characters without a line end')
  await new Promise<void>((resolve) => stream.write('x'.repeat(1000), () => resolve()))
  expect(stream.readableLength).toBe(0)
  expect(stream.listenerCount('data')).toBe(0)
})

test('a line that is too long is refused although it ends', async () => {
  const stream = new PassThrough()
  const line = readLine(stream, limits)
  stream.write('12345678901\n')
  await expect(line).rejects.toThrow('more than 10 characters')
})

test.each(['end', 'destroy'] as const)('without a line it is over at %s', async (how) => {
  const stream = new PassThrough()
  const line = readLine(stream, limits)
  stream[how]()
  await expect(line).rejects.toThrow('no line came')
})

test('the time is for the whole line', async () => {
  vi.useFakeTimers()
  try {
    const stream = new PassThrough()
    const line = readLine(stream, limits)
    const failed = expect(line).rejects.toThrow('no line within 60000 ms')
    vi.advanceTimersByTime(59_999)
    stream.emit('data', 'a')
    vi.advanceTimersByTime(1)
    await failed
  } finally {
    vi.useRealTimers()
  }
})

test('each piece is searched once', async () => {
  const stream = new PassThrough()
  const line = readLine(stream, { longest: 10_000, timeoutMs: 60_000 })
  let searched = 0
  const indexOf = String.prototype.indexOf
  vi.spyOn(String.prototype, 'indexOf').mockImplementation(function (this: string, ...args: [string, number?]) {
    searched += this.length
    return indexOf.apply(this, args)
  })
  for (let i = 0; i < 5000; i++) stream.emit('data', 'x')
  stream.emit('data', '\n')
  expect(searched).toBeLessThan(10_000)
  vi.restoreAllMocks()
  expect(await line).toBe('x'.repeat(5000))
})
