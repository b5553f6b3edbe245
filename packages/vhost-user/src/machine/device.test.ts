import { describe, expect, test } from 'vitest'
import { opName } from '../../testing/fake-guest.js'
import { FakeVm, GUEST_PORT, heard, open, readAll, reply } from '../../testing/fake-vm.js'
import type { Connection } from './connection.js'
import { FIRST_HOST_PORT, LAST_HOST_PORT } from './muxer.js'
import { Op } from './packet.js'

describe('a connection from the host', () => {
  test("REQUEST carries our port, our credit and the guest's CID", () => {
    const vm = new FakeVm()
    vm.guest.supply(4)
    vm.device.muxer.connect(GUEST_PORT, vm.now)
    const [packet] = heard(vm)
    expect(packet!.header).toEqual({
      sourceCid: 2,
      destinationCid: 42,
      sourcePort: FIRST_HOST_PORT,
      destinationPort: GUEST_PORT,
      length: 0,
      type: 1,
      op: Op.REQUEST,
      flags: 0,
      bufferAllocation: 65536,
      forwardCount: 0,
    })
  })

  test('RST is a refusal', () => {
    const vm = new FakeVm()
    const connection = vm.device.muxer.connect(GUEST_PORT, vm.now)!
    reply(vm, connection, Op.RST)
    vm.run()
    expect([connection.state, connection.outcome]).toEqual(['closed', 'refused'])
    expect(vm.device.muxer.takeNews()).toEqual([connection])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('silence is a timeout, and the guest hears a RST', () => {
    const vm = new FakeVm()
    vm.guest.supply(4)
    const connection = vm.device.muxer.connect(GUEST_PORT, vm.now)!
    heard(vm)
    vm.advance(1_999)
    expect(connection.state).toBe('connecting')
    expect(vm.device.muxer.wakeAt).toBe(3_000)
    vm.advance(1)
    expect(connection.outcome).toBe('timeout')
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('a REQUEST that never left is taken back without a RST', () => {
    const vm = new FakeVm()
    const connection = vm.device.muxer.connect(GUEST_PORT, vm.now)!
    vm.run()
    connection.reset()
    vm.guest.supply(4)
    expect(heard(vm)).toEqual([])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('opens for a guest that answers before the REQUEST has left, which it gets all the same', () => {
    const vm = new FakeVm()
    const connection = vm.device.muxer.connect(GUEST_PORT, vm.now)!
    reply(vm, connection, Op.RESPONSE)
    vm.run()
    expect(connection.state).toBe('open')
    vm.guest.supply(4)
    expect(heard(vm).map(opName)).toEqual(['REQUEST'])
    expect(connection.state).toBe('open')
  })

  test('ports count up from 2^30', () => {
    const vm = new FakeVm()
    const ports = [1, 2, 3].map(() => vm.device.muxer.connect(GUEST_PORT, vm.now)!.hostPort)
    expect(ports).toEqual([FIRST_HOST_PORT, FIRST_HOST_PORT + 1, FIRST_HOST_PORT + 2])
  })

  test('host ports begin where they are told to, and the last is followed by the first', () => {
    const vm = new FakeVm({ firstHostPort: LAST_HOST_PORT - 1 })
    const ports = [1, 2, 3].map(() => vm.device.muxer.connect(GUEST_PORT, vm.now)!.hostPort)
    expect(ports).toEqual([LAST_HOST_PORT - 1, LAST_HOST_PORT, FIRST_HOST_PORT])
    expect(vm.device.muxer.nextHostPort).toBe(FIRST_HOST_PORT + 1)
  })

  test('the table has an end', () => {
    const vm = new FakeVm({ maxConnections: 2 })
    expect(vm.device.muxer.connect(1, 0)).toBeDefined()
    expect(vm.device.muxer.connect(1, 0)).toBeDefined()
    expect(vm.device.muxer.connect(1, 0)).toBeUndefined()
  })
})

describe('a connection from the guest', () => {
  const request = (vm: FakeVm): Connection => {
    vm.guest.supply(8)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 1025, destinationPort: 80 })
    vm.run()
    const [connection] = vm.device.muxer.takeNews()
    expect(connection).toMatchObject({ state: 'accepting', hostPort: 80, guestPort: 1025 })
    return connection!
  }

  test('waits until it is accepted', () => {
    const vm = new FakeVm()
    const connection = request(vm)
    expect(vm.guest.received()).toEqual([])
    connection.accept()
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.RESPONSE, sourcePort: 80, destinationPort: 1025 })
    expect(connection.state).toBe('open')
  })

  test('is refused with a RST', () => {
    const vm = new FakeVm()
    const connection = request(vm)
    connection.reset()
    expect(heard(vm).map(opName)).toEqual(['RST'])
  })

  test('does not wait for ever', () => {
    const vm = new FakeVm()
    const connection = request(vm)
    vm.advance(2_000)
    expect(connection.outcome).toBe('timeout')
    expect(heard(vm).map(opName)).toEqual(['RST'])
  })

  test('a second REQUEST for it resets it', () => {
    const vm = new FakeVm()
    const connection = request(vm)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 1025, destinationPort: 80 })
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(connection.outcome).toBe('violation')
  })

  test('beyond the end of the table gets a RST', () => {
    const vm = new FakeVm({ maxConnections: 1 })
    request(vm)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 1026, destinationPort: 80 })
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.RST, sourcePort: 80, destinationPort: 1026 })
  })
})

