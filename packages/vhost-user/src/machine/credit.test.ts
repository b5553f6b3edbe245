import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { opName } from '../../testing/fake-guest.js'
import { FakeVm, heard, open, reply } from '../../testing/fake-vm.js'
import type { Kernel } from '../../testing/linux-end.js'
import { drive, LinuxSocket } from '../../testing/linux-socket.js'
import type { Connection } from './connection.js'
import { Op } from './packet.js'

const KIB = 1024
const BUFFERS = [4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 100_000, 256 * KIB, 1024 * KIB, 4096 * KIB]
const KERNELS: Kernel[] = ['6.1', '6.12.100', '6.12.117']

interface Pair {
  device: number
  guest: number
  kernel?: Kernel
  /** Of the guest's receive buffers. */
  room?: number
  limit?: number
}

/** A connection whose two ends have buffers of their own. */
function pair({ device, guest, kernel, room = 4000, limit }: Pair) {
  const vm = new FakeVm({ bufferBytes: device })
  const connection = open(vm, { bufferAllocation: guest }, { room })
  const options = { bufferBytes: guest, peerAllocation: device, ...(kernel && { kernel }), ...(limit && { limit }) }
  const socket = new LinuxSocket(vm, connection, options)
  socket.room = room
  return { vm, connection, socket }
}

/** The host's program reads what there is, and says so in pieces of `piece` bytes. */
function hostReads(vm: FakeVm, connection: Connection, piece = Number.POSITIVE_INFINITY): number {
  let bytes = 0
  for (let chunk = connection.read(); chunk !== undefined; chunk = connection.read()) bytes += chunk.length
  for (let left = bytes; left > 0; left -= piece) connection.consumed(Math.min(left, piece), vm.now)
  return bytes
}

/** Carries `toHost` and `toGuest` bytes at once; says how often everything waited for the time. */
function transfer(
  { vm, connection, socket }: ReturnType<typeof pair>,
  { toHost = 0, toGuest = 0, piece, write = 3000 }: { toHost?: number; toGuest?: number; piece?: number; write?: number },
): number {
  let [got, written] = [0, 0]
  return drive(vm, () => {
    let moved = socket.receive()
    if (socket.sent < toHost) moved = socket.write(toHost - socket.sent) || moved
    const bytes = hostReads(vm, connection, piece)
    got += bytes
    if (written < toGuest && connection.outputPending === 0) {
      const chunk = new Uint8Array(Math.min(write, toGuest - written))
      written += chunk.length
      connection.write(chunk)
      moved = true
    }
    moved = socket.consume(Number.POSITIVE_INFINITY) || moved || bytes > 0
    return { moved, done: got === toHost && socket.read === toGuest }
  })
}

describe.each(BUFFERS)('a device with a buffer of %i bytes', (device) => {
  const bytes = 600 * KIB

  test.each(BUFFERS)('takes whatever a guest with a buffer of %i bytes sends, without a pause', (guest) => {
    expect(transfer(pair({ device, guest }), { toHost: bytes })).toBe(0)
  })

  test.each(BUFFERS)('gives it and takes at the same time', (guest) => {
    for (const kernel of KERNELS) expect(transfer(pair({ device, guest, kernel }), { toHost: bytes, toGuest: bytes })).toBe(0)
  })
})

