import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import { ManualClock } from '@upcall/testkit'
import { expect, test } from 'vitest'
import { EventStreams } from './event-stream.js'

/** An answer whose reader reads or does not. */
class FakeResponse extends EventEmitter {
  status = 0
  headers: Record<string, string> = {}
  text = ''
  writableLength = 0
  destroyed = false

  constructor(readonly reads = true) {
    super()
  }

  writeHead(status: number, headers: Record<string, string>): void {
    Object.assign(this, { status, headers })
  }

  write(text: string): void {
    this.text += text
    if (!this.reads) this.writableLength += text.length
  }

  destroy(): void {
    this.destroyed = true
    this.emit('close')
  }
}

const asResponse = (response: FakeResponse) => response as unknown as ServerResponse

test('an event is a name and JSON in one line, and goes to all pages', () => {
  const streams = new EventStreams(new ManualClock(), 16)
  const [one, two] = [new FakeResponse(), new FakeResponse()]
  for (const each of [one, two]) streams.add(asResponse(each))
  expect(one.status).toBe(200)
  expect(one.headers).toMatchObject({
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'content-security-policy': expect.stringContaining("default-src 'none'"),
  })
  streams.send(asResponse(one), 'snapshot', { text: 'two\nlines' })
  streams.tell('console', { text: 'x' })
  expect(one.text).toBe('retry: 1000\n\nevent: snapshot\ndata: {"text":"two\\nlines"}\n\nevent: console\ndata: {"text":"x"}\n\n')
  expect(two.text).toBe('retry: 1000\n\nevent: console\ndata: {"text":"x"}\n\n')
})

test('something is sent now and then, until the page goes', () => {
  const clock = new ManualClock()
  const streams = new EventStreams(clock, 16)
  const response = new FakeResponse()
  streams.add(asResponse(response))
  clock.advance(15_000)
  clock.advance(15_000)
  expect(response.text).toBe('retry: 1000\n\n: \n\n: \n\n')
  response.emit('close')
  expect(streams.size).toBe(0)
  expect(clock.pending).toBe(0)
})

test('a page that does not read is dropped, and the others are not', () => {
  const streams = new EventStreams(new ManualClock(), 16)
  const [slow, quick] = [new FakeResponse(false), new FakeResponse()]
  for (const each of [slow, quick]) streams.add(asResponse(each))
  const data = { text: 'x'.repeat(100_000) }
  for (let i = 0; i < 20; i++) streams.tell('console', data)
  expect(slow.destroyed).toBe(true)
  expect(slow.text.length).toBeLessThan((1 << 20) + 200_000)
  expect(quick.destroyed).toBe(false)
  expect(streams.size).toBe(1)
})

test('close ends all of them', () => {
  const clock = new ManualClock()
  const streams = new EventStreams(clock, 2)
  const all = [new FakeResponse(), new FakeResponse()]
  for (const each of all) streams.add(asResponse(each))
  expect(streams.isFull).toBe(true)
  streams.close()
  expect(all.map(({ destroyed }) => destroyed)).toEqual([true, true])
  expect(clock.pending).toBe(0)
  streams.tell('console', { text: 'x' })
})
