import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { openDescriptors } from '../testing/addon.js'
import { GUEST_BASE, MEMORY_SIZE, USER_BASE } from '../testing/fake-guest.js'
import { binding, connected, deviceAt, frontEnd, heard, running, say } from '../testing/scene.js'
import { Op } from './machine/packet.js'

// Memory that comes and goes region by region, and resets that are told, on a real socket with real mappings.

/** Mappings of the fake guest's memory file: its own, and the device's. */
const mappings = () => readFileSync('/proc/self/maps', 'utf8').match(/memfd:/g)?.length ?? 0

/** The same file once more, elsewhere in the guest. */
const elsewhere = (index: number) => ({
  guestAddress: GUEST_BASE + (index + 1) * MEMORY_SIZE,
  userAddress: USER_BASE + (index + 1) * MEMORY_SIZE,
})

describe.runIf(binding !== undefined)('memory slots', () => {
  test('500 regions come and go under traffic: nothing is lost, nothing stays mapped or open', async () => {
    const { device, vmm } = await running({ clock: new ManualClock() })
    const told: string[] = []
    device.on('state', ({ state }) => told.push(state))
    const { stream, request } = await connected(device, vmm)
    const [open, mapped] = [await openDescriptors(), mappings()]
    for (let i = 0; i < 500; i++) {
      expect(await vmm.addRegion(elsewhere(i))).toBe(0n)
      if (i % 100 === 0) {
        stream.write(`${i}`)
        expect(Buffer.from((await heard(vmm))[0]!.payload).toString()).toBe(`${i}`)
        say(vmm, request, Op.RW, {}, Buffer.from('back'))
        expect(String((await once(stream, 'data'))[0])).toBe('back')
      }
    }
    expect(mappings()).toBe(mapped + 500)
    for (let i = 0; i < 500; i++) expect(await vmm.removeRegion(elsewhere(i))).toBe(0n)
    expect(told).toEqual([])
    expect([await openDescriptors(), mappings()]).toEqual([open, mapped])
  })

  test('the region of the rings goes and comes back: connections live', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ clock })
    const told: string[] = []
    device.on('state', ({ state }) => told.push(state))
    const { stream } = await connected(device, vmm)
    expect(await vmm.removeRegion()).toBe(0n)
    expect([device.state, device.fault]).toEqual(['attached', undefined])
    stream.write('meanwhile')
    // The guest kicks a ring that is not there.
    vmm.kick(1)
    expect(await vmm.addRegion()).toBe(0n)
    expect(Buffer.from((await heard(vmm))[0]!.payload).toString()).toBe('meanwhile')
    clock.advance(5_000)
    expect(told).toEqual(['attached', 'running'])
  })

  test('it stays away for a second: a fault is told, and connections end; restart() takes the rings up when it is back', async () => {
    const clock = new ManualClock()
    const { device, vmm } = await running({ clock })
    const { stream } = await connected(device, vmm)
    const failed = once(stream, 'error')
    await vmm.removeRegion()
    clock.advance(999)
    expect(device.state).toBe('attached')
    clock.advance(1)
    expect(device.state).toBe('faulted')
    expect(device.fault).toMatchObject({ what: 'the memory table is empty' })
    expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
    await vmm.addRegion()
    expect(device.state).toBe('faulted')
    device.restart()
    expect(device.state).toBe('running')
  })

  test('a region that cannot be mapped is refused, and told; the device goes on', async () => {
    const { device, vmm } = await running()
    const { stream } = await connected(device, vmm)
    const warning = once(device, 'warning')
    // Past the end of the file.
    expect(await vmm.addRegion({ ...elsewhere(0), fileOffset: 4096 })).toBe(1n)
    expect((await warning)[0]).toMatchObject({ code: 'EPROTO', cause: { code: 'MEMORY_TABLE' } })
    stream.write('still')
    expect(Buffer.from((await heard(vmm))[0]!.payload).toString()).toBe('still')
  })
})

describe.runIf(binding !== undefined)('RESET_DEVICE', () => {
  test('connections of the old driver end at once, once, and the next driver begins', async () => {
    const { device, vmm } = await running({ clock: new ManualClock() })
    const resets: unknown[] = []
    device.on('reset', (info) => resets.push(info))
    const { stream } = await connected(device, vmm)
    const failed = once(stream, 'error')
    await vmm.stop()
    vmm.send({ request: 'RESET_DEVICE' })
    await vmm.sync()
    expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
    expect(device.state).toBe('attached')
    vmm.send({ request: 'RESET_DEVICE' })
    vmm.reboot()
    vmm.guest.supply(60)
    await vmm.start()
    expect(device.state).toBe('running')
    expect(resets).toEqual([{ connections: 1 }])
    await connected(device, vmm)
  })

  test('at the beginning of a VM it is not told', async () => {
    const device = await deviceAt()
    const resets: unknown[] = []
    device.on('reset', (info) => resets.push(info))
    const vmm = await frontEnd()
    vmm.send({ request: 'RESET_DEVICE' })
    vmm.guest.supply(60)
    await vmm.start()
    await connected(device, vmm)
    expect(resets).toEqual([])
  })
})