describe('bytes', () => {
  test('both ways', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1, 2, 3))
    reply(vm, connection, Op.RW, {}, Uint8Array.of(4))
    vm.run()
    expect(readAll(connection)).toEqual([1, 2, 3, 4])
    connection.write(Uint8Array.of(7, 8))
    connection.write(Uint8Array.of(9))
    const packets = heard(vm)
    expect(packets.map(opName)).toEqual(['RW'])
    expect([...packets[0]!.payload]).toEqual([7, 8, 9])
    expect(connection.outputPending).toBe(0)
  })

  test("a write goes out in pieces of the guest's buffers, in order", () => {
    const vm = new FakeVm()
    const connection = open(vm)
    const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 253)
    connection.write(bytes)
    const payloads = heard(vm).map(({ payload }) => payload)
    expect(payloads.every((payload) => payload.length <= 1024)).toBe(true)
    expect(Buffer.concat(payloads)).toEqual(Buffer.from(bytes))
  })

  test('the credit of the guest bounds what is under way; its last word is asked for once', () => {
    const vm = new FakeVm()
    const connection = open(vm, { bufferAllocation: 2500 }, { room: 2000 })
    connection.write(new Uint8Array(5000))
    expect(heard(vm).map((packet) => [opName(packet), packet.payload.length])).toEqual([
      ['RW', 2000],
      ['RW', 500],
      ['CREDIT_REQUEST', 0],
    ])
    expect(heard(vm)).toEqual([])
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 2500, forwardCount: 2000 })
    expect(heard(vm).map((packet) => [opName(packet), packet.payload.length])).toEqual([
      ['RW', 2000],
      ['CREDIT_REQUEST', 0],
    ])
    expect(connection.outputPending).toBe(500)
  })

  test('counters wrap at 2^32, in both directions', () => {
    const vm = new FakeVm()
    // The guest's counter begins just below the wrap, as if 2^32 - 500 bytes had gone before.
    const connection = open(vm, { bufferAllocation: 1000, forwardCount: 2 ** 32 - 500 })
    connection.write(new Uint8Array(2000))
    expect(heard(vm).find((packet) => opName(packet) === 'RW')!.payload.length).toBe(500)

    const other = open(vm, { bufferAllocation: 4 })
    let forwarded = 0
    for (let i = 0; i < 70_000; i++) {
      // 61,440 bytes 70,000 times is more than 2^32.
      forwarded = (forwarded + 61_440) >>> 0
      other.consumed(61_440, vm.now)
    }
    reply(vm, other, Op.CREDIT_REQUEST)
    const update = heard(vm).filter((packet) => packet.header.sourcePort === other.hostPort)
    expect(update.at(-1)!.header.forwardCount).toBe((70_000 * 61_440) % 2 ** 32)
  })

  test('the guest is told of credit when half of it was taken', () => {
    const vm = new FakeVm({ bufferBytes: 4096 })
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, new Uint8Array(2048))
    vm.run()
    readAll(connection)
    connection.consumed(2047, vm.now)
    expect(heard(vm)).toEqual([])
    connection.consumed(1, vm.now)
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.CREDIT_UPDATE, forwardCount: 2048, bufferAllocation: 4096 })
  })

  test('more than its credit resets the connection of the guest, and nothing of it is kept', () => {
    const vm = new FakeVm({ bufferBytes: 4096 })
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, new Uint8Array(4096))
    reply(vm, connection, Op.RW, {}, new Uint8Array(1))
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect([connection.outcome, connection.inputPending]).toEqual(['violation', 4096])
  })

  test('a guest that claims to have taken more than was sent starves itself alone', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.CREDIT_UPDATE, { forwardCount: 1, bufferAllocation: 1000 })
    vm.run()
    connection.write(new Uint8Array(10))
    expect(heard(vm).map(opName)).toEqual(['CREDIT_REQUEST'])
  })

  test('packets of one byte do not cost an object each', () => {
    let allocations = 0
    const vm = new FakeVm({
      allocate: (size) => {
        allocations++
        return new Uint8Array(size)
      },
    })
    const connection = open(vm)
    for (let i = 0; i < 2_000; i++) {
      reply(vm, connection, Op.RW, {}, Uint8Array.of(i & 0xff))
      vm.run()
      vm.guest.tx.takeUsed()
    }
    expect(allocations).toBeLessThanOrEqual(2)
    expect(readAll(connection)).toEqual(Array.from({ length: 2_000 }, (_, i) => i & 0xff))
  })
})

