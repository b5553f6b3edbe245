import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { settle } from '@upcall/foundation/testing/manual-clock'
import { expect, it } from 'vitest'
import { duplexPair } from './duplex-pair.js'

function record(stream: Duplex): string[] {
  const events: string[] = []
  stream.on('data', (chunk: Buffer) => events.push(String(chunk)))
  for (const name of ['end', 'close'] as const) stream.on(name, () => events.push(name))
  stream.on('error', (error: NodeJS.ErrnoException) => events.push(error.code ?? error.message))
  return events
}

it('carries one chunk per write, in both directions, never within the write', async () => {
  const [a, b] = duplexPair()
  const [atA, atB] = [record(a), record(b)]
  a.write('one')
  a.write('two')
  b.write('three')
  expect(atB).toEqual([])
  await settle()
  expect(atB).toEqual(['one', 'two'])
  expect(atA).toEqual(['three'])
})

it('has taken the bytes when write() returns', async () => {
  const [a, b] = duplexPair()
  const atB = record(b)
  const buffer = Buffer.from('before')
  a.write(buffer)
  buffer.fill('x')
  a.destroy()
  await settle()
  expect(atB).toEqual(['before', 'end'])
})

it('holds a writer back until the other end reads', async () => {
  const [a, b] = duplexPair({ highWaterMark: 10 })
  let left = 0
  for (let i = 0; i < 5; i++) a.write(Buffer.alloc(10), () => left++)
  await settle()
  // One chunk fills the reader's buffer; its write waits for the reader.
  expect(left).toBe(0)
  expect(b.read()).toHaveLength(10)
  await settle()
  expect(left).toBe(1)
  b.resume()
  await settle()
  expect(left).toBe(5)
})

it('ends one direction and leaves the other one open', async () => {
  const [a, b] = duplexPair()
  const [atA, atB] = [record(a), record(b)]
  a.end('last')
  await settle()
  expect(atB).toEqual(['last', 'end'])
  b.write('still')
  await settle()
  expect(atA).toEqual(['still'])
  b.end()
  await settle()
  expect(atA).toEqual(['still', 'end', 'close'])
  expect(atB).toEqual(['last', 'end', 'close'])
})

it('without allowHalfOpen the end of one direction ends the other', async () => {
  const [a, b] = duplexPair({ allowHalfOpen: false })
  const [atA, atB] = [record(a), record(b)]
  a.end()
  await settle()
  expect(atA).toEqual(['end', 'close'])
  expect(atB).toEqual(['end', 'close'])
})

it('destroy() is EOF at the other end, whose writes then fail', async () => {
  const [a, b] = duplexPair()
  const atB = record(b)
  a.destroy()
  await settle()
  expect(atB).toEqual(['end'])
  b.write('anybody?')
  await settle()
  expect(atB).toEqual(['end', 'EPIPE', 'close'])
})

it('destroy() with bytes unread, and destroy(error), are a reset at the other end', async () => {
  for (const [unread, error] of [
    [true, undefined],
    [false, new Error('gone')],
  ] as const) {
    const [a, b] = duplexPair()
    const atB = record(b)
    a.on('error', () => {})
    if (unread) b.write('unread')
    await settle()
    a.destroy(error)
    await settle()
    expect(atB).toEqual(['ECONNRESET', 'close'])
  }
})

it('a reset reaches a writer that is held back', async () => {
  const [a, b] = duplexPair({ highWaterMark: 4 })
  a.on('error', () => {})
  const failed = new Promise<NodeJS.ErrnoException | null | undefined>((resolve) => a.write('too much', resolve))
  await settle()
  b.destroy()
  expect((await failed)?.code).toBe('ECONNRESET')
  if (!a.closed) await once(a, 'close')
})

it('a reset after an orderly end of both directions does nothing', async () => {
  const [a, b] = duplexPair()
  const atB = record(b)
  a.resume()
  a.end()
  b.end()
  await settle()
  a.destroy(new Error('too late'))
  await settle()
  expect(atB).toEqual(['end', 'close'])
})
