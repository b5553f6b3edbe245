import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { GUEST_BASE, MEMORY_SIZE } from '../../testing/fake-guest.js'
import { FakeVm } from '../../testing/fake-vm.js'
import { type Act, sendAndWithdraw, trial, walled } from '../../testing/trial.js'
import { DeviceError } from './errors.js'
import { Op, TYPE_SEQPACKET, TYPE_STREAM } from './packet.js'
import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE } from './vring.js'

const u16 = fc.oneof(fc.constantFrom(0, 1, 15, 16, 17, 127, 128, 0x7fff, 0x8000, 0xffff), fc.nat(0xffff))
const u32 = fc.oneof(fc.constantFrom(0, 1, 43, 44, 45, 65536, 0x7fff_ffff, 0xffff_ffff), fc.nat(0xffff_ffff))
const port = fc.constantFrom(0, 1, 80, 5000, 2 ** 30, 2 ** 30 + 1, 0xffff_ffff)
const address = fc.oneof(
  fc.nat(MEMORY_SIZE).map((offset) => GUEST_BASE + offset),
  fc.constantFrom(
    0,
    GUEST_BASE - 1,
    GUEST_BASE + MEMORY_SIZE - 1,
    GUEST_BASE + MEMORY_SIZE,
    2 ** 32 - 8,
    2 ** 53,
    2 ** 64 - 2048,
  ),
)
const flags = fc.oneof(
  fc.constantFrom(0, DESC_NEXT, DESC_WRITE, DESC_INDIRECT, DESC_NEXT | DESC_WRITE, DESC_NEXT | DESC_INDIRECT),
  u16,
)
const descriptor = fc.record({ address, length: u32, flags, next: fc.oneof(fc.nat(20), u16) })
const ring = fc.constantFrom('rx', 'tx')

/** What a guest and its host may do, in any order. Half of it is honest, so that the rest meets a device in every state. */
const act: fc.Arbitrary<Act> = fc.oneof(
  fc.nat(20).map<Act>((count) => (vm) => vm.guest.supply(count)),
  fc
    .record({
      type: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(TYPE_STREAM, TYPE_SEQPACKET) }, { weight: 1, arbitrary: u16 }),
      op: fc.oneof(fc.constantFrom(...Object.values(Op)), u16),
      flags: fc.nat(3),
      sourcePort: port,
      destinationPort: port,
      bufferAllocation: u32,
      forwardCount: u32,
      size: fc.constantFrom(0, 1, 100, 4096),
    })
    .map<Act>(({ size, ...fields }) => (vm) => {
      if (vm.guest.tx.freeDescriptors >= 2) vm.guest.send(fields, new Uint8Array(size))
    }),
  fc.tuple(ring, fc.nat(20), descriptor).map<Act>(
    ([which, index, value]) =>
      (vm) =>
        vm.guest[which as 'rx'].setDescriptor(index, value),
  ),
  fc.tuple(ring, fc.nat(15), fc.nat(15)).map<Act>(([which, one, other]) => (vm) => {
    const link = { address: GUEST_BASE, length: 8, flags: DESC_NEXT }
    vm.guest[which as 'rx'].setDescriptor(one, { ...link, next: other })
    vm.guest[which as 'rx'].setDescriptor(other, { ...link, next: one })
    vm.guest[which as 'rx'].offer(one)
  }),
  fc.tuple(ring, u16).map<Act>(
    ([which, head]) =>
      (vm) =>
        vm.guest[which as 'rx'].offer(head),
  ),
  fc.tuple(ring, u16).map<Act>(([which, index]) => (vm) => {
    vm.guest[which as 'rx'].availIndex = index
  }),
  fc.tuple(fc.nat(MEMORY_SIZE - 64), fc.uint8Array({ minLength: 1, maxLength: 64 })).map<Act>(
    ([at, bytes]) =>
      (vm) =>
        vm.guest.memoryBytes.set(bytes, at),
  ),
  fc.tuple(fc.nat(0x2000), fc.uint8Array({ minLength: 1, maxLength: 64 })).map<Act>(
    ([at, bytes]) =>
      (vm) =>
        vm.guest.memoryBytes.set(bytes, 0x1000 + at),
  ),
  fc.tuple(port, fc.constantFrom('stream' as const, 'seqpacket' as const)).map<Act>(([to, type]) => (vm, connections) => {
    const connection = vm.device.muxer.connect(to, vm.now, type)
    if (connection !== undefined) connections.push(connection)
  }),
  fc
    .tuple(fc.nat(100), fc.constantFrom('accept', 'write', 'send', 'end', 'close', 'reset', 'read', 'receive'))
    .map<Act>(([pick, what]) => (vm, connections) => {
      const connection = connections[pick % Math.max(1, connections.length)]
      if (connection === undefined) return
      if (what === 'write') connection.write(new Uint8Array(3000))
      else if (what === 'send') sendAndWithdraw(connection)
      else if (what === 'receive') connection.consumed(connection.readMessage()?.data.length ?? 0, vm.now)
      else if (what === 'read') connection.consumed(connection.read()?.length ?? 0, vm.now)
      else if (what === 'close') connection.close(vm.now)
      else connection[what as 'accept' | 'end' | 'reset']()
    }),
  fc.nat(10_000).map<Act>((ms) => (vm) => vm.advance(ms)),
)

