// The protocol's numbered facts, as a client meets them; CPUs: facts 5 … 11.
import { decodeReply, encodeRequest } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import {
  ALL,
  addCount,
  addCpu,
  addMmio,
  addPci,
  delCount,
  delCpu,
  delMmio,
  NEW,
  NO_REPLY,
  OLD,
  setUp,
} from '../../../testing/guest-rig.js'

describe('5: no CPU named on x86 is an uninitialised result', () => {
  test.each(['ADD_CPU', 'DEL_CPU'] as const)('%s', async (type) => {
    const { guest, connect } = setUp({ cpus: 2 })
    expect(await connect().result({ type, apicIds: [] })).toBe(0xaaaaaaaa | 0)
    const lucky = setUp({ cpus: 2, uninitialisedResult: 0 })
    expect(await lucky.connect().ask({ type, apicIds: [] })).toEqual({ type, result: 0, apicIdIndex: 0 })
    expect(guest.state.cpus.online).toEqual([0, 1])
  })

  test('on aarch64 it is nothing to do', async () => {
    const { connect } = setUp({ arch: 'aarch64', cpus: 2 })
    expect(await connect().ask(addCount(0))).toEqual({ type: 'ADD_CPU', result: 0, cpuId: 2 })
    expect(await connect().ask(delCount(0))).toEqual({ type: 'DEL_CPU', result: 0, cpuId: 2 })
  })
})

describe('6: a batch stops at the first CPU that fails', () => {
  const hardware = { hasCpu: (id: number) => id !== 3, hasPci: () => true }

  test.each(ALL)('DEL [3, 0] takes CPU 3 and answers −22 (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    expect(await connect().ask(delCpu(3, 0))).toEqual({ type: 'DEL_CPU', result: -22 })
    expect(guest.state.cpus.online).toEqual([0, 1, 2])
  })

  test.each([
    ['6.1', -5],
    ['6.12', -22],
  ] as const)('ADD keeps what came before (%s)', async (kernel, result) => {
    const { guest, connect } = setUp({ kernel, hardware, quirks: { slowAbsentCpu: false } })
    expect(await connect().ask(addCpu(1, 2, 3, 4))).toEqual({ type: 'ADD_CPU', result })
    expect(guest.state.cpus).toEqual({ online: [0, 1, 2], present: [0, 1, 2], corrupted: [] })
  })

  test('aarch64 too', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', hardware })
    expect(await connect().ask(addCount(4))).toEqual({ type: 'ADD_CPU', result: -22 })
    expect(guest.state.cpus.online).toEqual([0, 1, 2])
  })

  test.each(ALL)('off: all or nothing (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 2, hardware, quirks: { partialCpuAdd: false, slowAbsentCpu: false } })
    expect(await connect().result(addCpu(2, 3))).toBeLessThan(0)
    expect(guest.state.cpus).toEqual({ online: [0, 1], present: [0, 1], corrupted: [] })
    expect(await connect().result(addCpu(2))).toBe(0)
    expect(await connect().result(delCpu(2, 0))).toBe(-22)
    expect(guest.state.cpus.online).toEqual([0, 1, 2])
    expect(await connect().result(delCpu(2, 1))).toBe(0)
  })

  test('off on aarch64: all or nothing', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', hardware, quirks: { partialCpuAdd: false } })
    expect(await connect().result(addCount(4))).toBe(-22)
    expect(guest.state.cpus.online).toEqual([0])
    expect(await connect().ask(addCount(2))).toEqual({ type: 'ADD_CPU', result: 0, cpuId: 3 })
  })
})

