import { Duplex } from 'node:stream'
import { expect, test, vi } from 'vitest'
import { type Service, UpcallClient } from './index.js'

// NODE_DEBUG is read when Node starts: what would be printed is caught here.
const printed = vi.hoisted(() => [] as string[])
vi.mock('node:util', async (original) => {
  const util = await original<typeof import('node:util')>()
  return {
    ...util,
    debuglog:
      (section: string) =>
      (text: string, ...values: unknown[]) =>
        void printed.push(`${section}: ${util.format(text, ...values)}`),
  }
})

function faultOfTheService(): never {
  throw new TypeError('broken')
}

const service: Service<string, string> = {
  byte: 0x78,
  messageSize: 4,
  checkGreeting() {},
  encode: (_request, into) => into,
  decode: () => 'reply',
  failed: () => false,
  replyTimeoutMs: () => 1_000,
}

test.each(['checkGreeting', 'encode', 'decode', 'failed', 'replyTimeoutMs', 'needsCleanChannel', 'describe'])(
  'a fault of the service in %s is printed with its stack',
  async (name) => {
    printed.length = 0
    const dial = async () => {
      const stream: Duplex = new Duplex({
        read() {},
        write(_chunk, _encoding, done) {
          done()
          stream.push(new Uint8Array(4))
        },
      })
      return stream
    }
    const client = new UpcallClient({ service: { ...service, [name]: faultOfTheService }, dial, reconnect: false })
    await expect(client.request('x')).rejects.toThrow()
    await client.close()
    expect(printed.filter((line) => /^upcall: .*TypeError: broken\s+at .*faultOfTheService/s.test(line))).not.toEqual([])
  },
)
