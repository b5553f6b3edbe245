import type { ClientTrace } from '@upcall/client'
import { expect, test } from 'vitest'
import { type RequestOutcome, Requests } from './requests.js'

const client = {} as ClientTrace['client']
const about = { client, remote: 'guest' }

function following() {
  const ended: [string, RequestOutcome][] = []
  const written: string[] = []
  const requests = new Requests<object>(
    {
      begun: () => ({}),
      written: (_, { op }) => void written.push(op),
      ended: (_, { op }, { outcome }) => void ended.push([op, outcome]),
    },
    () => 0,
  )
  return { requests, ended, written }
}

const bytes = Uint8Array.of(1)
const ticket = { id: 1, request: { type: 'ADD_CPU' }, bytes, op: 'cpu.add 3', needsClean: false, replyTimeoutMs: 1, deadline: 1 }

test('a request ends once, and nothing of it is kept', () => {
  const { requests, ended } = following()
  requests.see({ ...about, event: { type: 'request', ticket } })
  for (const _ of [1, 2]) requests.see({ ...about, effect: { type: 'reply', id: 1, reply: {}, failed: false } })
  expect(ended).toEqual([['cpu.add', 'ok']])
})

test('the end of a request that began before is not counted', () => {
  const { requests, ended } = following()
  requests.see({ ...about, effect: { type: 'reply', id: 7, reply: {}, failed: true } })
  requests.see({ ...about, event: { type: 'request', ticket } })
  requests.see({ ...about, effect: { type: 'reply', id: 7, reply: {}, failed: true } })
  expect(ended).toEqual([])
})

test('the same id of another client is another request', () => {
  const { requests, ended } = following()
  requests.see({ ...about, event: { type: 'request', ticket } })
  requests.see({ ...about, client: {} as ClientTrace['client'], effect: { type: 'reply', id: 1, reply: {}, failed: false } })
  expect(ended).toEqual([])
})

test('a write is of the request whose bytes it has, and the byte of the service is of none', () => {
  const { requests, written } = following()
  requests.see({ ...about, event: { type: 'request', ticket } })
  requests.see({
    ...about,
    event: { type: 'request', ticket: { ...ticket, id: 2, op: 'pci.add 00:01.0', bytes: Uint8Array.of(1) } },
  })
  requests.see({ ...about, effect: { type: 'write', conn: 1, bytes: Uint8Array.of(0x64) } })
  requests.see({ ...about, effect: { type: 'write', conn: 1, bytes } })
  expect(written).toEqual(['cpu.add'])
})

test('where two requests have the same bytes, a write is of the first that waits', () => {
  const { requests, written } = following()
  requests.see({ ...about, event: { type: 'request', ticket } })
  requests.see({ ...about, event: { type: 'request', ticket: { ...ticket, id: 2, op: 'pci.add 00:01.0' } } })
  requests.see({ ...about, effect: { type: 'write', conn: 1, bytes } })
  expect(written).toEqual(['cpu.add'])
})
