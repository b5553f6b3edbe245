import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { binding, cleanups, connected, deviceAt, frontEnd, path, say } from '../testing/scene.js'
import { Op } from './machine/packet.js'

describe.runIf(binding !== undefined)('the diagnostics channel upcall:vhost-user', () => {
  test('shows what becomes of a device and its connections, and no packets', async () => {
    const seen: Record<string, unknown>[] = []
    const listener = (message: unknown) => void seen.push(message as Record<string, unknown>)
    subscribe('upcall:vhost-user', listener)
    cleanups.push(() => unsubscribe('upcall:vhost-user', listener))
    // The device's own looks at the rings depend on time; on a busy machine they would be seen, too.
    const device = await deviceAt({ clock: new ManualClock() })
    const vmm = await frontEnd()
    vmm.guest.supply(60)
    await vmm.start()
    const { stream, request } = await connected(device, vmm)
    stream.write('bytes')
    say(vmm, request, Op.RW, {}, Buffer.from('bytes'))
    await once(stream, 'data')
    const closed = new Promise((resolve) => stream.once('close', resolve))
    say(vmm, request, Op.RST)
    await closed
    const gone = once(device, 'stopped')
    vmm.close()
    await gone
    await device.close()
    const socketPath = path
    const { hostPort } = stream
    expect(seen).toMatchObject([
      { type: 'listening', socketPath },
      { type: 'attached', socketPath },
      { type: 'state', state: 'attached', previous: 'waiting' },
      { type: 'state', state: 'running', previous: 'attached' },
      { type: 'connection-ended', guestPort: 5000, hostPort, outcome: 'reset' },
      { type: 'detached', socketPath, error: undefined },
      { type: 'state', state: 'waiting', previous: 'running', reason: 'disconnected' },
      { type: 'state', state: 'closed', previous: 'waiting', reason: 'closed' },
    ])
  })
})
