import { channel } from 'node:diagnostics_channel'
import { expect, test } from 'vitest'
import { traceOf } from './trace.js'

test('a trace publishes its messages, and says whether there is a subscriber', () => {
  const trace = traceOf('toy')
  const seen: unknown[] = []
  const listener = (message: unknown) => void seen.push(message)
  trace({ type: 'unseen' }, 'unseen')
  expect(trace.enabled).toBe(false)
  channel('upcall:toy').subscribe(listener)
  try {
    expect(trace.enabled).toBe(true)
    trace({ type: 'dial', to: 'a' }, 'dial %s', 'a')
  } finally {
    channel('upcall:toy').unsubscribe(listener)
  }
  expect(seen).toEqual([{ type: 'dial', to: 'a' }])
})
