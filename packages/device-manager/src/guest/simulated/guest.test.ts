// The protocol's numbered facts, as a client meets them; devices, connections and the life of the guest: facts 12 … 17.
import { decodeReply, encodeConnect, encodeRequest } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import { ALL, addCpu, addMmio, addPci, delMmio, delPci, setUp } from '../../../testing/guest-rig.js'
import { type SimulatedGuestOptions, simulatedGuest } from './guest.js'

describe('12: a success says little', () => {
  test('ADD_MMIO of an empty address is 0', async () => {
    const { guest, connect } = setUp({ hardware: { hasCpu: () => false, hasPci: () => false } })
    expect(await connect().result(addMmio())).toBe(0)
    expect(guest.state.mmio).toHaveLength(1)
  })

  test('ADD_PCI of a device that is known succeeds again', async () => {
    const { guest, connect } = setUp()
    const { result } = connect()
    expect(await result(addPci(0x28))).toBe(0)
    expect(await result(addPci(0x28))).toBe(0)
    expect(guest.state.pci).toEqual([{ bus: 0, devfn: 0x28 }])
  })

  test('an absent slot or bus is −19', async () => {
    const { connect } = setUp({
      hardware: { hasCpu: () => true, hasPci: (bus) => bus === 0 },
      pci: [{ bus: 0, devfn: 8 }],
    })
    expect(await connect().result(addPci(0x28, 1))).toBe(-19)
    expect(await connect().result(delPci(0x28))).toBe(-19)
    expect(await connect().result(delPci(8, 1))).toBe(-19)
    expect(await connect().result(delPci(8))).toBe(0)
  })
})

describe('13: windows and lines', () => {
  for (const arch of ['x86_64', 'aarch64'] as const) {
    test(`${arch}: line 5 may be shared, no other, 32 neither`, async () => {
      const { connect } = setUp({ arch, mmio: [{ base: 0x100n, size: 0x100n, irq: 7 }] })
      const { result } = connect()
      expect(await result(addMmio(0x1000n, 0x1000n, 5))).toBe(0)
      expect(await result(addMmio(0x2000n, 0x1000n, 5))).toBe(0)
      expect(await result(addMmio(0x3000n, 0x1000n, 32))).toBe(0)
      expect(await result(addMmio(0x4000n, 0x1000n, 32))).toBe(-17)
      expect(await result(addMmio(0x4000n, 0x1000n, 7))).toBe(-17)
    })

    test(`${arch}: windows must not overlap`, async () => {
      const { guest, connect } = setUp({ arch })
      const { result } = connect()
      expect(await result(addMmio(0x2000n, 0x1000n))).toBe(0)
      for (const [base, size] of [
        [0x2000n, 0x1000n],
        [0x1000n, 0x1002n],
        [0x2ffen, 0x10n],
        [0x2100n, 0x10n],
        [0x1000n, 0x4000n],
      ] as const) {
        expect(await result(addMmio(base, size))).toBe(-17)
      }
      expect(await result(addMmio(0x1000n, 0x1000n))).toBe(0)
      expect(await result(addMmio(0x3000n, 0x1000n))).toBe(0)
      expect(guest.state.mmio.map(({ base }) => base)).toEqual([0x2000n, 0x1000n, 0x3000n])
    })

    test(`${arch}: removal matches base, size and line exactly, and frees them`, async () => {
      const { guest, connect } = setUp({ arch })
      const { result } = connect()
      const window = [0x18_0000_0000n, 0x2000n, 9] as const
      expect(await result(addMmio(...window))).toBe(0)
      expect(await result(delMmio(0x18_0000_1000n, 0x2000n, 9))).toBe(-19)
      expect(await result(delMmio(0x18_0000_0000n, 0x1000n, 9))).toBe(-19)
      expect(await result(delMmio(0x18_0000_0000n, 0x2000n, 5))).toBe(-19)
      expect(guest.state.mmio).toHaveLength(1)
      expect(await result(delMmio(...window))).toBe(0)
      expect(await result(addMmio(...window))).toBe(0)
    })
  }

  test('one common byte passes the overlap check and is busy in the resource tree', async () => {
    const { result } = setUp().connect()
    expect(await result(addMmio(0x2000n, 0x1000n))).toBe(0)
    expect(await result(addMmio(0x2fffn, 0x1000n))).toBe(-16)
    expect(await result(addMmio(0x1001n, 0x1000n))).toBe(-16)
  })

  test('an empty window is busy too', async () => {
    const { guest, connect } = setUp()
    const bytes = encodeRequest(addMmio(), 'x86_64')
    bytes.fill(0, 24, 32)
    expect((await connect().send(bytes)).map((reply) => decodeReply(reply, 'x86_64').result)).toEqual([-16])
    expect(guest.state.mmio).toEqual([])
  })

  test('up to the last byte of the address space', async () => {
    const { result } = setUp().connect()
    const base = 0xffff_ffff_ffff_f000n
    expect(await result(addMmio(base, 0x1000n))).toBe(0)
    expect(await result(addMmio(base + 0x800n, 0x800n))).toBe(-17)
    expect(await result(delMmio(base, 0x1000n))).toBe(0)
  })

  test('irq 0 is −22 on x86_64 and a GIC SPI on aarch64', async () => {
    const x86 = setUp().connect()
    expect(await x86.result(addMmio(0x1000n, 0x1000n, 0))).toBe(-22)
    expect(await x86.result(delMmio(0x1000n, 0x1000n, 0))).toBe(-22)
    const arm = setUp({ arch: 'aarch64' }).connect()
    expect(await arm.result(addMmio(0x1000n, 0x1000n, 0))).toBe(0)
    expect(await arm.result(addMmio(0x2000n, 0x1000n, 0))).toBe(-17)
  })

  test('another msg_size than 24 is −22, for MMIO alone', async () => {
    const { guest, connect } = setUp()
    const { send } = connect()
    for (const [request, result] of [
      [addMmio(), -22],
      [addPci(8), -22],
      [addCpu(1), 0],
    ] as const) {
      const bytes = encodeRequest(request, 'x86_64')
      bytes[4] = 23
      bytes[5] = 0
      // ADD_PCI is done, and repeats the failure before it.
      expect((await send(bytes)).map((reply) => decodeReply(reply, 'x86_64').result)).toEqual([result])
    }
    expect(guest.state).toMatchObject({ mmio: [], pci: [{ bus: 0, devfn: 8 }], cpus: { online: [0, 1] } })
  })
})

