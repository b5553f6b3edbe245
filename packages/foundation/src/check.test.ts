import { describe, expect, test } from 'vitest'
import {
  checkClock,
  checkFunction,
  checkNames,
  checkObject,
  checkOneOf,
  checkOptionalFunction,
  checkOptionalString,
  checkOptionalStrings,
  checkSignal,
  checkString,
  checkSwitch,
  checkTimeout,
  duration,
  finiteDuration,
  integer,
} from './check.js'
import { show } from './show.js'

const revoked = () => {
  const { proxy, revoke } = Proxy.revocable([], {})
  revoke()
  return proxy
}

describe('a value in a message', () => {
  test.each<[unknown, string]>([
    ['text', '"text"'],
    ['x'.repeat(50), `"${'x'.repeat(40)}…"`],
    [5, '5'],
    [-0, '-0'],
    [Number.NaN, 'NaN'],
    [9n, '9n'],
    [0x1000n, '0x1000n'],
    [-0x10n, '-0x10n'],
    [undefined, 'undefined'],
    [null, 'null'],
    [true, 'true'],
    [Symbol('s'), 'Symbol(s)'],
    [() => {}, 'a function'],
    [new Uint8Array(3), '3 bytes'],
    [[], '[]'],
    [[1, 2], 'an array of 2'],
    [{ a: 1 }, 'an object'],
    [new TypeError('secret'), 'an error (TypeError)'],
    [Promise.resolve(), 'a promise'],
    [Object.create(null), 'an object'],
  ])('%#: %s', (value, text) => expect(show(value)).toBe(text))

  test('that throws when it is looked at is shown all the same', () => {
    const value = Object.defineProperty({}, 'then', {
      get() {
        throw new Error('looked at')
      },
    })
    expect(show(value)).toBe('an object')
    expect(show(revoked())).toBe('an object')
    expect(() => checkObject('a', revoked())).not.toThrow()
  })
})

describe('an argument', () => {
  const clock = { now: () => 0, setTimer: () => () => {} }
  const good: [string, () => unknown][] = [
    ['object', () => checkObject('a', {})],
    ['function', () => checkFunction('a', () => {})],
    ['absent function', () => checkOptionalFunction('a', undefined)],
    ['string', () => [checkString('a', ''), checkOptionalString('a', 'x'), checkOptionalString('a', undefined)]],
    ['strings', () => [checkOptionalStrings('a', ['x', '']), checkOptionalStrings('a', undefined)]],
    ['one of some', () => checkOneOf('a', 'x', ['x', 'y'])],
    ['time', () => [0, -1, 5, Number.POSITIVE_INFINITY].map((ms) => checkTimeout('a', ms))],
    ['switch', () => [checkSwitch('a', true), checkSwitch('a', undefined)]],
    ['signal', () => [checkSignal(new AbortController().signal), checkSignal(undefined)]],
    ['clock', () => checkClock(clock)],
    ['names', () => checkNames('a', { x: 1 }, ['x', 'y'])],
  ]
  test.each(good)('of the right kind passes: %s', (_name, check) => expect(check).not.toThrow())

  test.each<[() => unknown, Error]>([
    [() => checkObject('a', null), new TypeError('a: must be an object, got null')],
    [() => checkObject('a', []), new TypeError('a: must be an object, got []')],
    [() => checkOptionalString('a', null), new TypeError('a: must be a string, got null')],
    [() => checkOptionalStrings('a', 'x'), new TypeError('a: must be an array of strings, got "x"')],
    [() => checkOptionalStrings('a', ['x', 5]), new TypeError('a: must be an array of strings, got an array of 2')],
    [() => checkOneOf('a', 'z', ['x', 'y']), new RangeError('a: must be one of x, y, got "z"')],
    [() => checkTimeout('a', Number.NaN), new RangeError('a: must be a number of milliseconds, got NaN')],
    [() => checkTimeout('a', undefined), new RangeError('a: must be a number of milliseconds, got undefined')],
    [() => checkTimeout('a', '5'), new RangeError('a: must be a number of milliseconds, got "5"')],
    [() => checkFunction('a', 3), new TypeError('a: must be a function, got 3')],
    [() => checkOptionalFunction('a', null), new TypeError('a: must be a function, got null')],
    [() => checkString('a', 3), new TypeError('a: must be a string, got 3')],
    [() => checkSwitch('a', 1), new TypeError('a: must be true or false, got 1')],
    [() => checkSignal({ aborted: false }), new TypeError('signal: must be an AbortSignal, got an object')],
    [() => checkSignal(null), new TypeError('signal: must be an AbortSignal, got null')],
    [() => checkClock({ now: () => 0 }), new TypeError('clock.setTimer: must be a function, got undefined')],
    [() => checkNames('a', { z: 1 }, ['x', 'y']), new RangeError('a: the key: must be one of x, y, got "z"')],
    [() => integer('a', 1.5), new RangeError('a: must be an integer of at least 0, got 1.5')],
    [() => integer('a', 9, { min: 1, max: 8 }), new RangeError('a: must be an integer from 1 to 8, got 9')],
    [() => integer('a', '1'), new RangeError('a: must be an integer of at least 0, got "1"')],
    [() => duration('a', 0, 1), new RangeError('a: must be a number of milliseconds above 0, got 0')],
    [() => duration('a', Number.NaN, 1), new RangeError('a: must be a number of milliseconds above 0, got NaN')],
    [
      () => finiteDuration('a', Number.POSITIVE_INFINITY, 1),
      new RangeError('a: must be a finite number of milliseconds above 0, got Infinity'),
    ],
  ])('of the wrong kind is refused: %#', (check, error) => expect(check).toThrow(error))

  test('that is left out has its default', () => {
    expect([duration('a', undefined, 5), duration('a', 7, 5), finiteDuration('a', undefined, 5)]).toEqual([5, 7, 5])
    expect(duration('a', Number.POSITIVE_INFINITY, 5)).toBe(Number.POSITIVE_INFINITY)
    expect(integer('a', 8, { max: 8 })).toBe(8)
  })
})
