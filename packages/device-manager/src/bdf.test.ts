import { expect, test } from 'vitest'
import { formatBdf, parseBdf } from './index.js'

test.each([
  ['00:05.0', { bus: 0, devfn: 40 }, '00:05.0'],
  ['0000:00:05.0', { bus: 0, devfn: 40 }, '00:05.0'],
  ['01:1f.7', { bus: 1, devfn: 255 }, '01:1f.7'],
  ['FF:0A.3', { bus: 255, devfn: 83 }, 'ff:0a.3'],
  ['0:5.0', { bus: 0, devfn: 40 }, '00:05.0'],
])('%s', (text, bdf, short) => {
  expect(parseBdf(text)).toEqual(bdf)
  expect(formatBdf(bdf)).toBe(short)
})

test.each([
  ['0001:00:05.0', 'must be in PCI domain 0000'],
  ['00:20.0', 'must be an integer from 0 to 31, got 32'],
  ['00:05.8', 'must be an integer from 0 to 7, got 8'],
  ['00:05', 'must look like 00:05.0'],
  ['5.0', 'must look like'],
  ['00:05.0 ', 'must look like'],
  ['100:05.0', 'must look like'],
  ['', 'must look like'],
])('%j is refused', (text, message) => {
  expect(() => parseBdf(text)).toThrow(
    expect.objectContaining({ name: 'WireError', code: 'ARGUMENT', message: expect.stringContaining(message) }),
  )
})