describe('14: two connections', () => {
  test('are served beside each other and see one guest', async () => {
    const { guest, connect } = setUp()
    const [a, b] = [connect(), connect()]
    expect(await a.result(addMmio())).toBe(0)
    expect(await b.result(addMmio())).toBe(-17)
    expect(await b.result(delMmio())).toBe(0)
    expect(await a.result(delMmio())).toBe(-19)
    a.session.close()
    expect(await b.result(addMmio())).toBe(0)
    expect(guest.state.mmio).toHaveLength(1)
  })
})

describe('15: each connection to an old kernel', () => {
  test.each(ALL)('logs "scheduling while atomic" or not (%s)', (kernel) => {
    const { guest, connect } = setUp({ kernel })
    connect()
    connect()
    const lines = guest.state.log.filter((line) => line.includes('scheduling while atomic'))
    expect(lines).toHaveLength(kernel === '5.10' || kernel === '6.1' ? 2 : 0)
  })

  test('the log keeps its last 1,000 lines', () => {
    const { guest, connect } = setUp()
    for (let i = 0; i < 1_010; i++) connect()
    expect(guest.state.log).toHaveLength(1_000)
  })
})

describe('16: in the middle of the boot', () => {
  test('the service is not there; afterwards it is', () => {
    const { guest, service } = setUp({ booting: true })
    expect(service.available!(0)).toBe(false)
    expect(guest.state.booted).toBe(false)
    guest.boot()
    expect(service.available!(0)).toBe(true)
    expect(guest.state.booted).toBe(true)
    expect(setUp().service.available!(0)).toBe(true)
  })

  test('off: it is there from the first moment', () => {
    expect(setUp({ booting: true, quirks: { resetWhileBooting: false } }).service.available!(0)).toBe(true)
  })
})

