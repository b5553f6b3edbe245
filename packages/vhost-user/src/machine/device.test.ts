import { describe, expect, test } from 'vitest'
import { type GuestPacket, opName } from '../../testing/fake-guest.js'
import { FakeVm } from '../../testing/fake-vm.js'
import type { VsockConnection } from './connection.js'
import { FIRST_HOST_PORT } from './muxer.js'
import { Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './packet.js'

const GUEST_PORT = 5000

/** A connection from the host, past its handshake. */
function open(vm: FakeVm, fields: { bufferAllocation?: number; forwardCount?: number } = {}): VsockConnection {
  vm.guest.supply(32)
  const connection = vm.device.muxer.connect(GUEST_PORT, vm.now)!
  vm.run()
  expect(vm.guest.received().map(opName)).toEqual(['REQUEST'])
  reply(vm, connection, Op.RESPONSE, fields)
  vm.run()
  expect(connection.state).toBe('open')
  vm.guest.supply(32)
  return connection
}

const reply = (vm: FakeVm, { hostPort, guestPort }: VsockConnection, op: number, fields = {}, payload?: Uint8Array): void =>
  vm.guest.send({ op, sourcePort: guestPort, destinationPort: hostPort, ...fields }, payload)

/** Runs the device and lists what it said. */
function heard(vm: FakeVm): GuestPacket[] {
  vm.run()
  return vm.guest.received()
}

function call<T extends VsockConnection>(vm: FakeVm, connection: T, action: (connection: T) => void): void {
  action(connection)
  vm.device.muxer.touch(connection)
}

function readAll(connection: VsockConnection): number[] {
  const bytes: number[] = []
  for (let chunk = connection.read(); chunk !== undefined; chunk = connection.read()) bytes.push(...chunk)
  return bytes
}

describe('a connection from the host', () => {
  test('REQUEST carries our port, our credit and the guest’s CID', () => {
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
    expect(vm.device.muxer.nextTimeout()).toBe(3_000)
    vm.advance(1)
    expect(connection.outcome).toBe('timeout')
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('a REQUEST that never left is taken back without a RST', () => {
    const vm = new FakeVm()
    const connection = vm.device.muxer.connect(GUEST_PORT, vm.now)!
    vm.run()
    call(vm, connection, (it) => it.reset())
    vm.guest.supply(4)
    expect(heard(vm)).toEqual([])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('ports count up from 2^30', () => {
    const vm = new FakeVm()
    const ports = [1, 2, 3].map(() => vm.device.muxer.connect(GUEST_PORT, vm.now)!.hostPort)
    expect(ports).toEqual([FIRST_HOST_PORT, FIRST_HOST_PORT + 1, FIRST_HOST_PORT + 2])
  })

  test('the table has an end', () => {
    const vm = new FakeVm({ maxConnections: 2 })
    expect(vm.device.muxer.connect(1, 0)).toBeDefined()
    expect(vm.device.muxer.connect(1, 0)).toBeDefined()
    expect(vm.device.muxer.connect(1, 0)).toBeUndefined()
  })
})

describe('a connection from the guest', () => {
  const request = (vm: FakeVm): VsockConnection => {
    vm.guest.supply(8)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 1025, destinationPort: 80 })
    vm.run()
    const [connection] = vm.device.muxer.takeNews()
    expect(connection).toMatchObject({ state: 'accepting', initiator: 'guest', hostPort: 80, guestPort: 1025 })
    return connection!
  }

  test('waits until it is accepted', () => {
    const vm = new FakeVm()
    const connection = request(vm)
    expect(vm.guest.received()).toEqual([])
    call(vm, connection, (it) => it.accept())
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.RESPONSE, sourcePort: 80, destinationPort: 1025 })
    expect(connection.state).toBe('open')
  })

  test('is refused with a RST', () => {
    const vm = new FakeVm()
    const connection = request(vm)
    call(vm, connection, (it) => it.reset())
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

  test('beyond the table’s end gets a RST', () => {
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
    call(vm, connection, (it) => it.write(Uint8Array.of(7, 8)))
    call(vm, connection, (it) => it.write(Uint8Array.of(9)))
    const packets = heard(vm)
    expect(packets.map(opName)).toEqual(['RW'])
    expect([...packets[0]!.payload]).toEqual([7, 8, 9])
    expect(connection.outputPending).toBe(0)
  })

  test('a write goes out in pieces of the guest’s buffers, in order', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 253)
    call(vm, connection, (it) => it.write(bytes))
    const payloads = heard(vm).map(({ payload }) => payload)
    expect(payloads.every((payload) => payload.length <= 1024)).toBe(true)
    expect(Buffer.concat(payloads)).toEqual(Buffer.from(bytes))
  })

  test('the guest’s credit bounds what is under way; its last word is asked for once', () => {
    const vm = new FakeVm()
    const connection = open(vm, { bufferAllocation: 1500 })
    call(vm, connection, (it) => it.write(new Uint8Array(4000)))
    expect(heard(vm).map((packet) => [opName(packet), packet.payload.length])).toEqual([
      ['RW', 1024],
      ['RW', 476],
      ['CREDIT_REQUEST', 0],
    ])
    expect(heard(vm)).toEqual([])
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 1500, forwardCount: 1000 })
    expect(heard(vm).map((packet) => [opName(packet), packet.payload.length])).toEqual([
      ['RW', 1000],
      ['CREDIT_REQUEST', 0],
    ])
    expect(connection.outputPending).toBe(1500)
  })

  test('counters wrap at 2^32, in both directions', () => {
    const vm = new FakeVm()
    // The guest’s counter begins just below the wrap, as if 2^32 - 500 bytes had gone before.
    const connection = open(vm, { bufferAllocation: 1000, forwardCount: 2 ** 32 - 500 })
    call(vm, connection, (it) => it.write(new Uint8Array(2000)))
    expect(heard(vm).find((packet) => opName(packet) === 'RW')!.payload.length).toBe(500)

    const other = open(vm, { bufferAllocation: 4 })
    let forwarded = 0
    for (let i = 0; i < 70_000; i++) {
      // 61,440 bytes 70,000 times is past 2^32.
      call(vm, other, (it) => {
        const internals = 61_440
        forwarded = (forwarded + internals) >>> 0
        it.consumed(internals, vm.now)
      })
    }
    reply(vm, other, Op.CREDIT_REQUEST)
    const update = heard(vm).filter((packet) => packet.header.sourcePort === other.hostPort)
    expect(update.at(-1)!.header.forwardCount).toBe((70_000 * 61_440) % 2 ** 32)
  })

  test('the guest is told of credit when a quarter of it was taken', () => {
    const vm = new FakeVm({ bufferBytes: 4096 })
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, new Uint8Array(2048))
    vm.run()
    readAll(connection)
    call(vm, connection, (it) => it.consumed(1023, vm.now))
    expect(heard(vm)).toEqual([])
    call(vm, connection, (it) => it.consumed(1, vm.now))
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.CREDIT_UPDATE, forwardCount: 1024, bufferAllocation: 4096 })
  })

  test('more than its credit resets the guest’s connection, and nothing of it is kept', () => {
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
    call(vm, connection, (it) => it.write(new Uint8Array(10)))
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

describe('the end', () => {
  test('half-close by the host: what was written first, then SHUTDOWN(send), and the guest may go on', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    call(vm, connection, (it) => it.write(new Uint8Array(1500)))
    call(vm, connection, (it) => it.end())
    const packets = heard(vm)
    expect(packets.map(opName)).toEqual(['RW', 'RW', 'SHUTDOWN'])
    expect(packets[2]!.header.flags).toBe(SHUTDOWN_SEND)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(5))
    vm.run()
    expect(readAll(connection)).toEqual([5])
    expect(connection.inputEnded).toBe(false)
  })

  test('half-close by the guest: the host may go on writing', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(5))
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    vm.run()
    expect([connection.inputEnded, connection.outputRefused, readAll(connection)]).toEqual([true, false, [5]])
    call(vm, connection, (it) => it.write(Uint8Array.of(1)))
    expect(heard(vm).map(opName)).toEqual(['RW'])
  })

  test('both halves closed, then close(): SHUTDOWN(both), and the guest’s RST ends it', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    call(vm, connection, (it) => it.end())
    heard(vm)
    call(vm, connection, (it) => it.close(vm.now))
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.SHUTDOWN, flags: SHUTDOWN_BOTH })
    reply(vm, connection, Op.RST)
    expect(heard(vm)).toEqual([])
    expect([connection.outcome, vm.device.muxer.size]).toEqual(['done', 0])
  })

  test('a guest that never answers our SHUTDOWN is reset in the end', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    call(vm, connection, (it) => it.close(vm.now))
    heard(vm)
    vm.advance(7_999)
    expect(connection.state).toBe('closing')
    vm.advance(1)
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('SHUTDOWN(both) of the guest: RST only when everything it sent has been taken', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1, 2, 3))
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
    expect(heard(vm)).toEqual([])
    expect(readAll(connection)).toEqual([1, 2, 3])
    call(vm, connection, (it) => it.consumed(3, vm.now))
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(connection.outcome).toBe('done')
  })

  test('SHUTDOWN(both) and nobody who reads: the RST comes by the timer, the bytes stay', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1, 2, 3))
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
    vm.run()
    vm.advance(8_000)
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(readAll(connection)).toEqual([1, 2, 3])
  })

  test('SHUTDOWN in two steps counts like one', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_RECEIVE })
    vm.run()
    expect([connection.outputRefused, connection.inputEnded]).toEqual([true, false])
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    expect(heard(vm).map(opName)).toEqual(['RST'])
  })

  test('RST out of the blue keeps what came before it', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1))
    reply(vm, connection, Op.RST)
    vm.run()
    expect([connection.outcome, readAll(connection)]).toEqual(['reset', [1]])
    expect(vm.device.muxer.size).toBe(0)
  })

  test('close() with bytes still unsent is a reset', () => {
    const vm = new FakeVm()
    const connection = open(vm, { bufferAllocation: 10 })
    call(vm, connection, (it) => it.write(new Uint8Array(20)))
    heard(vm)
    call(vm, connection, (it) => it.close(vm.now))
    expect(heard(vm).map(opName)).toEqual(['RST'])
  })

  test('bytes behind the guest’s own SHUTDOWN(send) break the rules', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1))
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(connection.outcome).toBe('violation')
  })

  test('the guest may use its port anew while the old connection says goodbye', () => {
    const vm = new FakeVm()
    vm.guest.supply(8)
    const request = { op: Op.REQUEST, sourcePort: 1025, destinationPort: 80 }
    vm.guest.send(request)
    vm.run()
    const [first] = vm.device.muxer.takeNews()
    call(vm, first!, (it) => it.accept())
    call(vm, first!, (it) => it.close(vm.now))
    heard(vm)
    vm.device.muxer.takeNews()
    vm.guest.send(request)
    vm.run()
    expect(vm.device.muxer.takeNews()).toEqual([expect.objectContaining({ state: 'accepting' })])
    expect(vm.device.muxer.size).toBe(1)
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

  test.each([{ sourceCid: 43 }, { destinationCid: 3 }])('a packet with %o is dropped', (fields) => {
    const vm = new FakeVm()
    vm.guest.supply(2)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 9, ...fields })
    expect(heard(vm)).toEqual([])
    expect(vm.device.muxer.size).toBe(0)
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
    call(vm, connections[0]!, (it) => it.write(new Uint8Array(60_000)))
    while (heard(vm).length > 0);
    reply(vm, connections[0]!, Op.CREDIT_UPDATE, { bufferAllocation: 2 ** 31 })
    vm.run()
    for (const connection of connections) call(vm, connection, (it) => it.write(new Uint8Array(20_000)))
    vm.guest.supply(9)
    const order = heard(vm).map(({ header }) => header.sourcePort)
    expect(new Set(order.slice(0, 3)).size).toBe(3)
    expect(order.slice(3, 6)).toEqual(order.slice(0, 3))
    expect(order.slice(6, 9)).toEqual(order.slice(0, 3))
  })

  test('one call does no more than its budget, however much the guest offers', () => {
    const vm = new FakeVm({}, { budget: { bytes: 4096, descriptors: 1024 } })
    const connection = open(vm)
    for (let i = 0; i < 20; i++) reply(vm, connection, Op.RW, {}, new Uint8Array(1000))
    const work = vm.device.process(vm.rx, vm.tx, vm.now)
    expect(work.more).toBe(true)
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
})
