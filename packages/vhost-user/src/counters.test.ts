import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { binding, cleanups, connected, frontEnd, heard, running, say } from '../testing/scene.js'
import { Op } from './machine/packet.js'
import type { DeviceCounters } from './machine/tally.js'

const NOTHING = { packets: 0, bytes: 0 }

describe.runIf(binding !== undefined)('the counters of a device', () => {
  test('are all 0 before anything moves', async () => {
    // The device's own looks at the rings depend on time.
    const { device } = await running({ clock: new ManualClock() })
    expect(device.counters).toMatchObject({ fromGuest: NOTHING, toGuest: NOTHING, connections: { fromGuest: 0, toGuest: 0 } })
    expect(device.counters).toMatchObject({ dropped: 0, creditStalls: 0 })
  })

  test('count packets, payload, connections, interrupts and kicks, over the VMMs of the device', async () => {
    const { device, vmm } = await running({ clock: new ManualClock() })
    const before = device.counters
    const { stream, request } = await connected(device, vmm)
    stream.write('seven..')
    await heard(vmm)
    say(vmm, request, Op.RW, {}, Buffer.from('five.'))
    await once(stream, 'data')
    const counted = device.counters
    // REQUEST and RW; RESPONSE and RW. (A copy: what was read before stays.)
    expect([counted.toGuest, counted.fromGuest]).toEqual([
      { packets: 2, bytes: 7 },
      { packets: 2, bytes: 5 },
    ])
    expect(before.toGuest.packets).toBe(0)
    expect(counted.connections).toEqual({ fromGuest: 0, toGuest: 1 })
    expect(counted.kicks - before.kicks).toBe(2)
    expect(counted.interrupts.rx).toBe(2)
    vmm.close()
    await once(device, 'stopped')
    const next = await frontEnd(device.socketPath)
    next.guest.supply(60)
    await next.start()
    await connected(device, next, 6000)
    expect(device.counters.connections.toGuest).toBe(2)
    expect(device.counters.toGuest).toEqual({ packets: counted.toGuest.packets + 1, bytes: 7 })
  })

  test('count the connections that the guest begins, and its packets that are not its own', async () => {
    const { device, vmm } = await running({ clock: new ManualClock() })
    vmm.guest.send({ op: Op.REQUEST, sourceCid: 43, sourcePort: 1, destinationPort: 2 })
    vmm.guest.send({ op: Op.REQUEST, sourcePort: 1, destinationPort: 2 })
    vmm.kick(1)
    await heard(vmm)
    expect(device.counters).toMatchObject({ dropped: 1, connections: { fromGuest: 1, toGuest: 0 } })
    expect(device.counters.fromGuest).toEqual({ packets: 2, bytes: 0 })
  })

  test('count a credit stall once, however often the guest is asked', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ clock })
    const connecting = device.connect(5000)
    const [request] = await heard(vmm)
    say(vmm, request!, Op.RESPONSE, { bufferAllocation: 4 })
    const stream = await connecting
    stream.on('error', () => {})
    stream.write('12345678')
    const asked = async () => {
      for (;;) if ((await heard(vmm)).some(({ header }) => header.op === Op.CREDIT_REQUEST)) return
    }
    await asked()
    expect(device.counters.creditStalls).toBe(1)
    clock.advance(10)
    await asked()
    expect(device.counters.creditStalls).toBe(1)
    say(vmm, request!, Op.CREDIT_UPDATE, { bufferAllocation: 4, forwardCount: 4 })
    await heard(vmm)
    stream.write('more')
    await asked()
    expect(device.counters.creditStalls).toBe(2)
  })

  test('are found by the channel: its messages have the device', async () => {
    const seen = new Set<unknown>()
    const listener = (message: unknown) => void seen.add((message as { device?: unknown }).device)
    subscribe('upcall:vhost-user', listener)
    cleanups.push(() => unsubscribe('upcall:vhost-user', listener))
    const { device } = await running({ clock: new ManualClock() })
    await device.close()
    expect([...seen]).toEqual([device])
    expect(device.counters satisfies DeviceCounters).toMatchObject({ kicks: expect.any(Number) })
  })
})
