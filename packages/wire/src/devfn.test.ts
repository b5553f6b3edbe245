import { expect, test } from 'vitest'
import { packDevfn, unpackDevfn } from './index.js'

test('slot and function are packed as PCI packs them, and back', () => {
  expect(packDevfn(5, 0)).toBe(40)
  expect(packDevfn(31, 7)).toBe(255)
  for (let devfn = 0; devfn < 256; devfn++) {
    const { slot, function: fn } = unpackDevfn(devfn)
    expect(packDevfn(slot, fn)).toBe(devfn)
  }
})

test.each([
  [32, 0, 'slot'],
  [-1, 0, 'slot'],
  [0, 8, 'function'],
  [0, 0.5, 'function'],
])('%d.%d is refused', (slot, fn, path) => {
  expect(() => packDevfn(slot, fn)).toThrow(expect.objectContaining({ code: 'ARGUMENT', path }))
  expect(() => unpackDevfn(256)).toThrow(expect.objectContaining({ path: 'devfn' }))
})
