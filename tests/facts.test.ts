import { DeviceManager, GuestError } from '@upcall/device-manager'
import type { MmioWindow } from '@upcall/device-manager/guest'
import { dialSequence, fakeGuest, faultyDial, ManualClock, settle } from '@upcall/testkit'
import { encodeRequest, isWireError, readHeader } from '@upcall/wire'
import { describe, expect, it, onTestFinished } from 'vitest'
import { simulate } from './support/simulation.js'

// What the guest kernel does that a client must live with, by the numbers of the protocol's documentation. Each shows first that the
// guest does it, then that the client is right in spite of it.

const x86 = (request: Parameters<typeof encodeRequest<'x86_64'>>[0]) => encodeRequest(request, 'x86_64')
const add = (base: bigint, irq = 5): MmioWindow => ({ base, size: 0x1000n, irq })
const disk = add(0xd0000000n)
const addDisk = { type: 'ADD_MMIO', ...disk } as const
const EINVAL = { code: 'GUEST_ERROR', outcome: 'guest-error', errno: -22, errnoName: 'EINVAL' }
const resultOf = (message: Buffer) => message.readInt32LE(16)

describe('1: a short read is taken as a whole message', () => {
  it.each([
    // The load is there: it is carried out. The rest has no magic.
    [512, [0, 0], true],
    // Nothing of the load is there but four bytes, so irq is 0; the rest finds the first piece's header still standing.
    [20, [-22, -22], false],
  ])('torn at byte %i the guest answers twice', async (at, results, done) => {
    const { guest, raw } = simulate({ arch: 'x86_64' })
    const connection = await raw()
    const bytes = x86(addDisk)
    const messages = [...(await connection.send(bytes.subarray(0, at))), ...(await connection.send(bytes.subarray(at)))]
    expect(messages.map(resultOf)).toEqual(results)
    expect(guest.state.mmio).toEqual(done ? [disk] : [])
  })

  it('every request of the client reaches the guest in one piece', async () => {
    const { clock, manager, reads } = simulate({ arch: 'x86_64' })
    const client = manager('x86_64')
    await clock.drive(Promise.all([client.addMmio(disk), client.addPci('00:05.0'), client.addCpus({ apicIds: [1] })]))
    expect(reads.map(({ bytes }) => bytes.length)).toEqual([1024, 1024, 1024])
  })

  it('a transport that tears costs a connection, and no answer goes astray', async () => {
    const sim = simulate({ arch: 'x86_64' })
    const dial = faultyDial(sim.dial, (number) => (number === 1 ? { write: { cuts: [1 + 20] } } : {}))
    const client = sim.manager('x86_64', { dial })
    expect(await sim.settled(client.addMmio(disk))).toMatchObject(EINVAL)
    await settle()
    expect(client.reconnects.map(({ reason }) => reason)).toEqual(['protocol'])
    expect(await sim.settled(client.addMmio(disk))).toMatchObject({ result: 0 })
  })
})

describe('2: the reply buffer is never cleared', () => {
  it('an index that an earlier success declared stands after a later reply, and is not read', async () => {
    const sim = simulate({ arch: 'x86_64' })
    const connection = await sim.raw()
    await connection.send(x86({ type: 'ADD_CPU', apicIds: [1, 2] }))
    const [refused] = await connection.send(x86({ type: 'ADD_CPU', apicIds: [1] }))
    expect([resultOf(refused!), readHeader(refused!).size, refused!.readUInt32LE(20)]).toEqual([-22, 0, 2])

    const client = sim.manager('x86_64')
    expect(await sim.settled(client.addCpus({ apicIds: [3, 4, 5] }))).toEqual({ type: 'ADD_CPU', result: 0, apicIdIndex: 3 })
    const error = await sim.settled(client.addCpus({ apicIds: [3] }))
    expect(error instanceof GuestError && error.reply).toEqual({ type: 'ADD_CPU', result: -22 })
    expect(await sim.settled(client.addMmio(disk))).toEqual({ type: 'ADD_MMIO', result: 0 })
  })
})

