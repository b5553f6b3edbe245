import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { faulty } from './index.js'

const plan = (plan: unknown) => () => faulty(new PassThrough(), plan as never)

test.each<[unknown, string]>([
  [undefined, 'fault plan: must be an object, got undefined'],
  [[], 'fault plan: must be an object, got []'],
  [{ reading: {} }, 'fault plan: the key: must be one of read, write, got "reading"'],
  [{ read: null }, 'fault plan: must be an object, got null'],
  [{ read: { eof: 5 } }, 'fault plan: the key: must be one of every, cuts, insert, stallAt, eofAt, resetAt'],
  [{ read: { cuts: 5 } }, 'fault plan: cuts: must be an array of offsets, got 5'],
  [{ read: { cuts: [1.5] } }, 'fault plan: cuts[0]: must be an integer of at least 0, got 1.5'],
  [{ write: { insert: 5 } }, 'fault plan: insert: must be an object, got 5'],
  [{ write: { insert: { at: 5, bytes: 'text' } } }, 'fault plan: insert.bytes: must be a Uint8Array, got "text"'],
  [{ write: { resetAt: '5' } }, 'fault plan: resetAt: must be an integer of at least 0, got "5"'],
])('the plan %j is refused', (wrong, message) => {
  expect(plan(wrong)).toThrow(message)
})

test('only a stream is taken for a stream', () => {
  expect(() => faulty({} as never, {})).toThrow('faulty: stream: must be a Duplex stream, got an object')
})
