import { describe, expect, test } from 'vitest'
import { GUEST_BASE, type GuestPacket, MEMORY_SIZE, opName } from '../../testing/fake-guest.js'
import { FakeVm, GUEST_PORT, heard, open, readAll, reply } from '../../testing/fake-vm.js'
import { Chain } from './chain.js'
import type { Connection } from './connection.js'
import type { DirectPort } from './direct.js'
import { Op, SHUTDOWN_RECEIVE } from './packet.js'
import { Pieces } from './pieces.js'
import { DESC_WRITE } from './vring.js'

/** A socket without a kernel: what waits for the guest, and what came from it. */
class FakePort implements DirectPort {
  waiting: number[] = []
  taken: number[] = []
  /** How many bytes it takes at most at a time. */
  room = Number.POSITIVE_INFINITY
  reads: number[] = []

  read(pieces: Pieces): number {
    this.reads.push(pieces.count)
    const bytes = this.waiting.splice(0, pieces.length)
    let at = 0
    for (const [window, start, length] of runs(pieces)) {
      const run = bytes.slice(at, at + length)
      window.set(run, start)
      at += run.length
    }
    return bytes.length
  }

  write(pieces: Pieces): number {
    const bytes = runs(pieces).flatMap(([window, start, length]) => [...window.subarray(start, start + length)])
    const taken = bytes.slice(0, this.room)
    this.taken.push(...taken)
    return taken.length
  }
}

const runs = ({ windows, words, count }: Pieces): [Uint8Array, number, number][] =>
  Array.from({ length: count }, (_, i) => [windows[words[3 * i]!]!, words[3 * i + 1]!, words[3 * i + 2]!])

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i % 251)

/** A connection with a port; the guest has 39 buffers of 1024 bytes. */
function attached(
  fields: Parameters<typeof open>[1] = {},
  { room, ...surroundings }: ConstructorParameters<typeof FakeVm>[1] & { room?: number } = {},
) {
  const vm = new FakeVm({}, surroundings)
  const connection = open(vm, fields, { room })
  const port = new FakePort()
  connection.attach(port)
  return { vm, connection, port }
}

function arrive(port: FakePort, connection: Connection, bytes: number[]) {
  port.waiting.push(...bytes)
  connection.arrived()
}

const said = (packets: GuestPacket[]) => packets.map((packet) => `${opName(packet)} ${packet.payload.length}`)