describe('7: DEL_CPU can crash the service thread', () => {
  test.each(ALL)('an absent id: this connection hangs, others do not (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    const { result, send } = connect()
    expect(await result(delCpu(3, 9))).toBe(NO_REPLY)
    expect(guest.state).toMatchObject({ crashed: true, lockLost: false, cpus: { online: [0, 1, 2, 3] } })
    // The socket stays open and is read: whatever comes is swallowed.
    expect(await send(encodeRequest(addMmio(), 'x86_64'))).toEqual([])
    expect(guest.state.mmio).toEqual([])
    expect(await connect().result(addMmio())).toBe(0)
  })

  test.each(OLD)('ids that do not descend: CPU and MMIO requests hang on every connection, PCI does not (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    const before = connect()
    expect(await before.result(addMmio())).toBe(0)
    expect(await connect().result(delCpu(2, 3))).toBe(NO_REPLY)
    expect(guest.state).toMatchObject({ crashed: true, lockLost: true, cpus: { online: [0, 1, 3] } })
    expect(await before.result(delMmio())).toBe(NO_REPLY)
    expect(await connect().result(addMmio(0x1_0000n))).toBe(NO_REPLY)
    expect(await connect().result(addCpu(5))).toBe(NO_REPLY)
    expect(await connect().result(addPci(0x28))).toBe(0)
    expect(guest.state.log.filter((line) => line.includes('lock held'))).toHaveLength(1)
  })

  test.each(NEW)('the same on 6.12 and later is served (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    expect(await connect().ask(delCpu(2, 3))).toEqual({ type: 'DEL_CPU', result: 0, apicIdIndex: 2 })
    expect(guest.state.cpus.online).toEqual([0, 1])
  })

  test.each(ALL)('descending is safe (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    expect(await connect().ask(delCpu(3, 2))).toEqual({ type: 'DEL_CPU', result: 0, apicIdIndex: 2 })
    expect(guest.state).toMatchObject({ crashed: false, cpus: { online: [0, 1], present: [0, 1], corrupted: [] } })
  })

  test.each(ALL)('the same id twice (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    expect(await connect().result(delCpu(3, 3))).toBe(NO_REPLY)
    expect(guest.state).toMatchObject({ crashed: true, cpus: { online: [0, 1, 2] } })
  })
})

describe('8: after a hole', () => {
  test.each(OLD)('ADD of a CPU that runs answers −17 and corrupts it (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    const { result } = connect()
    expect(await result(delCpu(1))).toBe(0)
    expect(await result(addCpu(3))).toBe(-17)
    expect(guest.state.cpus).toEqual({ online: [0, 2, 3], present: [0, 2], corrupted: [3] })
  })

  test.each(NEW)('6.12 and later finds it: −22 (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 4 })
    const { result } = connect()
    expect(await result(delCpu(1))).toBe(0)
    expect(await result(addCpu(3))).toBe(-22)
    expect(guest.state.cpus).toEqual({ online: [0, 2, 3], present: [0, 2, 3], corrupted: [] })
    expect(await result(addCpu(1))).toBe(0)
  })

  test.each(ALL)('the same id twice in ADD corrupts it (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 2 })
    expect(await connect().result(addCpu(2, 2))).toBe(-17)
    expect(guest.state.cpus).toEqual({ online: [0, 1, 2], present: [0, 1], corrupted: [2] })
  })

  test.each(ALL)('an id in use is −22 and nothing of the batch is done (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 2 })
    expect(await connect().result(addCpu(2, 1))).toBe(-22)
    expect(guest.state.cpus.online).toEqual([0, 1])
  })

  test.each(ALL)('from the top and from the bottom, any number of times (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 1, maxCpus: 4 })
    const { result } = connect()
    for (let i = 0; i < 3; i++) {
      expect(await result(addCpu(1, 2, 3))).toBe(0)
      expect(guest.state.cpus.online).toEqual([0, 1, 2, 3])
      expect(await result(delCpu(3, 2, 1))).toBe(0)
      expect(guest.state.cpus).toEqual({ online: [0], present: [0], corrupted: [] })
    }
  })
})

