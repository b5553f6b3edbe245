import { describe, expect, test } from 'vitest'
import { brandOf, type ErrorFields, errnoOf, FieldError, fieldsOf, messageFor, messageOf, textOf } from './error.js'

class ToyError extends FieldError<'GONE'> {
  override readonly name = 'ToyError'
}

const fields: ErrorFields<'GONE'> = {
  code: 'GONE',
  op: 'connect',
  subject: 'unix:/run/a',
  what: 'there is no listener',
  next: 'Start the server.',
}

describe('an error of fields', () => {
  test('has all of them, and a message that is made of them', () => {
    const cause = new Error('why')
    expect(new ToyError({ ...fields, retryable: true, cause })).toMatchObject({
      ...fields,
      retryable: true,
      cause,
      message: 'connect unix:/run/a: there is no listener. Start the server.',
    })
  })

  test('may end with more lines for a person', () => {
    class LoggedError extends FieldError<'GONE'> {}
    const error = new LoggedError(fields, 'last lines:\n  | x')
    expect(error.message).toBe('connect unix:/run/a: there is no listener. Start the server.\nlast lines:\n  | x')
    expect(error.stack).toContain('  | x')
  })

  test('cannot be retried unless it says so, and has no cause unless one is given', () => {
    const error = new ToyError(fields)
    expect(error.retryable).toBe(false)
    expect('cause' in error).toBe(false)
  })

  test.each([
    [{ op: 'close' }, 'close: it broke. Wait.'],
    [{ subject: 'cpu 3' }, 'cpu 3: it broke. Wait.'],
    [{ op: 'add', subject: 'cpu 3', next: undefined }, 'add cpu 3: it broke'],
    [{}, 'it broke. Wait.'],
  ])('%j reads %j', (some, message) => {
    expect(messageOf({ subject: '', what: 'it broke', next: 'Wait.', ...some })).toBe(message)
  })
})

describe('what other code reads of an error', () => {
  test('is its fields, if it has any', () => {
    const error = new ToyError(fields)
    expect(fieldsOf(error)).toBe(error)
    expect(fieldsOf(new Error('a: b'))).toBeUndefined()
    expect(fieldsOf({ code: 'GONE', subject: '', what: '' })).toBeUndefined()
  })

  test('is what happened, as a part of another message', () => {
    expect(textOf(new ToyError(fields))).toBe('there is no listener')
    expect(textOf(new TypeError('a foreign text'))).toBe('a foreign text')
    expect(textOf(new RangeError())).toBe('RangeError')
    expect(textOf('a string')).toBe('a string')
    expect(textOf(Object.create(null))).toBe('a value that cannot be shown')
  })

  test('is found without an exception, whatever the value is', () => {
    const { proxy, revoke } = Proxy.revocable(new Error('x'), {})
    revoke()
    const odd = Object.defineProperty(new Error('odd'), 'code', {
      get() {
        throw new Error('not to be looked at')
      },
    })
    expect([proxy, odd].map(fieldsOf)).toEqual([undefined, undefined])
    expect([proxy, odd].map(textOf)).toEqual(['a value that cannot be shown', 'odd'])
    expect([proxy, odd].map(messageFor)).toEqual(['a value that cannot be shown', 'odd'])
    expect([proxy, odd].map(errnoOf)).toEqual(['UNKNOWN', 'UNKNOWN'])
  })

  test('is everything, for a printer', () => {
    expect(messageFor(new ToyError(fields))).toBe('connect unix:/run/a: there is no listener. Start the server.')
    expect(messageFor(new Error('a foreign text'))).toBe('a foreign text')
  })

  test('is the errno of a Node error', () => {
    expect(errnoOf(Object.assign(new Error(), { code: 'ENOENT' }))).toBe('ENOENT')
    for (const other of [new Error(), undefined, null, 5, { code: 3 }]) expect(errnoOf(other)).toBe('UNKNOWN')
  })
})

test('a brand is found on any copy of its class, and nowhere else', () => {
  const [one, copy, other] = [brandOf('a.ToyError'), brandOf('a.ToyError'), brandOf('a.Other')]
  const error = new ToyError(fields)
  one.mark(error)
  expect([copy.has(error), other.has(error), one.has(new ToyError(fields)), one.has(null), one.has('x')]).toEqual([
    true,
    false,
    false,
    false,
    false,
  ])
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  expect(one.has(proxy)).toBe(false)
})