describe('bytes that arrive at a port', () => {
  test('fill guest buffers after their headers, twice as many each time', () => {
    const { vm, connection, port } = attached()
    const bytes = numbers(10_000)
    arrive(port, connection, bytes)
    const packets = heard(vm)
    expect(packets.flatMap(({ payload }) => [...payload])).toEqual(bytes)
    expect(said(packets)).toEqual([...Array(9).fill('RW 1024'), 'RW 784'])
    expect(packets[0]!.header).toMatchObject({ sourcePort: connection.hostPort, destinationPort: GUEST_PORT, type: 1, flags: 0 })
    expect(port.reads).toEqual([1, 2, 4, 8])
  })

  test('are seen by a tap as the guest gets them', () => {
    const seen: number[][] = []
    const tap = {
      listener: (_direction: string, header: Uint8Array, payload: Uint8Array) => void seen.push([header[30]!, ...payload]),
    }
    const { vm, connection, port } = attached({}, { tap })
    const bytes = numbers(3_000)
    arrive(port, connection, bytes)
    const packets = heard(vm)
    expect(packets.length).toBe(3)
    expect(seen.slice(-3)).toEqual(packets.map(({ payload }) => [Op.RW, ...payload]))
  })

  test('come after what was written, and leave the buffers that they do not need', () => {
    const { vm, connection, port } = attached()
    arrive(port, connection, numbers(2_500))
    expect(said(heard(vm))).toEqual(['RW 1024', 'RW 1024', 'RW 452'])
    arrive(port, connection, numbers(100))
    connection.write(Uint8Array.of(1, 2, 3))
    expect(said(heard(vm))).toEqual(['RW 3', 'RW 100'])
    // 39 buffers, of which 5 are used.
    expect(vm.rx.pending).toBe(34)
    arrive(port, connection, numbers(100_000))
    expect(heard(vm).length).toBe(34)
  })

  test('wait for credit as what is written does, in packets and to the byte', () => {
    const { vm, connection, port } = attached({ bufferAllocation: 3_000 })
    arrive(port, connection, numbers(4_000))
    // Two packets are all that a guest with so small a buffer is trusted with.
    expect(said(heard(vm))).toEqual(['RW 1024', 'RW 1024', 'CREDIT_REQUEST 0'])
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 4_500, forwardCount: 1_024 })
    expect(said(heard(vm))).toEqual(['RW 1024', 'RW 928'])
    expect(port.waiting).toEqual([])
    const large = attached({ bufferAllocation: 5_000 }, { room: 4_000 })
    arrive(large.port, large.connection, numbers(9_000))
    expect(said(heard(large.vm))).toEqual(['RW 4000', 'RW 1000', 'CREDIT_REQUEST 0'])
    expect(large.port.waiting.length).toBe(4_000)
  })

  test('do not come to a guest that takes no more, and none is lost on the way', () => {
    const { vm, connection, port } = attached()
    port.waiting = numbers(10)
    connection.arrived()
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_RECEIVE })
    expect(said(heard(vm))).toEqual([])
    connection.arrived()
    expect([said(heard(vm)), port.waiting.length]).toEqual([[], 10])
  })

  test('an alarm for nothing costs neither a packet nor a buffer', () => {
    const { vm, connection } = attached()
    connection.arrived()
    expect([said(heard(vm)), vm.rx.pending]).toEqual([[], 39])
    connection.end()
    expect(said(heard(vm))).toEqual(['SHUTDOWN 0'])
  })

  test('a port that is taken away is asked no more', () => {
    const { vm, connection, port } = attached()
    arrive(port, connection, numbers(10))
    connection.attach(undefined)
    connection.arrived()
    reply(vm, connection, Op.RW, {}, Uint8Array.of(7))
    expect([said(heard(vm)), port.reads, port.taken, readAll(connection)]).toEqual([[], [], [], [7]])
  })

  test('fill no more buffers at a time than one call may look at', () => {
    const { vm, connection, port } = attached({}, { budget: { bytes: 1 << 20, descriptors: 4 } })
    arrive(port, connection, numbers(14 * 1024))
    expect(heard(vm).length).toBe(14)
    arrive(port, connection, numbers(14 * 1024))
    expect(vm.device.process(vm.rx, vm.tx, vm.now)).toBe(true)
    // Each has two descriptors.
    expect(vm.guest.received().length).toBe(2)
  })

  test('of a busy connection leave the others their turns', () => {
    const { vm, connection, port } = attached()
    const other = open(vm)
    arrive(port, connection, numbers(60_000))
    other.write(new Uint8Array(6 * 1024))
    const ports = heard(vm).map(({ header }) => header.sourcePort)
    const turns = ports.flatMap((it, i) => (it === other.hostPort ? [i] : []))
    expect(turns.length).toBe(6)
    // As long as another waits, a turn is of eight packets.
    expect(turns[5]).toBeLessThanOrEqual(1 + 2 + 4 + 8 + 8 + 8 + 5)
    expect(Math.max(...port.reads)).toBeGreaterThan(8)
  })
})

