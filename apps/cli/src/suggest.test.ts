import { expect, test } from 'vitest'
import { parseEndpoint } from './options.js'
import { didYouMean, meantAddress, meantOr, nearest } from './suggest.js'

test.each([
  ['stauts', ['status', 'serve'], ['status']],
  ['x86', ['x86_64', 'aarch64'], []],
  ['x86-64', ['x86_64', 'aarch64'], ['x86_64']],
  ['AARCH64', ['x86_64', 'aarch64'], ['aarch64']],
  ['ad', ['add', 'remove'], ['add']],
  ['rat', ['cat', 'bat', 'cart'], ['cat', 'bat']],
  ['forwarb', ['forward', 'forwarc', 'connect'], ['forward', 'forwarc']],
  ['x'.repeat(100_000), ['x'], []],
  ['', ['a', 'bcd'], []],
])('%s of %j', (word, candidates, expected) => {
  expect(nearest(word, candidates)).toEqual(expected)
})

test('what is said', () => {
  expect(didYouMean([])).toBeUndefined()
  expect(didYouMean(['add'])).toBe('Did you mean "add"?')
  expect(didYouMean(['a', 'b'])).toBe('Did you mean "a" or "b"?')
})

test.each([
  ['hx', ['hex', 'raw'], 'Did you mean "hex"? Write one.'],
  ['rat', ['cat', 'bat', 'cart'], 'Did you mean "cat" or "bat"? Write one.'],
  ['6.13', ['5.10', '6.1', '6.12', '6.18'], 'Write one.'],
  ['zzz', ['hex'], 'Write one.'],
])('%s of %j, or the list', (word, candidates, said) => {
  expect(meantOr(word, candidates, 'Write one.')).toBe(said)
})

test.each([
  ['hvsok:///run/vm.sock:219', 'hvsock:///run/vm.sock:219'],
  ['hvsock:/run/vm.sock', 'hvsock:///run/vm.sock'],
  ['vsok://3:219', 'vsock://3:219'],
  ['vsock:3:219', 'vsock://3:219'],
  ['vsock:///3:219', 'vsock://3:219'],
  ['unx:/run/x', 'unix:/run/x'],
  ['unix:/run/x', undefined],
  ['vsok://three', undefined],
  ['ftp://x', undefined],
  ['/run/x', undefined],
  ['', undefined],
])('%s was meant as %s', (text, meant) => {
  expect(
    meantAddress(text, (address) => {
      try {
        return parseEndpoint(address, 'a test') !== undefined
      } catch {
        return false
      }
    }),
  ).toBe(meant)
})