describe('17: the reply may never come', () => {
  test('a paused guest does nothing; resumed, it does what was asked, late', async () => {
    const { guest, connect } = setUp()
    const { result } = connect()
    guest.pause()
    let answered = false
    const late = result(addMmio()).then((result) => {
      answered = true
      return result
    })
    guest.pause()
    await new Promise(setImmediate)
    expect(answered).toBe(false)
    expect(guest.state).toMatchObject({ paused: true, mmio: [] })
    guest.resume()
    expect(await late).toBe(0)
    expect(guest.state).toMatchObject({ paused: false, mmio: [{ base: 0xd000_0000n }] })
  })

  test('a guest that is paused while it works answers after resume()', async () => {
    const { guest, connect } = setUp({ hardware: { hasCpu: () => false, hasPci: () => true } })
    const { connection, result } = connect()
    let answered = false
    const late = result(addCpu(1)).then((result) => {
      answered = true
      return result
    })
    guest.pause()
    connection.delays[0]!.over()
    await new Promise(setImmediate)
    expect(answered).toBe(false)
    guest.resume()
    expect(await late).toBe(-5)
  })

  test('a connection opened meanwhile is not greeted before', async () => {
    const { guest, connect } = setUp()
    guest.pause()
    const { session, send } = connect()
    expect(session.greeting).toHaveLength(0)
    const late = send(encodeRequest(addMmio(), 'x86_64'))
    guest.resume()
    const [greeting, reply] = await late
    expect(greeting).toEqual(encodeConnect())
    expect(decodeReply(reply!, 'x86_64')).toEqual({ type: 'ADD_MMIO', result: 0 })
  })
})

describe('options', () => {
  const window = (more: object) => ({ base: 0xd000_0000n, size: 4096n, irq: 5, ...more })

  test.each([
    [{ arch: 'riscv64' }, `arch: must be 'x86_64' or 'aarch64', got "riscv64"`],
    [{ arch: 'x86_64', kernel: '4.19' }, 'kernel: must be one of 5.10, 6.1, 6.12, 6.18, got "4.19"'],
    [{ arch: 'x86_64', cpus: 0 }, 'cpus: must be an integer from 1 to 256, got 0'],
    [{ arch: 'x86_64', cpus: 3, maxCpus: 2 }, 'cpus: must be an integer from 1 to 2, got 3'],
    [{ arch: 'x86_64', maxCpus: 257 }, 'maxCpus: must be an integer from 1 to 256, got 257'],
    [{ arch: 'x86_64', quirks: { tornRequest: false } }, 'quirks: the key: must be one of tornRequests, '],
    [{ arch: 'x86_64', mmio: [window({}), window({ base: -1n })] }, 'mmio[1].base: must be a bigint from 0 to 2^64 − 1, got -1n'],
    [{ arch: 'x86_64', mmio: [window({ base: 2n ** 64n })] }, 'mmio[0].base: must be a bigint from 0'],
    [{ arch: 'x86_64', mmio: [window({ size: 4096 })] }, 'mmio[0].size: must be a bigint from 1 to 2^64 − 1, got 4096'],
    [
      { arch: 'x86_64', mmio: [window({ irq: 2 ** 32 })] },
      'mmio[0].irq: must be an integer from 0 to 4294967295, got 4294967296',
    ],
    [{ arch: 'x86_64', pci: [{ bus: 256, devfn: 0 }] }, 'pci[0].bus: must be an integer from 0 to 255, got 256'],
    [{ arch: 'x86_64', pci: [{ bus: 0, devfn: Number.NaN }] }, 'pci[0].devfn: must be an integer from 0 to 255, got NaN'],
    [
      { arch: 'x86_64', uninitialisedResult: 2 ** 31 },
      'uninitialisedResult: must be an integer from -2147483648 to 2147483647, got 2147483648',
    ],
  ])('%o', (options, message) => {
    expect(() => simulatedGuest(options as SimulatedGuestOptions)).toThrow(message)
  })

  test('the state is a copy', async () => {
    const { guest, connect } = setUp()
    await connect().ask(addMmio())
    const { state } = guest
    state.mmio[0]!.irq = 99
    state.cpus.online.pop()
    state.log.pop()
    expect(guest.state.mmio[0]!.irq).toBe(5)
    expect(guest.state.cpus.online).toEqual([0])
    expect(guest.state.log).toHaveLength(1)
  })
})
