import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test } from 'vitest'
import { opName } from '../testing/fake-guest.js'
import { binding, cleanups, connected, heard, running, say } from '../testing/scene.js'
import type { Recovery } from './lookout.js'
import { Op } from './machine/packet.js'

async function scene() {
  const clock = new ManualClock()
  const { device, vmm } = await running({ clock })
  const recoveries: Recovery[] = []
  device.on('recovery', (recovery) => recoveries.push(recovery))
  const { stream, request } = await connected(device, vmm)
  await turn()
  const { rx, tx } = vmm.guest
  /** The guest has seen all, and waits. */
  const rest = () => {
    vmm.guest.received()
    tx.takeUsed()
    rx.usedEvent = rx.usedIndex
    tx.usedEvent = tx.usedIndex
  }
  rest()
  return { clock, device, vmm, stream, request, recoveries, rest }
}

/**
 * The device publishes a packet while it still sees an old wish, and sends no interrupt. What this returns is the arrival of the guest's
 * store.
 */
async function publishUnseen({ vmm, stream }: Awaited<ReturnType<typeof scene>>): Promise<() => void> {
  const { rx } = vmm.guest
  const wish = rx.usedIndex
  rx.usedEvent = (wish - 60) & 0xffff
  stream.write('first')
  await turn()
  expect(rx.usedIndex).toBe(wish + 1)
  return () => {
    rx.usedEvent = wish
  }
}

/** Counts interrupts of that ring from here on; each call tells of those since the last. */
function interrupts(vmm: Awaited<ReturnType<typeof scene>>['vmm'], ring: number): () => Promise<number> {
  const call = vmm.calls[ring]!
  let count = 0
  call.drain()
  call.watch(() => {
    call.drain()
    count++
  })
  cleanups.push(() => call.unwatch())
  return async () => {
    // No message of the VMM's: it would be a trip to the rings.
    for (let i = 0; i < 3; i++) await turn()
    const since = count
    count = 0
    return since
  }
}