describe('strangers', () => {
  test.each([Op.RESPONSE, Op.RW, Op.SHUTDOWN, Op.CREDIT_UPDATE, Op.CREDIT_REQUEST, 0, 99])(
    'op %i for no connection is answered with a RST',
    (op) => {
      const vm = new FakeVm()
      vm.guest.supply(2)
      vm.guest.send({ op, sourcePort: 7, destinationPort: 9 })
      const [packet] = heard(vm)
      expect(packet!.header).toMatchObject({ op: Op.RST, sourcePort: 9, destinationPort: 7 })
    },
  )

  test('a RST for no connection is not answered', () => {
    const vm = new FakeVm()
    vm.guest.supply(2)
    vm.guest.send({ op: Op.RST, sourcePort: 7, destinationPort: 9 })
    expect(heard(vm)).toEqual([])
  })

  test('another type of socket is refused with that type', () => {
    const vm = new FakeVm()
    vm.guest.supply(2)
    vm.guest.send({ op: Op.REQUEST, type: 2, sourcePort: 7, destinationPort: 9 })
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.RST, type: 2 })
  })

  test('a packet in the name of another guest is dropped', () => {
    const vm = new FakeVm()
    vm.guest.supply(2)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9, sourceCid: 43 })
    expect(heard(vm)).toEqual([])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('a packet to a CID of more than 32 bits is dropped: a reset could not name it', () => {
    const vm = new FakeVm()
    vm.guest.supply(2)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9 })
    vm.guest.memoryBytes[0x8_0000 + 12] = 1
    expect(heard(vm)).toEqual([])
    expect(vm.device.size).toBe(0)
  })

  test('a CID without a guest answers with a reset', () => {
    const vm = new FakeVm()
    vm.guest.supply(2)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9, destinationCid: 3 })
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.RST, sourceCid: 3, sourcePort: 9, destinationPort: 7 })
  })

  test('each of the CIDs of the host is the host, and answers with the CID that was dialled', () => {
    const vm = new FakeVm({ hostCids: [2, 3] })
    vm.guest.supply(8)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9, destinationCid: 3 })
    vm.run()
    const [connection] = vm.device.muxer.takeNews()
    expect(connection).toMatchObject({ hostCid: 3, hostPort: 9, guestPort: 7 })
    connection!.accept()
    expect(heard(vm).map(({ header }) => header)).toMatchObject([{ op: Op.RESPONSE, sourceCid: 3 }])
    // The same ports with another CID are another connection, for which there is no room.
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9 })
    expect(heard(vm).map(({ header }) => header)).toMatchObject([{ op: Op.RST, sourceCid: 2 }])
    expect(connection!.state).toBe('open')
  })

  test('every CID without a guest is the host, if any may be', () => {
    const vm = new FakeVm({ hostCids: 'any' })
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9, destinationCid: 1234 })
    vm.run()
    expect(vm.device.muxer.takeNews()).toMatchObject([{ hostCid: 1234 }])
  })

  test('a guest that asks and never listens does not make the list of resets grow', () => {
    const vm = new FakeVm()
    for (let i = 0; i < 120; i++) vm.guest.send({ op: Op.RW, sourcePort: i, destinationPort: 9 })
    vm.run()
    expect(vm.guest.tx.takeUsed()).toHaveLength(64)
    vm.guest.supply(64)
    expect(heard(vm)).toHaveLength(64)
    vm.guest.supply(64)
    expect(heard(vm)).toHaveLength(56)
    expect(vm.guest.tx.takeUsed()).toHaveLength(56)
  })
})

