import { channel } from 'node:diagnostics_channel'
import { printed } from '@upcall/foundation/testing/printed'
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { answering, service } from '../testing/toy-guest.js'
import { type ClientTrace, UpcallClient } from './index.js'

vi.mock('node:util', async (original) => (await import('@upcall/foundation/testing/printed')).catchDebug(original))
beforeEach(() => void printed.splice(0))

function faultOfTheService(): never {
  throw new TypeError('broken')
}

const dial = async () => answering()

/** What goes in with `>`, what comes out with `<`, and the states. */
function short(message: ClientTrace): string {
  if ('event' in message) return `> ${message.event.type}`
  if ('effect' in message) return `< ${message.effect.type}`
  return 'kind' in message ? `${message.previous} → ${message.kind}` : 'error'
}

const EXPECTED = `> request, > wake, < dial, Due → Dialing, > dialFailed, < reconnect, Dialing → Due, < dial, Due → Dialing,
> dialed, < write, Dialing → Greeting, < state, > bytes, < state, Greeting → Busy, < write, > bytes, < state, Busy → Ready, < reply,
< state, > close, < drop, Ready → Closed, < state, > ended`.split(/,\s/)

test.each(['checkGreeting', 'encode', 'decode', 'failed', 'replyTimeoutMs', 'needsCleanChannel', 'describe'])(
  'a fault of the service in %s is printed with its stack',
  async (name) => {
    const client = new UpcallClient({ service: { ...service, [name]: faultOfTheService }, dial, reconnect: false })
    await expect(client.request('x')).rejects.toThrow()
    await client.close()
    expect(printed.filter((line) => /^upcall-client: .*TypeError: broken\s+at .*faultOfTheService/s.test(line))).not.toEqual([])
  },
)

test('each attempt and each failure is printed and published', async () => {
  const published: ClientTrace[] = []
  const listen = (message: unknown) => void published.push(message as ClientTrace)
  channel('upcall:client').subscribe(listen)
  onTestFinished(() => void channel('upcall:client').unsubscribe(listen))
  let attempts = 0
  const client = new UpcallClient({
    service,
    remote: 'vm 7',
    dial: () => (++attempts === 1 ? Promise.reject(new Error('no guest')) : dial()),
  })
  await client.request('x')
  await client.close()
  expect(published.map(short)).toEqual(EXPECTED)
  for (const message of published) expect(message).toMatchObject({ client, remote: 'vm 7' })
  expect(printed).toHaveLength(published.length)
  expect(printed).toContainEqual(expect.stringMatching(/^upcall-client: vm 7: { type: 'dial', conn: 1 }/))
  expect(printed).toContainEqual(expect.stringMatching(/^upcall-client: vm 7: .*'dial-failed'.*no guest/s))
})
