import { PassThrough } from 'node:stream'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { expect, test } from 'vitest'
import { followTraffic, type Traffic, trafficOf, trafficText } from './traffic.js'

test('bytes, rate and connections', () => {
  expect(trafficText({ sent: 0, received: 0 }, 0)).toBe('0 B sent, 0 B received, 0 B/s')
  expect(trafficText({ sent: 1536, received: 1023, connections: 1 }, 5120)).toBe(
    '1 connection, 1.5 KiB sent, 1023 B received, 5.0 KiB/s',
  )
  expect(trafficText({ sent: 200 * 2 ** 20, received: 3 * 2 ** 40, connections: 0 }, 200 * 2 ** 20)).toBe(
    '0 connections, 200 MiB sent, 3.0 TiB received, 200 MiB/s',
  )
})

test('the counters of a socket', () => {
  expect(trafficOf(Object.assign(new PassThrough(), { bytesRead: 1, bytesWritten: 2 }))).toEqual({ sent: 2, received: 1 })
  expect(trafficOf(new PassThrough())).toBeUndefined()
})

test('followed as often as it is seen, until the end', () => {
  const clock = new ManualClock()
  const said: [string, object | undefined][] = []
  const progress = (everyMs: number | undefined) => ({
    everyMs,
    update: (text: string, value?: object) => said.push([text, value]),
    [Symbol.dispose]() {},
  })
  let traffic: Traffic = { sent: 0, received: 0 }
  const following = followTraffic(() => traffic, 'a', progress(250), clock)
  const unseen = followTraffic(() => traffic, 'b', progress(undefined), clock)
  const without = followTraffic(() => undefined, 'c', progress(250), clock)
  clock.advance(249)
  expect(said).toEqual([])
  traffic = { sent: 1024, received: 512 }
  clock.advance(1)
  clock.advance(250)
  expect(said).toEqual([
    ['a: 1.0 KiB sent, 512 B received, 6.0 KiB/s', { subject: 'a', sent: 1024, received: 512, bytesPerSecond: 6144 }],
    ['a: 1.0 KiB sent, 512 B received, 0 B/s', { subject: 'a', sent: 1024, received: 512, bytesPerSecond: 0 }],
  ])
  for (const each of [following, unseen, without]) each[Symbol.dispose]()
  clock.advance(1000)
  expect(said).toHaveLength(2)
})
