import { expect, test } from 'vitest'
import { catchUncaught } from '../testing/uncaught.js'
import { callBack } from './callback.js'

test('a callback is called, if there is one', () => {
  const called: unknown[] = []
  callBack((...args: number[]) => void called.push(args), 1, 2)
  callBack(undefined)
  expect(called).toEqual([[1, 2]])
})

test('what a callback throws is uncaught, and not here', async () => {
  using uncaught = catchUncaught()
  const error = new Error('broken')
  callBack(() => {
    throw error
  })
  expect(await uncaught.next()).toBe(error)
})
