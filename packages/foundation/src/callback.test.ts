import { once } from 'node:events'
import { afterEach, expect, test, vi } from 'vitest'
import { callBack } from './callback.js'

afterEach(() => void vi.restoreAllMocks())

test('a callback is called, if there is one', () => {
  const called: unknown[] = []
  callBack((...args: number[]) => void called.push(args), 1, 2)
  callBack(undefined)
  expect(called).toEqual([[1, 2]])
})

test('what a callback throws is uncaught, and not here', async () => {
  // The test runner listens too, and would call it a failure.
  const others = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  try {
    const uncaught = once(process, 'uncaughtException')
    const error = new Error('broken')
    callBack(() => {
      throw error
    })
    expect((await uncaught)[0]).toBe(error)
  } finally {
    for (const listener of others) process.on('uncaughtException', listener)
  }
})