describe('bytes for a port', () => {
  test('are taken from the buffers of the guest, which has its credit at once', () => {
    const { vm, connection, port } = attached()
    for (let i = 0; i < 20; i++) reply(vm, connection, Op.RW, {}, Uint8Array.from(numbers(2_000)))
    const packets = heard(vm)
    expect(port.taken.length).toBe(40_000)
    expect(connection.inputPending).toBe(0)
    expect(packets.map(({ header }) => [header.op, header.forwardCount])).toEqual([[Op.CREDIT_UPDATE, 40_000]])
    expect(vm.device.muxer.takeNews()).toEqual([connection])
    expect(vm.device.muxer.takeNews()).toEqual([])
  })

  test('that it does not take wait for the reader, and so do those that follow', () => {
    const { vm, connection, port } = attached()
    port.room = 5
    reply(vm, connection, Op.RW, {}, Uint8Array.from(numbers(12)))
    reply(vm, connection, Op.RW, {}, Uint8Array.of(90))
    vm.run()
    expect(port.taken).toEqual(numbers(5))
    expect(readAll(connection)).toEqual([...numbers(12).slice(5), 90])
    reply(vm, connection, Op.RW, {}, Uint8Array.of(91))
    vm.run()
    expect(port.taken).toEqual([...numbers(5), 91])
  })

  test('count against the credit of the guest, taken or not', () => {
    const { vm, connection, port } = attached()
    port.room = 0
    for (let i = 0; i < 16; i++) reply(vm, connection, Op.RW, {}, new Uint8Array(4096))
    vm.run()
    expect(connection.state).toBe('open')
    reply(vm, connection, Op.RW, {}, new Uint8Array(1))
    vm.run()
    expect(connection.outcome).toBe('violation')
  })
})

describe('a guest that lies', () => {
  test('with a header that claims more than its buffers hold: the port gets none of it', () => {
    const { vm, connection, port } = attached()
    vm.guest.send({ op: Op.RW, sourcePort: GUEST_PORT, destinationPort: connection.hostPort, length: 5_000 }, Uint8Array.of(1))
    // FakeGuest writes the length that it is told; the buffers hold one byte.
    expect(() => vm.run()).toThrow(/claims 5000 bytes/)
    expect(port.taken).toEqual([])
  })

  test('with a receive buffer outside of its memory, among good ones: nothing is read, and the ring is as it was', () => {
    const { vm, connection, port } = attached()
    arrive(port, connection, numbers(20_000))
    const { base } = vm.rx
    const bad = (base + 2) & 0xffff
    const head = vm.guest.rx.view.getUint16(vm.guest.rx.availAt + 4 + 2 * (bad % vm.guest.rx.size), true)
    vm.guest.rx.setDescriptor(head, { address: GUEST_BASE + MEMORY_SIZE, length: 100, flags: DESC_WRITE, next: 0 })
    expect(() => vm.run()).toThrow(/does not lie inside guest memory/)
    // The first buffer was filled before the bad one was seen.
    expect([vm.rx.base, port.waiting.length]).toEqual([(base + 1) & 0xffff, 20_000 - 1024])
    expect(said(vm.guest.received())).toEqual(['RW 1024'])
  })

  test('with a thousand buffers of a byte: a burst has its bound', () => {
    const memory = new Uint8Array(MEMORY_SIZE)
    const pieces = new Pieces()
    const chain = new Chain()
    chain.begin(0)
    for (let i = 0; i < 3_000; i++) chain.append(memory, i, 1, true)
    expect([chain.room(44, 2_956, pieces), pieces.count, pieces.words[0 + 1]]).toEqual([1024, 1024, 44])
    pieces.clear()
    expect([pieces.count, pieces.length, pieces.windows.length]).toEqual([0, 0, 0])
  })

  test('with buffers of no bytes between others: they cost no piece', () => {
    const [one, two] = [new Uint8Array(10), new Uint8Array(10)]
    const chain = new Chain()
    const pieces = new Pieces()
    chain.begin(0)
    for (const [window, length] of [
      [one, 3],
      [one, 0],
      [two, 4],
      [one, 2],
    ] as const)
      chain.append(window, 1, length, false)
    chain.skip(2)
    chain.rest(6, pieces)
    expect(runs(pieces)).toEqual([
      [one, 3, 1],
      [two, 1, 4],
      [one, 1, 1],
    ])
    expect(pieces.windows).toEqual([one, two])
  })
})