describe('credit towards the guest', () => {
  test('is told at half of the smaller buffer, whosever it is', () => {
    for (const [device, guest] of [
      [16 * KIB, 8 * KIB],
      [8 * KIB, 16 * KIB],
    ] as const) {
      const { vm, connection } = pair({ device, guest })
      reply(vm, connection, Op.RW, { bufferAllocation: guest }, new Uint8Array(4096))
      vm.run()
      connection.read()
      connection.consumed(4095, vm.now)
      expect(heard(vm)).toEqual([])
      connection.consumed(1, vm.now)
      expect(heard(vm).map(opName)).toEqual(['CREDIT_UPDATE'])
    }
  })

  test('is told soon when everything was taken, and once', () => {
    const { vm, connection } = pair({ device: 64 * KIB, guest: 64 * KIB })
    reply(vm, connection, Op.RW, {}, new Uint8Array(10))
    vm.run()
    hostReads(vm, connection)
    expect(heard(vm)).toEqual([])
    vm.advance(19)
    expect(heard(vm)).toEqual([])
    vm.advance(1)
    expect(heard(vm).map(({ header }) => [header.op, header.forwardCount])).toEqual([[Op.CREDIT_UPDATE, 10]])
    vm.advance(1_000)
    expect(heard(vm)).toEqual([])
  })

  test('goes with the next packet, and needs none of its own then', () => {
    const { vm, connection } = pair({ device: 64 * KIB, guest: 64 * KIB })
    reply(vm, connection, Op.RW, {}, new Uint8Array(10))
    vm.run()
    hostReads(vm, connection)
    connection.write(Uint8Array.of(1))
    expect(heard(vm).map(({ header }) => [header.op, header.forwardCount])).toEqual([[Op.RW, 10]])
    vm.advance(1_000)
    expect(heard(vm)).toEqual([])
  })

  test('a guest whose buffer shrinks is told of what was too little before', () => {
    const { vm, connection, socket } = pair({ device: 256 * KIB, guest: 256 * KIB })
    reply(vm, connection, Op.RW, { bufferAllocation: 256 * KIB }, new Uint8Array(4000))
    vm.run()
    hostReads(vm, connection)
    expect(heard(vm)).toEqual([])
    socket.resize(8000)
    expect(heard(vm).map(({ header }) => [header.op, header.forwardCount])).toEqual([[Op.CREDIT_UPDATE, 4000]])
  })

  test('a guest that stops earlier than any buffer says goes on soon', () => {
    const waits = transfer(pair({ device: 256 * KIB, guest: 256 * KIB, limit: 10_000 }), { toHost: 100_000 })
    expect(waits).toBeLessThanOrEqual(11)
  })

  test('nothing is told of a guest that has closed its sending half', () => {
    const { vm, connection } = pair({ device: 64 * KIB, guest: 64 * KIB })
    reply(vm, connection, Op.RW, {}, new Uint8Array(40_000 / 10))
    reply(vm, connection, Op.SHUTDOWN, { flags: 2 })
    vm.run()
    hostReads(vm, connection)
    vm.advance(1_000)
    expect(heard(vm)).toEqual([])
  })
})

describe('a guest that does not read', () => {
  test.each(KERNELS)('gets no more packets than its kernel bears (%s), and all of them later', (kernel) => {
    const scene = pair({ device: 256 * KIB, guest: 256 * KIB, kernel, room: 1000 })
    const { vm, connection, socket } = scene
    // Each write has a packet of its own, as long as there is credit: 200 bytes, too long to be joined to the one before.
    for (let i = 0; i < 1000; i++) {
      connection.write(new Uint8Array(200))
      vm.run()
      socket.receive()
    }
    expect(socket.mostPackets).toBe(256)
    expect(connection.outputPending).toBeGreaterThan(0)
    // It is asked again, ever more rarely, and says each time that it has read nothing.
    for (let i = 0; i < 20; i++) {
      vm.advance(1_000)
      vm.run()
      socket.receive()
    }
    expect(connection.outputPending).toBe(1000 * 200 - 256 * 200)
    // A 6.1 kernel does not tell that its program reads, as far more than 64 KiB are free.
    const waits = drive(vm, () => {
      const moved = socket.receive()
      return { moved: socket.consume(Number.POSITIVE_INFINITY) || moved, done: socket.read === 200_000 }
    })
    expect(waits).toBeLessThanOrEqual(kernel === '6.1' ? 3 : 0)
    expect(connection.state).toBe('open')
  })

  test('is asked after 10, 20, 40 ms and so on, and then every 500 ms', () => {
    const { vm, connection } = pair({ device: 64 * KIB, guest: 4 * KIB })
    connection.write(new Uint8Array(10_000))
    heard(vm)
    const asked: number[] = []
    for (const end = vm.now + 2_500; vm.now < end; ) {
      const next = vm.device.muxer.wakeAt
      asked.push(next - vm.now)
      vm.advance(next - vm.now)
      expect(heard(vm).map(opName)).toEqual(['CREDIT_REQUEST'])
      reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 4 * KIB, forwardCount: 0 })
      expect(heard(vm)).toEqual([])
      vm.guest.supply(1)
    }
    expect(asked).toEqual([10, 20, 40, 80, 160, 320, 500, 500, 500, 500])
  })

  test('a guest with room for less than one packet gets one all the same', () => {
    const { vm, connection } = pair({ device: 64 * KIB, guest: 500, room: 4000 })
    connection.write(new Uint8Array(10_000))
    expect(heard(vm).map(({ header }) => header.length)).toEqual([500, 0])
  })
})

test('no two buffers, kernels, writes and reads stand still', () => {
  const sizes = fc.integer({ min: 4 * KIB, max: 300 * KIB })
  const scenes = fc.record({
    device: sizes,
    guest: sizes,
    kernel: fc.constantFrom(...KERNELS),
    room: fc.constantFrom(100, 1000, 4000),
    piece: fc.integer({ min: 50, max: 100_000 }),
    write: fc.integer({ min: 20, max: 60_000 }),
  })
  fc.assert(
    fc.property(scenes, ({ piece, write, ...each }) => {
      transfer(pair(each), { toHost: 400 * KIB, toGuest: 200 * KIB, piece, write })
    }),
    { numRuns: 60, seed: 7 },
  )
})
