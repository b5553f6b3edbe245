import { Duplex, PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { type Guest, HostStreams } from './join.js'

/** A host that takes a write only when told to. */
function slowHost(): { host: Duplex; take: () => void } {
  const waiting: (() => void)[] = []
  const host = new Duplex({
    read() {},
    write(_chunk, _encoding, done) {
      waiting.push(done)
    },
  })
  return { host, take: () => waiting.shift()?.() }
}

describe('a guest is gone', () => {
  const spoken = async (streams: HostStreams) => {
    const guest = new PassThrough()
    const { host, take } = slowHost()
    streams.join(guest, host)
    for (let i = 0; i < 3; i++) guest.write(Buffer.alloc(100))
    await turn()
    guest.destroy(new Error('reset'))
    await turn()
    return { host, take }
  }

  test('a host that takes the last bytes slowly gets them all', async () => {
    const { host, take } = await spoken(new HostStreams(2))
    for (let i = 0; i < 3; i++) {
      expect(host.destroyed).toBe(false)
      take()
      await turn()
    }
    expect([host.destroyed, host.writableFinished, host.errored?.message]).toEqual([true, false, 'reset'])
  })

  test('of hosts that take nothing at most max are kept: the oldest is broken off', async () => {
    const streams = new HostStreams(2)
    const hosts: Duplex[] = []
    for (let i = 0; i < 5; i++) hosts.push((await spoken(streams)).host)
    expect(hosts.map(({ destroyed }) => destroyed)).toEqual([true, true, true, false, false])
  })

  test('so many are kept also if all guests go in one turn', async () => {
    const streams = new HostStreams(2)
    const pairs = Array.from({ length: 5 }, () => ({ guest: new PassThrough() as Guest, host: slowHost().host }))
    for (const { guest, host } of pairs) streams.join(guest, host)
    for (const { guest } of pairs) guest.onGone?.()
    expect(pairs.map(({ host }) => host.destroyed)).toEqual([true, true, true, false, false])
  })
})
