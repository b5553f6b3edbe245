import { expect, test } from 'vitest'
import { connect } from '../connect.js'
import { type EndpointInit, formatEndpoint, parseEndpoint, toEndpoint } from './endpoint.js'

test.each([
  ['tcp:8080', 'tcp://127.0.0.1:8080'],
  ['tcp::8080', 'tcp://127.0.0.1:8080'],
  ['tcp://localhost:1', 'tcp://localhost:1'],
  ['tcp:[::1]:80', 'tcp://[::1]:80'],
  ['tcp://db.internal:any', 'tcp://db.internal:0'],
  ['unix:/run/x', 'unix:/run/x'],
  ['hvsock:///run/vm.sock:80', 'hvsock:///run/vm.sock:80'],
  ['vsock://any:any', 'vsock://any:any'],
])('%s is %s, which reads back', (text, formatted) => {
  const endpoint = parseEndpoint(text)
  expect(formatEndpoint(endpoint)).toBe(formatted)
  expect(parseEndpoint(formatted)).toEqual(endpoint)
  expect(toEndpoint(endpoint)).toEqual(endpoint)
})

test.each<[EndpointInit, string]>([
  [{ port: 80 }, 'tcp://127.0.0.1:80'],
  [{ host: '::1', port: 0 }, 'tcp://[::1]:0'],
  [{ transport: 'unix', path: '/run/x' }, 'unix:/run/x'],
])('%o is %s', (given, formatted) => expect(formatEndpoint(toEndpoint(given))).toBe(formatted))

test.each([
  ['tcp:', /not a tcp address/],
  ['tcp:host:65536', /1 to 65535/],
  ['tcp:::1:80', /IPv6 host in brackets/],
  ['http://x:80', /the form is unknown.*hvsock.*unix.*vsock.*tcp/],
  ['/run/x', /Did you mean "unix:\/run\/x"/],
  ['vsock://3', /there is no port/],
  [7, /must be text or an object, got 7/],
  [undefined, /must be text or an object, got undefined/],
  [{}, /port: must be an integer from 0 to 65535, got undefined/],
  [{ port: 65_536 }, /port: must be an integer from 0 to 65535/],
  [{ host: '', port: 1 }, /the host .* is not allowed/],
  [{ transport: 'udp', port: 1 }, /the transport is unknown/],
])('%o is refused', (given, message) => expect(() => toEndpoint(given as EndpointInit)).toThrow(message))

test('connect does not take tcp', async () => {
  await expect(connect('tcp:80')).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
})
