import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { followTraffic, trafficText } from './traffic.js'

test('bytes and rate', () => {
  const none = { bytesRead: 0, bytesWritten: 0 }
  expect(trafficText(none, none, 0)).toBe('0 B sent, 0 B received, 0 B/s')
  expect(trafficText({ bytesRead: 1023, bytesWritten: 1536 }, none, 500)).toBe('1.5 KiB sent, 1023 B received, 5.0 KiB/s')
  expect(
    trafficText({ bytesRead: 3 * 2 ** 40, bytesWritten: 200 * 2 ** 20 }, { bytesRead: 3 * 2 ** 40, bytesWritten: 0 }, 1000),
  ).toBe('200 MiB sent, 3.0 TiB received, 200 MiB/s')
})

test('a socket is followed until the end, and a stream without counters says nothing', async () => {
  const said: string[] = []
  const progress = { update: (text: string) => said.push(text), [Symbol.dispose]() {} }
  const plain = followTraffic(new PassThrough(), 'b', progress)
  const following = followTraffic(Object.assign(new PassThrough(), { bytesRead: 1, bytesWritten: 2 }), 'a', progress)
  await expect.poll(() => said.length).toBeGreaterThan(0)
  following[Symbol.dispose]()
  plain[Symbol.dispose]()
  expect(said[0]).toBe('a: 2 B sent, 1 B received, 0 B/s')
  expect(said.some((text) => text.startsWith('b'))).toBe(false)
})
