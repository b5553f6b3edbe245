import { expect, test, vi } from 'vitest'
import { ignoreRejection, isPromise, synchronous } from './returned.js'

test('a promise is a value with a function `then`', () => {
  const thenable = Object.fromEntries([['then', () => {}]])
  const other = Object.fromEntries([['then', 1]])
  expect([Promise.resolve(), thenable, other, null].map(isPromise)).toEqual([true, true, false, false])
})

test('a value passes, a promise is refused, and its rejection is not an unhandled one', async () => {
  const unhandled = vi.fn()
  process.on('unhandledRejection', unhandled)
  try {
    expect(synchronous('decode', 5)).toBe(5)
    expect(() => synchronous('decode', Promise.reject(new Error('later')))).toThrow(
      new TypeError('decode: must not return a promise'),
    )
    ignoreRejection(Promise.reject(new Error('later')))
    ignoreRejection('a value')
    await new Promise(setImmediate)
    expect(unhandled).not.toHaveBeenCalled()
  } finally {
    process.off('unhandledRejection', unhandled)
  }
})