describe('9: removing everything is −22', () => {
  test.each(ALL)('as many as there are (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 2 })
    expect(await connect().result(delCpu(1, 0))).toBe(-22)
    expect(guest.state.cpus.online).toEqual([0, 1])
  })

  test.each([
    ['6.1', 1],
    ['6.12', -22],
  ] as const)('a CPU that is present and offline counts on %s or not', async (kernel, result) => {
    const { guest, connect } = setUp({ kernel, cpus: 2 })
    guest.setCpuOnline(1, false)
    expect(await connect().result(delCpu(1))).toBe(result)
  })

  test('6.12 and later counts the CPUs online, 6.1 those present', async () => {
    for (const [kernel, result] of [
      ['6.12', -22],
      ['6.1', 0],
    ] as const) {
      const { guest, connect } = setUp({ kernel, cpus: 3 })
      guest.setCpuOnline(1, false)
      expect(await connect().result(delCpu(2))).toBe(0)
      guest.setCpuOnline(1, kernel === '6.1')
      expect(await connect().result(delCpu(1))).toBe(result)
    }
  })

  test('aarch64 counts those online, and says 0 after the empty load', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', cpus: 3 })
    const { ask, send } = connect()
    expect(await ask(delCount(0))).toMatchObject({ cpuId: 3 })
    const [reply] = await send(encodeRequest(delCount(3), 'aarch64'))
    expect(decodeReply(reply!, 'aarch64')).toEqual({ type: 'DEL_CPU', result: -22 })
    expect(reply![20]).toBe(0)
    expect(guest.state.cpus.online).toEqual([0, 1, 2])
  })
})

describe('10: a vCPU that does not answer', () => {
  const hardware = { hasCpu: (id: number) => id < 2, hasPci: () => true }

  test.each(NEW)('−22 at once (%s)', async (kernel) => {
    const { connect } = setUp({ kernel, hardware })
    const { connection, result } = connect()
    expect(await result(addCpu(5))).toBe(-22)
    expect(connection.delays).toEqual([])
  })

  test.each(OLD)('−5 after 12.2 s, during which CPU and MMIO requests wait (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, hardware })
    const slow = connect()
    let answer: unknown
    const asked = slow.result(addCpu(1, 5)).then((result) => {
      answer = result
    })
    expect(slow.connection.delays.map(({ ms }) => ms)).toEqual([12_200])
    expect(guest.state.cpus.online).toEqual([0, 1])
    expect(await connect().result(addPci(8))).toBe(0)
    const waiting = [connect().result(addMmio()), connect().result(addMmio())]
    await Promise.resolve()
    expect(guest.state.mmio).toEqual([])
    expect(answer).toBeUndefined()
    slow.connection.delays[0]!.over()
    await asked
    expect(answer).toBe(-5)
    expect(await Promise.all(waiting)).toEqual([0, -17])
    expect(guest.state.cpus).toEqual({ online: [0, 1], present: [0, 1], corrupted: [] })
  })

  test('the client may leave: the guest recovers', async () => {
    const { guest, connect } = setUp({ hardware })
    const slow = connect()
    const asked = slow.result(addCpu(5))
    slow.connection.delays[0]!.fail(new Error('gone'))
    expect(await asked).toBe(-5)
    expect(guest.state.cpus.present).toEqual([0])
    expect(await connect().result(addCpu(1))).toBe(0)
  })

  test('it can be asked for again, and come up', async () => {
    let plugged = false
    const { guest, connect } = setUp({
      hardware: { hasCpu: () => plugged, hasPci: () => true },
      quirks: { slowAbsentCpu: false },
    })
    const { result } = connect()
    expect(await result(addCpu(1))).toBe(-5)
    expect(await result(addCpu(1))).toBe(-5)
    plugged = true
    expect(await result(addCpu(1))).toBe(0)
    expect(guest.state.cpus).toEqual({ online: [0, 1], present: [0, 1], corrupted: [] })
  })

  test('requests that wait get their turn one by one, and none waits afterwards', async () => {
    const { connect } = setUp({ hardware })
    const [first, second, third] = [connect(), connect(), connect()]
    const answers: string[] = []
    const note = (name: string) => () => answers.push(name)
    const asked = [
      first.result(addCpu(5)).then(note('first')),
      second.result(addCpu(6)).then(note('second')),
      third.result(addMmio()).then(note('third')),
    ]
    first.connection.delays[0]!.over()
    await asked[0]
    await new Promise(setImmediate)
    expect(answers).toEqual(['first'])
    second.connection.delays[0]!.over()
    await Promise.all(asked)
    expect(answers).toEqual(['first', 'second', 'third'])
    expect(third.session.receive(encodeRequest(addMmio(), 'x86_64'), 0)).toBeInstanceOf(Array)
  })

  test('off: −5 at once', async () => {
    const { connect } = setUp({ hardware, quirks: { slowAbsentCpu: false } })
    const { connection, result } = connect()
    expect(await result(addCpu(5))).toBe(-5)
    expect(connection.delays).toEqual([])
  })

  test.each(ALL)('no room for it: −22 (%s)', async (kernel) => {
    const { connect } = setUp({ kernel, cpus: 1, maxCpus: 2 })
    expect(await connect().result(addCpu(1))).toBe(0)
    expect(await connect().result(addCpu(2))).toBe(-22)
  })

  test.each(OLD)('an APIC id keeps its CPU number, so that another one may find no room (%s)', async (kernel) => {
    const { connect } = setUp({ kernel, cpus: 1, maxCpus: 2 })
    const { result } = connect()
    expect(await result(addCpu(1))).toBe(0)
    expect(await result(delCpu(1))).toBe(0)
    expect(await result(addCpu(7))).toBe(-22)
    expect(await result(addCpu(1))).toBe(0)
  })
})

