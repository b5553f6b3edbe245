import { expect, test } from 'vitest'
import { Guard, newToken } from './guard.js'

const token = newToken()
const guard = new Guard(token, ['127.0.0.1:8080', 'localhost:8080'])
const url = `/${token}/api/vm/reconcile`

function statusOf(asked: { method?: string; url?: string; headers?: Record<string, string> }): number {
  try {
    guard.check({ method: 'GET', url, ...asked, headers: { host: '127.0.0.1:8080', ...asked.headers } })
    return 200
  } catch (error) {
    return (error as { status: number }).status
  }
}

test('tokens differ, and have no character that a URL would change', () => {
  const tokens = new Set(Array.from({ length: 100 }, newToken))
  expect(tokens.size).toBe(100)
  for (const each of tokens) expect(each).toMatch(/^[\w-]{32}$/)
})

test.each(['/', '', '/x', `/${token.slice(1)}/`, `/${token}x/`, `//${token}/`, `/x/${token}/`, `/?${token}`, `/${token}%2f`])(
  'a path without the token is not there: %s',
  (wrong) => expect(statusOf({ url: wrong })).toBe(404),
)

test.each([`/${token}`, `/${token}/`, `/${token}?x`, `/${token}/events`])('%s is let through', (right) =>
  expect(statusOf({ url: right })).toBe(200),
)

test.each(['evil.example:8080', '127.0.0.1', '127.0.0.1:8081', 'localhost', ''])('Host %j is another server', (host) =>
  expect(statusOf({ headers: { host } })).toBe(421),
)

test('a host is written in any case', () => expect(statusOf({ headers: { host: 'LOCALHOST:8080' } })).toBe(200))

test.each([
  ['PUT', { origin: 'http://evil.example' }, 403],
  ['DELETE', { origin: 'https://127.0.0.1:8080' }, 403],
  ['POST', { origin: 'null' }, 403],
  ['POST', { 'sec-fetch-site': 'cross-site' }, 403],
  ['POST', { 'sec-fetch-site': 'same-site' }, 403],
  ['POST', { origin: 'http://127.0.0.1:8080', 'sec-fetch-site': 'same-origin' }, 200],
  ['POST', {}, 200],
  ['GET', { origin: 'http://evil.example', 'sec-fetch-site': 'cross-site' }, 200],
])('%s with %j: %d', (method, headers, status) => expect(statusOf({ method, headers })).toBe(status))