describe('whatever the guest does', () => {
  test('only DeviceError comes out, nothing leaves its memory, nothing grows, and the device can be started again', () => {
    const seen = new Set<string>()
    fc.assert(
      fc.property(fc.array(act, { minLength: 1, maxLength: 60 }), (acts) => {
        for (const code of trial(acts)) seen.add(code)
      }),
      { numRuns: Number(process.env.FUZZ_RUNS ?? 3_000), ...(process.env.FUZZ_RUNS === undefined && { seed: 1 }) },
    )
    // The fuzzing is worth something only if it gets beyond the first check.
    for (const code of [
      'AVAIL_INDEX',
      'DESCRIPTOR_INDEX',
      'DESCRIPTOR_LOOP',
      'OUT_OF_BOUNDS',
      'INDIRECT',
      'CHAIN_TOO_SHORT',
      'DESCRIPTOR_ORDER',
    ]) {
      expect(seen).toContain(code)
    }
  }, 60_000)

  test('memory full of noise', () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat(0xffff_ffff)), (noise) => {
        const { memory, intact } = walled()
        const words = new Uint32Array(memory.buffer, memory.byteOffset, 0x8000 / 4)
        for (let i = 0; i < words.length; i++) words[i] = noise.next().value as number
        const vm = new FakeVm({}, { size: 16, memory })
        vm.guest.tx.availIndex = 1 + (words[0]! % 16)
        vm.guest.rx.availIndex = 1 + (words[1]! % 16)
        vm.device.muxer.connect(1, vm.now)
        expect(() => {
          vm.device.process(vm.rx, vm.tx, vm.now)
        }).toThrow(DeviceError)
        expect(intact()).toBe(true)
      }),
      { numRuns: 50 },
    )
  })
})