describe('3: a PCI success does not set the result', () => {
  it('the guest repeats the failure before it, until the connection is a new one', async () => {
    const { raw, guest } = simulate({ arch: 'x86_64', mmio: [disk] })
    const connection = await raw()
    expect(await connection.reply(x86(addDisk))).toMatchObject({ result: -17 })
    expect(await connection.reply(x86({ type: 'ADD_PCI', bus: 0, devfn: 40 }))).toMatchObject({ result: -17 })
    expect(guest.state.pci).toEqual([{ bus: 0, devfn: 40 }])
    const fresh = await raw()
    expect(await fresh.reply(x86({ type: 'DEL_PCI', bus: 0, devfn: 40 }))).toMatchObject({ result: 0 })
  })

  it('the client gives a PCI request a new connection after any failure, and only then', async () => {
    const sim = simulate({ arch: 'x86_64', mmio: [disk] })
    const client = sim.manager('x86_64')
    await sim.settled(client.addPci('00:05.0'))
    await sim.settled(client.addPci('00:06.0'))
    expect(await sim.settled(client.addMmio(disk))).toMatchObject({ errnoName: 'EEXIST' })
    expect(await sim.settled(client.addMmio(add(0xd0001000n)))).toMatchObject({ result: 0 })
    expect(await sim.settled(client.addPci('00:07.0'))).toMatchObject({ result: 0 })
    // A failed PCI request is a failure like any other.
    expect(await sim.settled(client.removePci('00:1f.0'))).toMatchObject({ errnoName: 'ENODEV' })
    expect(await sim.settled(client.removePci('00:07.0'))).toMatchObject({ result: 0 })
    expect(sim.reads.map(({ connection }) => connection)).toEqual([1, 1, 1, 1, 2, 2, 3])
    expect(client.reconnects).toMatchObject([
      { attempt: 0, delayMs: 0, reason: 'clean-channel' },
      { attempt: 0, delayMs: 0, reason: 'clean-channel' },
    ])
  })
})

describe('4: a wrong magic is answered with the last result', () => {
  it('after a success that looks like one, and the client does not take it for one', async () => {
    const sim = simulate({ arch: 'x86_64' })
    const connection = await sim.raw()
    await connection.send(x86(addDisk))
    const damaged = x86({ type: 'DEL_MMIO', ...disk })
    damaged[0] = 0xff
    expect(await connection.reply(damaged)).toEqual({ type: 'DEL_MMIO', result: 0 })
    expect(sim.guest.state.mmio).toEqual([disk])

    // A byte too many on the way makes a message without magic of it.
    const insert = { at: 1, bytes: Uint8Array.of(0xff) }
    const dial = faultyDial(sim.dial, (number) => (number === 1 ? { write: { insert } } : {}))
    const client = sim.manager('x86_64', { dial })
    expect(await sim.settled(client.removeMmio(disk))).toMatchObject({ code: 'PROTOCOL', outcome: 'indeterminate' })
  })
})

describe('5: count 0 on x86_64', () => {
  it('returns what stood on the stack, and is never sent', async () => {
    const { raw, manager, reads, settled } = simulate({ arch: 'x86_64', cpus: 2, uninitialisedResult: 0x5a5a })
    const connection = await raw()
    for (const type of ['ADD_CPU', 'DEL_CPU'] as const) {
      const none = x86({ type, apicIds: [1] })
      none[16] = 0
      expect(await connection.reply(none)).toMatchObject({ result: 0x5a5a })
    }
    reads.length = 0
    const client = manager('x86_64')
    expect(isWireError(await settled(client.addCpus({ apicIds: [] })))).toBe(true)
    expect(isWireError(await settled(client.removeCpus({ apicIds: [] })))).toBe(true)
    expect(reads).toEqual([])
  })
})

describe('6: a CPU batch stops at the first that fails and does not say how many were done', () => {
  it('DEL [3, 0] takes CPU 3 away and answers EINVAL; the client does not ask for CPU 0', async () => {
    const { guest, raw, manager, reads, settled } = simulate({ arch: 'x86_64', cpus: 4 })
    expect(await (await raw()).reply(x86({ type: 'DEL_CPU', apicIds: [3, 0] }))).toMatchObject({ result: -22 })
    expect(guest.state.cpus.online).toEqual([0, 1, 2])
    reads.length = 0
    expect(isWireError(await settled(manager('x86_64').removeCpus({ apicIds: [2, 0] })))).toBe(true)
    expect(reads).toEqual([])
  })

  it('a resize says which CPUs are unknown, and one by one there are none', async () => {
    for (const oneByOne of [false, true]) {
      const hardware = { hasCpu: (id: number) => id !== 2, hasPci: () => true }
      const sim = simulate({ arch: 'x86_64', kernel: '6.12', hardware })
      const client = sim.manager('x86_64')
      const [started, stopped]: [number[][], number[][]] = [[], []]
      const error = await sim.settled(
        client.resizeCpus(4, {
          present: [0],
          max: 4,
          oneByOne,
          start: (ids) => void started.push(ids),
          stop: (ids) => void stopped.push(ids),
        }),
      )
      expect(error).toMatchObject({ name: 'ResizeError', code: 'GUEST_ERROR', cause: EINVAL })
      expect(sim.guest.state.cpus.online).toEqual([0, 1])
      expect(error).toMatchObject(
        oneByOne ? { added: [1], present: [0, 1], unknown: [] } : { added: [], present: [0], unknown: [1, 2, 3] },
      )
      // A vCPU that the guest may use is not stopped.
      expect([started, stopped]).toEqual(oneByOne ? [[[1], [2]], [[2]]] : [[[1, 2, 3]], []])
    }
  })
})