describe('fairness', () => {
  test('connections with much to send take turns', () => {
    const vm = new FakeVm()
    const connections = [open(vm), open(vm), open(vm)]
    // Whatever buffers are left from the handshakes are used up first.
    connections[0]!.write(new Uint8Array(60_000))
    while (heard(vm).length > 0);
    reply(vm, connections[0]!, Op.CREDIT_UPDATE, { bufferAllocation: 2 ** 31 })
    vm.run()
    for (const connection of connections) connection.write(new Uint8Array(20_000))
    vm.guest.supply(9)
    const order = heard(vm).map(({ header }) => header.sourcePort)
    expect(new Set(order.slice(0, 3)).size).toBe(3)
    expect(order.slice(3, 6)).toEqual(order.slice(0, 3))
    expect(order.slice(6, 9)).toEqual(order.slice(0, 3))
  })

  test('a guest that floods one ring is still served on the other', () => {
    const vm = new FakeVm({}, { budget: { bytes: 100_000, descriptors: 1024 } })
    const connection = open(vm)
    connection.write(Uint8Array.of(1, 2, 3))
    for (let i = 0; i < 50; i++) vm.guest.send({ op: Op.RST, sourcePort: 1, destinationPort: 1 }, new Uint8Array(4_000))
    expect(vm.device.process(vm.rx, vm.tx, vm.now)).toBe(true)
    expect(vm.guest.received().map(opName)).toEqual(['RW'])
  })

  test('one call does no more than its budget, however much the guest offers', () => {
    const vm = new FakeVm({}, { budget: { bytes: 4096, descriptors: 1024 } })
    const connection = open(vm)
    for (let i = 0; i < 20; i++) reply(vm, connection, Op.RW, {}, new Uint8Array(1000))
    expect(vm.device.process(vm.rx, vm.tx, vm.now)).toBe(true)
    expect(connection.inputPending).toBeLessThanOrEqual(5_000)
    vm.run()
    expect(connection.inputPending).toBe(20_000)
  })
})

describe('a driver that has gone', () => {
  test('takes every connection along, without a packet', () => {
    const vm = new FakeVm()
    const connections = [open(vm), open(vm)]
    vm.device.muxer.takeNews()
    vm.device.muxer.abandon()
    expect(connections.map(({ outcome }) => outcome)).toEqual(['reset', 'reset'])
    expect(vm.device.muxer.takeNews()).toEqual(connections)
    expect([vm.device.muxer.size, vm.device.muxer.outgoing]).toEqual([0, false])
  })

  test('nor does the next driver hear of what the old one was owed, even if a reader goes on', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1))
    reply(vm, connection, Op.RESPONSE)
    vm.device.process(undefined, vm.tx, vm.now)
    expect(connection.outcome).toBe('violation')
    vm.device.muxer.abandon()
    expect(readAll(connection)).toEqual([1])
    connection.consumed(1, vm.now)
    expect(heard(vm)).toEqual([])
  })
})

describe('interrupts', () => {
  test('packets are announced at once, used transmit buffers when a quarter of the ring is', () => {
    const vm = new FakeVm({}, { size: 16 })
    vm.guest.supply(2)
    vm.guest.send({ op: Op.RST })
    vm.run()
    expect(vm.device.announce(vm.rx, vm.tx)).toEqual({ rx: false, tx: false, owed: true })
    vm.device.muxer.connect(GUEST_PORT, vm.now)
    vm.run()
    expect(vm.device.announce(vm.rx, vm.tx)).toEqual({ rx: true, tx: false, owed: true })
    for (let i = 0; i < 3; i++) vm.guest.send({ op: Op.RST })
    vm.run()
    expect(vm.device.announce(vm.rx, vm.tx)).toEqual({ rx: false, tx: true, owed: false })
    expect(vm.device.settle(vm.tx)).toBe(false)
  })

  test('what was put off is settled once', () => {
    const vm = new FakeVm({}, { size: 16 })
    vm.guest.send({ op: Op.RST })
    vm.run()
    vm.device.announce(vm.rx, vm.tx)
    expect(vm.device.settle(vm.tx)).toBe(true)
    expect(vm.device.settle(vm.tx)).toBe(false)
  })
})
