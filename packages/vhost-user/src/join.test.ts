import { Duplex, PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Leavers } from './join.js'

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
  const spoken = async (leavers: Leavers) => {
    const guest = new PassThrough()
    const { host, take } = slowHost()
    leavers.join(guest, host)
    for (let i = 0; i < 3; i++) guest.write(Buffer.alloc(100))
    await turn()
    guest.destroy(new Error('reset'))
    await turn()
    return { host, take }
  }

  test('a host that takes its last words slowly gets them all', async () => {
    const { host, take } = await spoken(new Leavers(2))
    for (let i = 0; i < 3; i++) {
      expect(host.destroyed).toBe(false)
      take()
      await turn()
    }
    expect([host.destroyed, host.writableFinished, host.errored?.message]).toEqual([true, false, 'reset'])
  })

  test('of hosts that take nothing so many are kept, and the oldest is let go of', async () => {
    const leavers = new Leavers(2)
    const hosts: Duplex[] = []
    for (let i = 0; i < 5; i++) hosts.push((await spoken(leavers)).host)
    expect(hosts.map(({ destroyed }) => destroyed)).toEqual([true, true, true, false, false])
  })
})