describe("7: DEL_CPU can crash the guest's service thread", () => {
  it('of an absent id: no reply ever comes', async () => {
    const { guest, raw } = simulate({ arch: 'x86_64', kernel: '6.12', cpus: 4 })
    expect(await (await raw()).reply(x86({ type: 'DEL_CPU', apicIds: [9] }))).toBeUndefined()
    expect(guest.state).toMatchObject({ crashed: true, lockLost: false })
  })

  it('from the bottom up on 6.1: the hotplug lock is gone, and all CPUs hang', async () => {
    const { guest, raw } = simulate({ arch: 'x86_64', cpus: 4 })
    expect(await (await raw()).reply(x86({ type: 'DEL_CPU', apicIds: [2, 3] }))).toBeUndefined()
    expect(guest.state).toMatchObject({ crashed: true, lockLost: true })
    expect(await (await raw()).reply(x86(addDisk))).toBeUndefined()
  })

  it('the client sends from the top down, whatever order it is given, and adds from the bottom up', async () => {
    const sim = simulate({ arch: 'x86_64', cpus: 4 })
    const client = sim.manager('x86_64')
    expect(await sim.settled(client.removeCpus({ apicIds: [2, 3, 1] }))).toMatchObject({ result: 0 })
    expect(await sim.settled(client.addCpus({ apicIds: [3, 1, 2] }))).toMatchObject({ result: 0 })
    expect(sim.requests()).toMatchObject([
      { type: 'DEL_CPU', apicIds: [3, 2, 1] },
      { type: 'ADD_CPU', apicIds: [1, 2, 3] },
    ])
    expect(sim.guest.state).toMatchObject({ crashed: false, cpus: { online: [0, 1, 2, 3] } })
  })

  it('duplicates, the boot CPU and ids that are known to be absent are refused, and nothing is sent', async () => {
    const sim = simulate({ arch: 'x86_64', cpus: 4 })
    const client = sim.manager('x86_64')
    const present = [0, 1, 2, 3]
    for (const call of [
      () => client.removeCpus({ apicIds: [3, 3] }),
      () => client.removeCpus({ apicIds: [0] }),
      () => client.removeCpus({ apicIds: [9] }, { present }),
      () => client.removeCpus({ apicIds: [9, 3] }, { present }),
      () => client.addCpus({ apicIds: [4, 4] }),
    ]) {
      expect(isWireError(await sim.settled(call()))).toBe(true)
    }
    expect(sim.reads).toEqual([])
    expect(sim.guest.state.crashed).toBe(false)
  })

  it('a crash is a TimeoutError, indeterminate, after 30 s, and the next request gets a new connection', async () => {
    const sim = simulate({ arch: 'x86_64', cpus: 4 })
    const client = sim.manager('x86_64')
    // With no word of who is present the client cannot know that 1 has left a hole below 3.
    await sim.settled(client.removeCpus({ apicIds: [1] }))
    const start = sim.clock.now()
    const timeout = { name: 'TimeoutError', code: 'TIMEOUT', outcome: 'indeterminate' }
    expect(await sim.settled(client.removeCpus({ apicIds: [3] }))).toMatchObject(timeout)
    expect(sim.clock.now()).toBe(start + 30_000)
    expect(sim.guest.state.crashed).toBe(true)
    expect(await sim.settled(client.addPci('00:05.0'))).toMatchObject({ result: 0 })
  })

  it('with present given, an id beyond a hole is refused', async () => {
    const sim = simulate({ arch: 'x86_64', cpus: 4 })
    const client = sim.manager('x86_64')
    await sim.settled(client.removeCpus({ apicIds: [1] }, { present: [0, 1, 2, 3] }))
    sim.reads.length = 0
    expect(isWireError(await sim.settled(client.removeCpus({ apicIds: [3] }, { present: [0, 2, 3] })))).toBe(true)
    expect(sim.reads).toEqual([])
  })

  it('after a lost lock a request for it is indeterminate too, not lost without a word', async () => {
    const sim = simulate({ arch: 'x86_64', cpus: 4 })
    await (await sim.raw()).send(x86({ type: 'DEL_CPU', apicIds: [2, 3] }))
    const client = sim.manager('x86_64')
    expect(await sim.settled(client.addMmio(disk))).toMatchObject({ code: 'TIMEOUT', outcome: 'indeterminate' })
    expect(sim.clock.now()).toBe(10_000)
  })
})

