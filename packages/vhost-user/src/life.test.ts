import { once } from 'node:events'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { openDescriptors } from '../testing/addon.js'
import { GUEST_BASE } from '../testing/fake-guest.js'
import { binding, cleanups, connected, deviceAt, folder, heard, path, running, say } from '../testing/scene.js'
import { EventDescriptor } from './front-end/event.js'
import { Op } from './machine/packet.js'
import { createVsockDevice, VhostUserVsock } from './vhost-user-vsock.js'

describe.runIf(binding !== undefined)('the life of a device', () => {
  describe('stop, cont, reset', () => {
    test('a paused VM keeps its connections', async () => {
      const { device, vmm } = await running()
      const { stream, request } = await connected(device, vmm)
      const stopped = once(device, 'stopped')
      const bases = await vmm.stop()
      expect((await stopped)[0]).toMatchObject({ reason: 'paused' })
      stream.write('while paused')
      await vmm.sync()
      expect(vmm.guest.received()).toEqual([])
      await vmm.start(bases)
      expect(device.state).toBe('running')
      const [packet] = await heard(vmm)
      expect(Buffer.from(packet!.payload).toString()).toBe('while paused')
      say(vmm, request, Op.RW, {}, Buffer.from('back'))
      expect(String((await once(stream, 'data'))[0])).toBe('back')
    })

    test('a guest that is reset loses them', async () => {
      const { device, vmm } = await running()
      const { stream } = await connected(device, vmm)
      const failed = once(stream, 'error')
      const reset = once(device, 'reset')
      await vmm.stop()
      vmm.guest.memoryBytes.fill(0)
      await vmm.start()
      expect((await reset)[0]).toEqual({ connections: 1 })
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      expect(device.state).toBe('running')
    })

    test('SET_MEM_TABLE and SET_VRING_CALL under running rings lose nothing', async () => {
      const { device, vmm } = await running({ clock: new ManualClock() })
      const { stream, request } = await connected(device, vmm)
      for (let i = 0; i < 20; i++) {
        await vmm.setMemory({ needReply: i % 2 === 0 })
        vmm.calls[0] = new EventDescriptor(binding!)
        vmm.setEvent('SET_VRING_CALL', 0, vmm.calls[0])
        await vmm.sync()
        vmm.guest.rx.usedEvent = vmm.guest.rx.usedIndex
        const interrupted = vmm.interrupt(0)
        stream.write(`${i}`)
        await interrupted
        expect(Buffer.from((await heard(vmm))[0]!.payload).toString()).toBe(`${i}`)
        say(vmm, request, Op.RW, {}, Buffer.from(`${i}`))
        expect(String((await once(stream, 'data'))[0])).toBe(`${i}`)
      }
    })
  })

  test('an owner who knows of a reset need not wait for the new driver', async () => {
    // With this clock no timer ever ends, so that none brings the news.
    const { device, vmm } = await running({ clock: { now: () => 0, setTimer: () => () => {} } })
    const { stream } = await connected(device, vmm)
    const failed = once(stream, 'error')
    await vmm.stop()
    await vmm.sync()
    expect(device.resetConnections()).toBe(1)
    expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
    expect(device.resetConnections()).toBe(0)
    await device.close()
    expect(device.resetConnections()).toBe(0)
  })

  test('what came while a ring had no call descriptor is told when it has one', async () => {
    const { device, vmm } = await running()
    const { stream } = await connected(device, vmm)
    const bases = await vmm.stop()
    stream.write('while paused')
    vmm.calls[0]!.drain()
    await vmm.setMemory()
    // QEMU says whom to call both before it enables the rings and afterwards; another front end may do the latter alone.
    for (const ring of [0, 1]) vmm.startRing(ring, bases[ring], { call: false })
    for (const ring of [0, 1]) vmm.send({ request: 'SET_VRING_ENABLE', ring, value: 1 })
    await vmm.sync()
    const told = vmm.interrupt(0)
    vmm.setEvent('SET_VRING_CALL', 0, vmm.calls[0]!)
    await told
    expect(Buffer.from((await heard(vmm))[0]!.payload).toString()).toBe('while paused')
  })

  describe('interrupts for used transmit buffers', () => {
    test('are put off by 10 ms, and come all the same', async () => {
      const clock = new ManualClock()
      const { device, vmm } = await running({ clock })
      const { request } = await connected(device, vmm)
      await vmm.sync()
      let recoveries = 0
      device.on('recovery', () => recoveries++)
      const { tx } = vmm.guest
      tx.takeUsed()
      tx.usedEvent = tx.usedIndex
      let told = false
      const interrupted = vmm.interrupt(1).then(() => {
        told = true
      })
      const before = tx.usedIndex
      say(vmm, request, Op.RW, {}, Buffer.from('x'))
      // A message of the VMM's would bring the interrupt at once, so none is sent.
      while (tx.usedIndex === before) await turn()
      clock.advance(9)
      for (let i = 0; i < 10; i++) await turn()
      expect(told).toBe(false)
      clock.advance(1)
      await interrupted
      expect(tx.takeUsed().length).toBeGreaterThan(0)
      expect(recoveries).toBe(0)
    })

    test('come before the ring is stopped', async () => {
      const clock = { now: () => 0, setTimer: () => () => {} }
      const { device, vmm } = await running({ clock })
      const { request } = await connected(device, vmm)
      await vmm.sync()
      vmm.guest.tx.usedEvent = vmm.guest.tx.usedIndex
      const told = vmm.interrupt(1)
      say(vmm, request, Op.CREDIT_UPDATE)
      // With this clock no timer ever ends.
      while (vmm.guest.tx.usedIndex === vmm.guest.tx.view.getUint16(vmm.guest.tx.availAt + 4 + 2 * vmm.guest.tx.size, true))
        await turn()
      await vmm.stop()
      await told
    })
  })

  describe('a hostile guest', () => {
    test('stops its own device and no other; the VMM is told; a new driver starts it again', async () => {
      const { device, vmm } = await running()
      const { stream } = await connected(device, vmm)
      const other = await running({ socketPath: join(folder, 'other.sock') })
      const failed = once(stream, 'error')
      const stopped = once(device, 'stopped')
      const told = vmm.errors[1]!.next()
      vmm.guest.tx.setDescriptor(0, { address: 0, length: 0xffff_ffff, flags: 0, next: 0 })
      vmm.guest.tx.offer(0)
      vmm.kick(1)
      expect((await stopped)[0]).toMatchObject({ reason: 'fault', error: { code: 'OUT_OF_BOUNDS' } })
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      await told
      expect(device.fault).toMatchObject({ name: 'DeviceError' })
      await expect(device.connect(1)).rejects.toMatchObject({ code: 'ENETDOWN' })
      await connected(other.device, other.vmm)

      // Its rings are as bad as before: restart() finds that out, and nothing worse.
      device.restart()
      await vmm.sync()
      expect(device.state).toBe('faulted')

      await vmm.stop()
      vmm.guest.memoryBytes.fill(0)
      await vmm.start()
      expect([device.state, device.fault]).toEqual(['running', undefined])
    })

    test('that broke the rule with its first packet leaves the rings to its successor all the same', async () => {
      const { device, vmm } = await running()
      const { tx } = vmm.guest
      const stopped = once(device, 'stopped')
      tx.offer(9_999)
      vmm.kick(1)
      await stopped
      // Where it stopped is where a new driver begins, so that nothing tells the two apart.
      expect(await vmm.stop()).toEqual([0, 0])
      expect(device.state).toBe('faulted')
      tx.setDescriptor(0, { address: GUEST_BASE + 0x8_0000, length: 44, flags: 0, next: 0 })
      tx.view.setUint16(tx.availAt + 4, 0, true)
      await vmm.start()
      expect([device.state, device.fault]).toEqual(['running', undefined])
      await connected(device, vmm)
    })

    test('gets back what it gave before it broke the rule, and is told; restart() goes on after that', async () => {
      const { device, vmm } = await running()
      const { request } = await connected(device, vmm)
      await vmm.sync()
      vmm.guest.tx.takeUsed()
      vmm.guest.tx.usedEvent = vmm.guest.tx.usedIndex
      const stopped = once(device, 'stopped')
      const told = vmm.interrupt(1)
      vmm.guest.send({ op: Op.CREDIT_UPDATE, sourcePort: 5000, destinationPort: request.header.sourcePort })
      const bad = vmm.guest.tx.add([{ address: 0, length: 100, writable: false }])
      vmm.kick(1)
      await stopped
      await told
      expect(vmm.guest.tx.takeUsed()).toHaveLength(1)
      // Mended, it is taken like any other.
      vmm.guest.tx.setDescriptor(bad, { address: GUEST_BASE, length: 44, flags: 0, next: 0 })
      device.restart()
      expect(device.state).toBe('running')
      expect(vmm.guest.tx.takeUsed()).toEqual([{ head: bad, written: 0 }])
      await connected(device, vmm)
    })

    test('kicks without end do not keep others from their turn', async () => {
      const { vmm } = await running()
      let turns = 0
      for (let i = 0; i < 200; i++) {
        for (let n = 0; n < 10; n++) vmm.guest.send({ op: Op.RW, sourcePort: n, destinationPort: 2 })
        vmm.kick(1)
        await turn()
        turns++
        vmm.guest.tx.takeUsed()
        vmm.guest.received()
        vmm.guest.supply(20)
      }
      expect(turns).toBe(200)
    })
  })

  describe('ends', () => {
    test('close() cuts connections, removes the socket file, and is twice once', async () => {
      const { device, vmm } = await running()
      const { stream } = await connected(device, vmm)
      const failed = once(stream, 'error')
      await Promise.all([device.close(), device.close()])
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      expect([device.state, existsSync(path)]).toEqual(['closed', false])
      await vmm.hungUp()
      await expect(device.listen()).rejects.toMatchObject({ code: 'ABORTED' })
    })

    test('nothing is left behind', async () => {
      const turnOver = async () => {
        const { device, vmm } = await running()
        await connected(device, vmm)
        await vmm.setMemory()
        for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
        await device.close()
      }
      await turnOver()
      const before = await openDescriptors()
      for (let i = 0; i < 20; i++) await turnOver()
      expect(await openDescriptors()).toBe(before)
    })

    test("a path in use is refused, a dead process's is taken over, something else is left alone", async () => {
      await deviceAt()
      await expect(createVsockDevice({ socketPath: path, guestCid: 3 })).rejects.toMatchObject({ code: 'EADDRINUSE' })
      const dead = join(folder, 'dead.sock')
      const descriptor = binding!.socket(binding!.AF_UNIX)
      binding!.bind(descriptor, Buffer.concat([Buffer.from([1, 0]), Buffer.from(`${dead}\0`)]))
      binding!.close(descriptor)
      const taken = await createVsockDevice({ socketPath: dead, guestCid: 3 })
      await taken.close()
      const file = join(folder, 'file')
      writeFileSync(file, '')
      await expect(createVsockDevice({ socketPath: file, guestCid: 3 })).rejects.toMatchObject({ code: 'EADDRINUSE' })
    })

    test('bad options are refused', () => {
      const good = { socketPath: path, guestCid: 3 }
      for (const bad of [
        { guestCid: 2 },
        { guestCid: 2 ** 32 - 1 },
        { maxConnections: 1024 },
        { bufferBytes: 1 },
        { lingerMs: 0 },
      ]) {
        expect(() => new VhostUserVsock({ ...good, ...bad })).toThrow(RangeError)
      }
    })
  })
})