describe('11: the architecture is not checked', () => {
  test('an aarch64-shaped request on x86 reads APIC id 0', async () => {
    const { send } = setUp({ cpus: 2 }).connect()
    const [reply] = await send(encodeRequest({ type: 'ADD_CPU', count: 1 }, 'aarch64'))
    expect(decodeReply(reply!, 'x86_64')).toEqual({ type: 'ADD_CPU', result: -22 })
  })

  test('an x86-shaped request on aarch64 succeeds: the highest CPUs go, whatever was named', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', cpus: 4 })
    const [reply] = await connect().send(encodeRequest({ type: 'DEL_CPU', apicIds: [2, 1] }, 'x86_64'))
    expect(decodeReply(reply!, 'aarch64')).toEqual({ type: 'DEL_CPU', result: 0, cpuId: 2 })
    expect(guest.state.cpus.online).toEqual([0, 1])
  })

  test('aarch64 numbers CPUs from the online count', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', cpus: 2, maxCpus: 4 })
    expect(await connect().ask(addCount(2))).toEqual({ type: 'ADD_CPU', result: 0, cpuId: 4 })
    expect(guest.state.cpus).toEqual({ online: [0, 1, 2, 3], present: [0, 1, 2, 3], corrupted: [] })
    expect(await connect().ask(delCount(3))).toEqual({ type: 'DEL_CPU', result: 0, cpuId: 1 })
    expect(guest.state.cpus.online).toEqual([0])
  })

  test('aarch64 beyond the CPUs that there are: the thread oopses with the lock held', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', cpus: 1, maxCpus: 2 })
    expect(await connect().result(addCount(2))).toBe(NO_REPLY)
    expect(guest.state).toMatchObject({ crashed: true, lockLost: true, cpus: { online: [0, 1] } })
  })
})

describe('+1: already in that state', () => {
  test.each(ALL)('DEL of a CPU that the guest has taken down itself (%s)', async (kernel) => {
    const { guest, connect } = setUp({ kernel, cpus: 3 })
    guest.setCpuOnline(2, false)
    expect(await connect().ask(delCpu(2))).toEqual({ type: 'DEL_CPU', result: 1 })
    expect(guest.state.cpus).toEqual({ online: [0, 1], present: [0, 1, 2], corrupted: [] })
  })

  test('aarch64, where a hole shifts the count', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', cpus: 4 })
    guest.setCpuOnline(2, false)
    expect(await connect().result(addCount(1))).toBe(1)
    expect(await connect().result(delCount(1))).toBe(1)
    expect(guest.state.cpus.online).toEqual([0, 1, 3])
  })

  test('the boot CPU and CPUs that are not there cannot be switched', () => {
    for (const arch of ['x86_64', 'aarch64'] as const) {
      const { guest } = setUp({ arch, cpus: 2, maxCpus: 4 })
      expect(() => guest.setCpuOnline(0, false)).toThrow(RangeError)
      expect(() => guest.setCpuOnline(9, true)).toThrow('id: must be a CPU other than the boot CPU; 0, 1 are online, got 9')
    }
  })
})