describe('8: holes in the ids, on 5.10 and 6.1', () => {
  it('ADD of a CPU that runs answers EEXIST and spoils its bookkeeping; with present given it is refused', async () => {
    const sim = simulate({ arch: 'x86_64', kernel: '5.10', cpus: 4 })
    const client = sim.manager('x86_64')
    await sim.settled(client.removeCpus({ apicIds: [1] }))
    expect(isWireError(await sim.settled(client.addCpus({ apicIds: [3] }, { present: [0, 2, 3] })))).toBe(true)
    expect(sim.guest.state.cpus.corrupted).toEqual([])
    expect(await sim.settled(client.addCpus({ apicIds: [3] }))).toMatchObject({ errnoName: 'EEXIST' })
    expect(sim.guest.state.cpus.corrupted).toEqual([3])
  })

  it('a resize leaves no hole: down from the top, up from the bottom', async () => {
    const sim = simulate({ arch: 'x86_64', cpus: 4 })
    const client = sim.manager('x86_64')
    const steps = { max: 8, start: () => {}, stop: () => {} }
    const down = await sim.settled(client.resizeCpus(2, { ...steps, present: [0, 1, 2, 3] }))
    expect(down).toEqual({ added: [], removed: [3, 2], present: [0, 1] })
    const up = await sim.settled(client.resizeCpus(5, { ...steps, present: [0, 1] }))
    expect(up).toEqual({ added: [2, 3, 4], removed: [], present: [0, 1, 2, 3, 4] })
    expect(sim.guest.state).toMatchObject({ crashed: false, cpus: { online: [0, 1, 2, 3, 4], corrupted: [] } })
  })
})

describe('9: DEL_CPU of everything is refused', () => {
  it('x86_64 on 6.12: as many as are online', async () => {
    const sim = simulate({ arch: 'x86_64', kernel: '6.12', cpus: 3 })
    sim.guest.setCpuOnline(1, false)
    expect(await sim.settled(sim.manager('x86_64').removeCpus({ apicIds: [1, 2] }))).toMatchObject(EINVAL)
    expect(sim.guest.state.cpus.online).toEqual([0, 2])
  })

  it('x86_64 on 6.1: as many as are present', async () => {
    const { guest, raw } = simulate({ arch: 'x86_64', cpus: 3 })
    expect(await (await raw()).reply(x86({ type: 'DEL_CPU', apicIds: [2, 1, 0] }))).toMatchObject({ result: -22 })
    expect(guest.state.cpus.online).toEqual([0, 1, 2])
  })

  it('aarch64: as many as are online', async () => {
    const sim = simulate({ arch: 'aarch64', cpus: 3, maxCpus: 4 })
    const client = sim.manager('aarch64')
    expect(await sim.settled(client.removeCpus({ count: 3 }))).toMatchObject(EINVAL)
    expect(await sim.settled(client.removeCpus({ count: 2 }))).toEqual({ type: 'DEL_CPU', result: 0, cpuId: 1 })
  })
})

