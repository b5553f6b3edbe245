import { channel } from 'node:diagnostics_channel'
import { printed } from '@upcall/foundation/testing/printed'
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { answering, service } from '../testing/toy-guest.js'
import { UpcallClient } from './index.js'

vi.mock('node:util', async (original) => (await import('@upcall/foundation/testing/printed')).catchDebug(original))
beforeEach(() => void printed.splice(0))

function faultOfTheService(): never {
  throw new TypeError('broken')
}

const dial = async () => answering()

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
  const published: unknown[] = []
  const listen = (message: unknown) => void published.push(message)
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
  const types = ['dial', 'reconnect', 'dial', 'write', 'state', 'state', 'write', 'state', 'reply', 'state', 'drop', 'state']
  expect(published).toEqual(types.map((type) => ({ client, remote: 'vm 7', effect: expect.objectContaining({ type }) })))
  expect(printed).toHaveLength(types.length)
  expect(printed[0]).toMatch(/^upcall-client: vm 7: { type: 'dial', conn: 1 }/)
  expect(printed[1]).toMatch(/^upcall-client: vm 7: .*'dial-failed'.*no guest/s)
})
