import { formatEndpoint } from '@upcall/vsock'
import { expect, test } from 'vitest'
import { parseStreamEndpoint } from './endpoint.js'

test.each([
  ['tcp:8080', 'tcp://127.0.0.1:8080'],
  ['tcp::8080', 'tcp://127.0.0.1:8080'],
  ['tcp://localhost:1', 'tcp://localhost:1'],
  ['tcp:0.0.0.0:65535', 'tcp://0.0.0.0:65535'],
  ['tcp:[::1]:80', 'tcp://[::1]:80'],
  ['tcp://db.internal:any', 'tcp://db.internal:0'],
  ['tcp:0', 'tcp://127.0.0.1:0'],
  ['unix:/run/x', 'unix:/run/x'],
  ['hvsock:///run/vm.sock', 'hvsock:///run/vm.sock:219'],
  ['hvsock:///run/vm.sock:80', 'hvsock:///run/vm.sock:80'],
  ['vsock://any:any', 'vsock://any:any'],
  ['vsock://3', 'vsock://3:219'],
])('%s is %s, which reads back', (text, formatted) => {
  const endpoint = parseStreamEndpoint(text, '<from>')
  expect(formatEndpoint(endpoint)).toBe(formatted)
  expect(parseStreamEndpoint(formatted, '<from>')).toEqual(endpoint)
})

test.each([
  ['tcp:', /tcp:<host>:<port>/],
  ['tcp:host', /tcp:<host>:<port>/],
  ['tcp:host:65536', /1 to 65535/],
  ['tcp:host:-1', /1 to 65535/],
  ['tcp:host:080', /1 to 65535/],
  ['tcp:::1:80', /IPv6 host in brackets/],
  ['tcp:[host]:80', /IPv6 host in brackets/],
  ['tcp:a/b:80', /tcp:<host>:<port>/],
  ['http://x:80', /the form is unknown.*hvsock.*unix.*vsock.*tcp/],
  ['/run/x', /Did you mean "unix:\/run\/x"/],
  ['vsock://guest:1', /cid "guest"/],
])('%s is refused', (text, message) => {
  expect(() => parseStreamEndpoint(text, '<from>')).toThrow(message)
  expect(() => parseStreamEndpoint(text, '<from>')).toThrow(/^<from>: /)
})