describe('10: ADD_CPU of an id that no vCPU answers for', () => {
  const hardware = { hasCpu: (id: number) => id < 2, hasPci: () => true }

  it('on 6.1 the answer takes 12.2 s, and the client waits for it', async () => {
    const sim = simulate({ arch: 'x86_64', hardware })
    expect(await sim.settled(sim.manager('x86_64').addCpus({ apicIds: [2] }))).toMatchObject({ errno: -5, errnoName: 'EIO' })
    expect(sim.clock.now()).toBe(12_200)
  })

  it('a caller in more of a hurry is told that it cannot be known, and a late answer reaches nobody', async () => {
    const sim = simulate({ arch: 'x86_64', hardware })
    const client = sim.manager('x86_64')
    const hurried = client.addCpus({ apicIds: [2] }, { timeoutMs: 250 })
    const next = client.addPci('00:05.0')
    expect(await sim.settled(hurried)).toMatchObject({ code: 'TIMEOUT', outcome: 'indeterminate' })
    expect(sim.clock.now()).toBe(250)
    expect(await sim.settled(next)).toMatchObject({ result: 0 })
    sim.clock.advance(20_000)
    expect(await sim.settled(client.addCpus({ apicIds: [1] }))).toMatchObject({ result: 0 })
  })

  it('on 6.12 it comes at once: EINVAL', async () => {
    const sim = simulate({ arch: 'x86_64', kernel: '6.12', hardware })
    expect(await sim.settled(sim.manager('x86_64').addCpus({ apicIds: [2] }))).toMatchObject(EINVAL)
    expect(sim.clock.now()).toBe(0)
  })
})

describe('11: the architecture is not checked', () => {
  it('a count is read as APIC id 0 on x86_64, and ids as a count on aarch64', async () => {
    const onX86 = simulate({ arch: 'x86_64', cpus: 2 })
    expect(await onX86.settled(onX86.manager('aarch64').addCpus({ count: 1 }))).toMatchObject(EINVAL)
    const onArm = simulate({ arch: 'aarch64', cpus: 4, maxCpus: 4 })
    // CPU 1 is named, the highest one goes.
    expect(await onArm.settled(onArm.manager('x86_64').removeCpus({ apicIds: [1] }))).toMatchObject({ result: 0 })
    expect(onArm.guest.state.cpus.online).toEqual([0, 1, 2])
  })

  it("so the client refuses the other architecture's arguments, whatever the types said", async () => {
    const sim = simulate({ arch: 'x86_64' })
    const untyped = (value: unknown) => value as { apicIds: number[] } & { count: number }
    for (const call of [
      () => sim.manager('x86_64').addCpus(untyped({ count: 1 })),
      () => sim.manager('x86_64').removeCpus(untyped({ count: 1 })),
      () => sim.manager('aarch64').addCpus(untyped({ apicIds: [1] })),
      () => sim.manager('aarch64').removeCpus(untyped({ apicIds: [1] })),
    ]) {
      expect(isWireError(await sim.settled(call()))).toBe(true)
    }
    expect(sim.reads).toEqual([])
  })
})

describe('12: success means registered', () => {
  it('an address with nothing behind it, and a PCI function that is known already, succeed', async () => {
    const sim = simulate({ arch: 'x86_64', pci: [{ bus: 0, devfn: 40 }] })
    const client = sim.manager('x86_64')
    expect(await sim.settled(client.addMmio(disk))).toEqual({ type: 'ADD_MMIO', result: 0 })
    expect(await sim.settled(client.addPci('00:05.0'))).toEqual({ type: 'ADD_PCI', result: 0 })
  })
})

describe('13: irqs', () => {
  it('5 is shared, others are not; overlapping windows are refused', async () => {
    const sim = simulate({ arch: 'x86_64' })
    const client = sim.manager('x86_64')
    const results = []
    for (const window of [add(0xd0000000n), add(0xd0001000n), add(0xd0002000n, 6), add(0xd0003000n, 6), add(0xd0000800n)]) {
      const settled = await sim.settled(client.addMmio(window))
      results.push(settled instanceof GuestError ? settled.errnoName : (settled as { result: number }).result)
    }
    expect(results).toEqual([0, 0, 0, 'EEXIST', 'EEXIST'])
  })

  it('0 is a line on aarch64 and none on x86_64, where it is not even sent', async () => {
    const arm = simulate({ arch: 'aarch64' })
    expect(await arm.settled(arm.manager('aarch64').addMmio(add(0xd0000000n, 0)))).toMatchObject({ result: 0 })
    const sim = simulate({ arch: 'x86_64' })
    expect(isWireError(await sim.settled(sim.manager('x86_64').addMmio(add(0xd0000000n, 0))))).toBe(true)
    expect(sim.reads).toEqual([])
  })
})

