import { expect, test } from 'vitest'
import { Interruption } from './interruption.js'

const abortedAfter = (...signals: [at: number, signal: 'SIGINT' | 'SIGTERM'][]) => {
  let now = 0
  const interruption = new Interruption(() => now)
  for (const [at, signal] of signals) {
    now = at
    interruption.receive(signal)
  }
  return [interruption.signal.reason?.signal, interruption.hurry.aborted]
}

test('the first signal counts, and a signal that is sent twice counts as one', () => {
  expect(abortedAfter()).toEqual([undefined, false])
  expect(abortedAfter([7, 'SIGINT'])).toEqual(['SIGINT', false])
  expect(abortedAfter([7, 'SIGTERM'], [7, 'SIGINT'], [506, 'SIGINT'])).toEqual(['SIGTERM', false])
})

test('after it a Ctrl-C ends the waiting, and SIGTERM does not', () => {
  expect(abortedAfter([7, 'SIGTERM'], [507, 'SIGINT'])).toEqual(['SIGTERM', true])
  expect(abortedAfter([7, 'SIGINT'], [507, 'SIGINT'])).toEqual(['SIGINT', true])
  expect(abortedAfter([7, 'SIGINT'], [60_000, 'SIGTERM'])).toEqual(['SIGINT', false])
})
