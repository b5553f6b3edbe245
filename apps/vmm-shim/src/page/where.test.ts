import { expect, test } from 'vitest'
import { hostNames, hostText, parsePageAddress } from './where.js'

test.each([
  ['8080', '127.0.0.1', 8080],
  ['127.0.0.1:0', '127.0.0.1', 0],
  ['127.0.0.2:65535', '127.0.0.2', 65_535],
  ['LocalHost:80', '127.0.0.1', 80],
  ['[::1]:8080', '::1', 8080],
])('%s', (text, host, port) => expect(parsePageAddress(text)).toEqual({ host, port }))

test.each(['', ':', 'x', '127.0.0.1', '127.0.0.1:', '127.0.0.1:65536', '127.0.0.1:-1', '127.0.0.1:8o', '1:2:3'])(
  '%j is not an address',
  (text) => expect(() => parsePageAddress(text)).toThrow('Write <address>:<port>, such as 127.0.0.1:8080.'),
)

test.each([
  '0.0.0.0:80',
  '192.168.1.2:80',
  '[::]:80',
  '[fe80::1]:80',
  'example.org:80',
  '127.999.1.1:80',
  '127.0.0.1.example.org:80',
])('%s is not for this machine alone', (text) =>
  expect(() => parsePageAddress(text)).toThrow('The page is for this machine alone'),
)

test('the names of a server: with the port, and without that of HTTP', () => {
  expect(hostText({ host: '::1', port: 81 })).toBe('[::1]:81')
  expect(hostNames({ host: '127.0.0.1', port: 8080 })).toEqual(['127.0.0.1:8080', 'localhost:8080'])
  expect(hostNames({ host: '::1', port: 80 })).toEqual(['[::1]:80', 'localhost:80', '[::1]', 'localhost'])
})