describe('14: a second connection is served at the same time', () => {
  it("each client gets its own answers, also while the other one's takes long", async () => {
    const hardware = { hasCpu: (id: number) => id === 0, hasPci: () => true }
    const sim = simulate({ arch: 'x86_64', hardware })
    const [one, two] = [sim.manager('x86_64'), sim.manager('x86_64')]
    const slow = one.addCpus({ apicIds: [1] })
    expect(await sim.settled(two.addPci('00:05.0'))).toMatchObject({ result: 0 })
    expect(sim.clock.now()).toBe(0)
    expect(await sim.settled(slow)).toMatchObject({ errnoName: 'EIO' })
    expect(await sim.settled(Promise.all([one.addMmio(disk), two.addMmio(add(0xd0001000n))]))).toMatchObject([
      { result: 0 },
      { result: 0 },
    ])
    expect(new Set(sim.reads.map(({ connection }) => connection))).toEqual(new Set([1, 2]))
  })
})

describe('pipelined requests', () => {
  it('are served in order, the second one not before the first one is answered', async () => {
    const hardware = { hasCpu: (id: number) => id === 0, hasPci: () => true }
    const sim = simulate({ arch: 'x86_64', hardware })
    const connection = await sim.raw()
    expect(await connection.send(x86({ type: 'ADD_CPU', apicIds: [1] }))).toEqual([])
    expect(await connection.send(x86(addDisk))).toEqual([])
    expect(sim.guest.state.mmio).toEqual([])
    sim.clock.advance(12_200)
    await settle()
    expect(connection.messages().map(resultOf)).toEqual([-5, 0])
  })
})

describe('15: each connection costs a 6.1 guest a kernel warning', () => {
  it('fifty requests cost one', async () => {
    const sim = simulate({ arch: 'x86_64' })
    const client = sim.manager('x86_64')
    for (let i = 0; i < 50; i++) await sim.settled(client.addPci({ bus: 0, devfn: i }))
    expect(sim.guest.state.log.filter((line) => line.includes('scheduling while atomic'))).toHaveLength(1)
  })

  it('a guest that greets and hangs up is not called every few milliseconds', async () => {
    const clock = new ManualClock()
    const guest = fakeGuest(async (connection) => {
      await connection.handshake()
      connection.end()
    })
    const client = new DeviceManager({ dial: guest.dial, arch: 'x86_64', clock, reconnect: { random: () => 0.5 } })
    onTestFinished(() => client.close())
    await settle()
    while (clock.now() < 30_000 && clock.runNext()) await settle()
    // dbs-upcall would be back every 10 ms: 3000 times.
    expect(guest.connections.length).toBeGreaterThan(30)
    expect(guest.connections.length).toBeLessThan(80)
    await guest.close()
  })
})

describe('16: a guest in the middle of its boot', () => {
  it('no port yet, then accepted and closed, then ready: the request waits, and is sent once', async () => {
    const sim = simulate({ arch: 'x86_64', booting: true })
    const refused = Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })
    const client = sim.manager('x86_64', { dial: dialSequence(refused, refused, sim.dial) })
    const request = client.addMmio(disk)
    sim.clock.setTimer(3_000, () => sim.guest.boot())
    expect(await sim.settled(request)).toMatchObject({ result: 0 })
    expect(sim.clock.now()).toBeGreaterThanOrEqual(3_000)
    expect(sim.requests()).toHaveLength(1)
    const reasons = client.reconnects.map(({ reason }) => reason)
    expect(reasons.slice(0, 3)).toEqual(['dial-failed', 'dial-failed', 'disconnected'])
    expect(new Set(reasons.slice(2))).toEqual(new Set(['disconnected']))
  })
})

describe('17: the reply may never come', () => {
  it('a paused guest: indeterminate after 10 s, a new connection, and the late reply reaches nobody', async () => {
    const sim = simulate({ arch: 'x86_64' })
    const client = sim.manager('x86_64')
    await sim.clock.drive(client.ready())
    sim.guest.pause()
    expect(await sim.settled(client.addMmio(disk))).toMatchObject({ code: 'TIMEOUT', outcome: 'indeterminate' })
    expect(sim.clock.now()).toBe(10_000)
    expect(client.reconnects.map(({ reason }) => reason)).toEqual(['request-timeout'])
    sim.guest.resume()
    expect(await sim.settled(client.removeMmio(add(0xd0009000n)))).toMatchObject({ errnoName: 'ENODEV' })
    // Which is why it may not be called failed.
    expect(sim.guest.state.mmio).toEqual([disk])
  })
})