describe('attacks by name, through the whole device', () => {
  const fault = (spoil: (vm: FakeVm) => void): string => {
    const vm = new FakeVm({}, { size: 16 })
    spoil(vm)
    try {
      vm.run()
    } catch (error) {
      if (error instanceof DeviceError) return error.code
      throw error
    }
    return 'none'
  }

  test.each<[string, string, (vm: FakeVm) => void]>([
    [
      'a transmit chain without a header',
      'CHAIN_TOO_SHORT',
      ({ guest }) => guest.tx.add([{ address: GUEST_BASE, length: 43, writable: false }]),
    ],
    ['a packet longer than its chain', 'CHAIN_TOO_SHORT', ({ guest }) => guest.send({ op: Op.RW, length: 1 })],
    ['a packet of 4 GiB', 'CHAIN_TOO_SHORT', ({ guest }) => guest.send({ op: Op.RW, length: 0xffff_ffff })],
    [
      'a transmit chain that wants to be written to',
      'DESCRIPTOR_ORDER',
      ({ guest }) => guest.tx.add([{ address: GUEST_BASE, length: 100, writable: true }]),
    ],
    [
      'a receive chain that wants to be read',
      'DESCRIPTOR_ORDER',
      ({ guest, device, now }) => {
        device.muxer.connect(1, now)
        guest.rx.add([{ address: GUEST_BASE, length: 100, writable: false }])
      },
    ],
    [
      'a receive chain with room for a header and nothing else',
      'CHAIN_TOO_SHORT',
      ({ guest, device, now }) => {
        device.muxer.connect(1, now)
        guest.rx.add([{ address: GUEST_BASE, length: 44, writable: true }])
      },
    ],
  ])('%s', (_, code, spoil) => {
    expect(fault(spoil)).toBe(code)
  })

  test('a header that changes while its packet is taken counts as it was first read', () => {
    // The device asks for room between the header and the payload: the moment for the guest to make the packet longer.
    const length = 0x8_0000 + 5000 + 24
    const vm: FakeVm = new FakeVm({
      allocate: (size) => {
        vm.guest.tx.view.setUint32(length, 0xffff_ffff, true)
        return new Uint8Array(size)
      },
    })
    const connection = vm.device.muxer.connect(7, vm.now)!
    const ports = { sourcePort: 7, destinationPort: connection.hostPort }
    vm.guest.send({ op: Op.RESPONSE, ...ports })
    vm.guest.send({ op: Op.RW, ...ports }, Uint8Array.of(1, 2, 3))
    vm.run()
    expect(vm.guest.tx.view.getUint32(length, true)).toBe(0xffff_ffff)
    expect([...connection.read()!]).toEqual([1, 2, 3])
    expect(vm.guest.tx.takeUsed()).toHaveLength(2)
  })

  test('a loop of descriptors ends after as many as the ring has, whatever its size', () => {
    for (const size of [1, 16, 1024]) {
      const vm = new FakeVm({}, { size: Math.max(size, 2) })
      for (let i = 0; i < vm.guest.tx.size; i++) {
        vm.guest.tx.setDescriptor(i, { address: GUEST_BASE, length: 1, flags: DESC_NEXT, next: (i + 1) % vm.guest.tx.size })
      }
      vm.guest.tx.offer(0)
      expect(() => vm.run()).toThrow(expect.objectContaining({ code: 'DESCRIPTOR_LOOP' }))
    }
  })

  test('chains of a thousand empty descriptors cost their own budget: others get their turn', () => {
    const vm = new FakeVm({}, { size: 1024, budget: { bytes: 1 << 20, descriptors: 1024 } })
    const table = 0x9_0000
    const view = vm.guest.tx.view
    for (let i = 0; i < 1000; i++) {
      view.setBigUint64(table + 16 * i, BigInt(GUEST_BASE + 0x8_0000), true)
      view.setUint32(table + 16 * i + 8, i === 999 ? 44 : 0, true)
      view.setUint16(table + 16 * i + 12, i === 999 ? 0 : DESC_NEXT, true)
      view.setUint16(table + 16 * i + 14, i + 1, true)
    }
    for (let i = 0; i < 100; i++) {
      vm.guest.tx.setDescriptor(i, { address: GUEST_BASE + table, length: 16_000, flags: DESC_INDIRECT, next: 0 })
      vm.guest.tx.offer(i)
    }
    expect(vm.device.process(vm.rx, vm.tx, vm.now)).toBe(true)
    expect(vm.guest.tx.takeUsed().length).toBeLessThanOrEqual(2)
  })
})