describe.runIf(binding !== undefined)('a guest and a device that wait for each other', () => {
  test('a guest whose wish came too late to be seen is interrupted after 100 ms', async () => {
    const guest = await scene()
    const { clock, vmm, recoveries, rest } = guest
    const interrupted = interrupts(vmm, 0)
    const arrive = await publishUnseen(guest)
    expect(await interrupted()).toBe(0)
    arrive()
    clock.advance(99)
    expect(await interrupted()).toBe(0)
    clock.advance(1)
    expect(await interrupted()).toBe(1)
    expect(recoveries).toEqual([{ ring: 'rx', by: 'interrupt', lost: true }])
    rest()
    clock.advance(10_000)
    expect(await interrupted()).toBe(0)
    expect(recoveries).toHaveLength(1)
  })

  test('the next packet ends the wait at once', async () => {
    const guest = await scene()
    const { vmm, stream, recoveries } = guest
    const interrupted = interrupts(vmm, 0)
    const arrive = await publishUnseen(guest)
    arrive()
    expect(await interrupted()).toBe(0)
    stream.write('second')
    await turn()
    expect(await interrupted()).toBe(1)
    expect(recoveries).toEqual([])
  })

  test('a guest that was interrupted and takes nothing is interrupted again, ever more rarely', async () => {
    const { clock, vmm, stream, recoveries } = await scene()
    const interrupted = interrupts(vmm, 0)
    stream.write('first')
    await turn()
    expect(await interrupted()).toBe(1)
    const at: number[] = []
    for (let ms = 100; ms <= 3_000; ms += 100) {
      clock.advance(100)
      if ((await interrupted()) > 0) at.push(ms)
    }
    expect(at).toEqual([100, 200, 400, 800, 1600])
    expect(recoveries).toEqual([{ ring: 'rx', by: 'interrupt', lost: false }])
  })

  test('nor does a busy ring hide the other: a guest that sends on, and has missed that its receive buffers are used up', async () => {
    const { clock, vmm, stream, request, recoveries } = await scene()
    const { rx, tx } = vmm.guest
    const interrupted = interrupts(vmm, 0)
    const wish = rx.usedIndex
    rx.usedEvent = (wish - 200) & 0xffff
    stream.write(Buffer.alloc(64_000))
    for (let i = 0; i < 3; i++) await turn()
    expect([rx.usedIndex, await interrupted()]).toEqual([rx.availIndex, 0])
    rx.usedEvent = wish
    const at: number[] = []
    for (let ms = 40; ms <= 440; ms += 40) {
      say(vmm, request, Op.RW, {}, Buffer.from('x'))
      for (let i = 0; i < 3; i++) await turn()
      tx.takeUsed()
      tx.usedEvent = tx.usedIndex
      clock.advance(40)
      if ((await interrupted()) > 0) at.push(ms)
    }
    expect(at).toEqual([120, 200, 400])
    expect(recoveries).toEqual([{ ring: 'rx', by: 'interrupt', lost: true }])
  })

  test('a listener that closes the device leaves no timer', async () => {
    const { clock, device, stream } = await scene()
    device.on('recovery', () => void device.close())
    stream.write('first')
    await turn()
    clock.advance(100)
    expect(device.state).toBe('closed')
    expect(clock.pending).toBe(0)
  })

  test('a guest that waits for its transmit buffers is interrupted again, too', async () => {
    const { clock, vmm, request, recoveries, rest } = await scene()
    const interrupted = interrupts(vmm, 1)
    say(vmm, request, Op.CREDIT_UPDATE)
    await vmm.sync()
    clock.advance(10)
    expect(await interrupted()).toBe(1)
    clock.advance(90)
    expect(await interrupted()).toBe(1)
    expect(recoveries).toEqual([{ ring: 'tx', by: 'interrupt', lost: false }])
    rest()
    clock.advance(10_000)
    expect(await interrupted()).toBe(0)
  })

  test('a packet that came without a kick is found within 100 ms', async () => {
    const { clock, vmm, stream, request, recoveries } = await scene()
    clock.advance(100)
    await turn()
    const { sourcePort, destinationPort } = request.header
    vmm.guest.send({ op: Op.RW, sourcePort: destinationPort, destinationPort: sourcePort }, Buffer.from('found'))
    clock.advance(100)
    await turn()
    await turn()
    expect(String(stream.read())).toBe('found')
    expect(recoveries).toEqual([{ ring: 'tx', by: 'kick', lost: true }])
  })

  test('and so are receive buffers that a packet waits for', async () => {
    const { clock, vmm, stream, recoveries } = await scene()
    const { guest } = vmm
    // Whatever the guest has given is used up.
    stream.write(Buffer.alloc(64_000))
    await turn()
    await turn()
    const before = guest.received().reduce((sum, { payload }) => sum + payload.length, 0)
    guest.rx.usedEvent = guest.rx.usedIndex
    expect(before).toBeLessThan(64_000)
    guest.supply(20)
    clock.advance(100)
    await turn()
    await turn()
    expect(guest.received().length).toBeGreaterThan(0)
    expect(recoveries).toContainEqual({ ring: 'rx', by: 'kick', lost: true })
  })

  test('a kick that is on its way does not count as lost', async () => {
    const { clock, vmm, stream, request, recoveries } = await scene()
    say(vmm, request, Op.RW, {}, Buffer.from('in time'))
    clock.advance(100)
    await turn()
    await turn()
    expect(String(stream.read())).toBe('in time')
    expect(recoveries).toEqual([])
  })

  test('without connections and with a guest that has caught up, nothing is looked at any more', async () => {
    const { clock, device, vmm, stream, request, rest } = await scene()
    stream.destroy()
    expect((await heard(vmm)).map(opName)).toEqual(['SHUTDOWN'])
    say(vmm, request, Op.RST)
    await vmm.sync()
    rest()
    expect(device.connections).toBe(0)
    clock.advance(1_000)
    await turn()
    clock.advance(10_000)
    expect(clock.pending).toBe(0)
  })

  test('a snapshot shows both rings and the credit of each connection', async () => {
    const { device, vmm, stream, request } = await scene()
    stream.write('12345')
    await turn()
    say(vmm, request, Op.RW, { bufferAllocation: 9000, forwardCount: 2 }, Buffer.from('abc'))
    await vmm.sync()
    const { rx, tx, connections } = device.snapshot()
    expect(rx).toMatchObject({ size: 128, used: vmm.guest.rx.usedIndex, avail: vmm.guest.rx.availIndex })
    expect(tx).toMatchObject({ avail: vmm.guest.tx.availIndex, taken: vmm.guest.tx.availIndex })
    expect(connections).toEqual([
      {
        hostPort: stream.hostPort,
        guestPort: 5000,
        type: 'stream',
        state: 'open',
        host: { bufferBytes: 262144, received: 3, taken: 0, told: 0, waiting: 3 },
        guest: { bufferBytes: 9000, sent: 5, taken: 2, packets: 1, waiting: 0, asked: false },
      },
    ])
  })
})
