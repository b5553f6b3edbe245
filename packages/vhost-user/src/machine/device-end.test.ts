import { describe, expect, test } from 'vitest'
import { opName } from '../../testing/fake-guest.js'
import { FakeVm, heard, open, readAll, reply } from '../../testing/fake-vm.js'
import type { Connection } from './connection.js'
import { Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from './packet.js'

describe('the end', () => {
  test('half-close by the host: what was written first, then SHUTDOWN(send), and the guest may go on', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    connection.write(new Uint8Array(1500))
    connection.end()
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
    connection.write(Uint8Array.of(1))
    expect(heard(vm).map(opName)).toEqual(['RW'])
  })

  test('both halves closed, then close(): SHUTDOWN(both), and the RST of the guest ends it', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    connection.end()
    heard(vm)
    connection.close(vm.now)
    const [packet] = heard(vm)
    expect(packet!.header).toMatchObject({ op: Op.SHUTDOWN, flags: SHUTDOWN_BOTH })
    reply(vm, connection, Op.RST)
    expect(heard(vm)).toEqual([])
    expect([connection.outcome, vm.device.muxer.size]).toEqual(['done', 0])
  })

  test('after close(), the guest may end its halves one by one, and before', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    vm.run()
    connection.close(vm.now)
    expect(heard(vm).map(opName)).toEqual(['SHUTDOWN'])
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_RECEIVE })
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect([connection.outcome, vm.device.muxer.size]).toEqual(['done', 0])
  })

  test('a guest that never answers our SHUTDOWN is reset in the end', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    connection.close(vm.now)
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
    connection.consumed(3, vm.now)
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(connection.outcome).toBe('done')
  })

  test('SHUTDOWN(both) and no reader: the RST comes by the timer, the bytes stay', () => {
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
    connection.write(new Uint8Array(20))
    heard(vm)
    connection.close(vm.now)
    expect(heard(vm).map(opName)).toEqual(['RST'])
  })

  test.each([
    ['no byte waits: what is written afterwards is lost', 10, false],
    ['bytes wait for its credit: they are lost at once', 20, true],
  ])('a guest that shuts its receiving half while %s', (_, bytes, lostAtOnce) => {
    const vm = new FakeVm()
    const connection = open(vm, { bufferAllocation: 10 })
    connection.write(new Uint8Array(bytes))
    heard(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_RECEIVE })
    vm.run()
    expect([connection.outputRefused, connection.outputLost]).toEqual([true, lostAtOnce])
    connection.write(Uint8Array.of(1))
    expect([connection.outputLost, connection.outputPending]).toEqual([true, 0])
  })

  test('and is told of our end all the same', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_RECEIVE })
    vm.run()
    connection.end()
    expect(heard(vm).map(({ header }) => [header.op, header.flags])).toEqual([[Op.SHUTDOWN, SHUTDOWN_SEND]])
  })

  test.each<[string, (vm: FakeVm, connection: Connection) => void]>([
    ['RST', (vm, connection) => reply(vm, connection, Op.RST)],
    ['the device gone', (vm) => vm.device.muxer.abandon()],
  ])('both sides have half-closed; then %s cuts nothing short', (_, act) => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1))
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    connection.end()
    heard(vm)
    act(vm, connection)
    vm.run()
    expect([connection.outcome, connection.inputComplete, readAll(connection)]).toEqual(['done', true, [1]])
  })

  test('SHUTDOWN that the guest has had no buffer for: a linger that ends then is a timeout', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    for (let i = 0; i < 200 && vm.rx.pending > 0; i++) {
      connection.write(Uint8Array.of(i))
      vm.run()
    }
    connection.close(vm.now)
    vm.run()
    vm.advance(8_000)
    expect(connection.outcome).toBe('timeout')
  })

  test("bytes after the guest's own SHUTDOWN(send) break the rules", () => {
    const vm = new FakeVm()
    const connection = open(vm)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    reply(vm, connection, Op.RW, {}, Uint8Array.of(1))
    expect(heard(vm).map(opName)).toEqual(['RST'])
    expect(connection.outcome).toBe('violation')
  })

  test('the guest may use its port again while the old connection is closing', () => {
    const vm = new FakeVm()
    vm.guest.supply(8)
    const request = { op: Op.REQUEST, sourcePort: 1025, destinationPort: 80 }
    vm.guest.send(request)
    vm.run()
    const [first] = vm.device.muxer.takeNews()
    first!.accept()
    first!.close(vm.now)
    heard(vm)
    vm.device.muxer.takeNews()
    vm.guest.send(request)
    vm.run()
    expect(vm.device.muxer.takeNews()).toEqual([expect.objectContaining({ state: 'accepting' })])
    expect(vm.device.muxer.size).toBe(1)
  })
})

describe('a port used over and over by a guest that does not listen', () => {
  test.each<[string, (vm: FakeVm, connection: Connection) => void]>([
    ['refused', (_vm, connection) => connection.reset()],
    [
      'accepted and closed',
      (vm, connection) => {
        connection.accept()
        connection.close(vm.now)
      },
    ],
  ])('%s each time: what is to be said to it does not grow', (_, answer) => {
    const vm = new FakeVm()
    for (let i = 0; i < 500; i++) {
      vm.guest.send({ op: Op.REQUEST, sourcePort: 1025, destinationPort: 80 })
      vm.run()
      vm.guest.tx.takeUsed()
      for (const connection of vm.device.muxer.takeNews()) if (connection.state === 'accepting') answer(vm, connection)
    }
    expect(vm.device.muxer.waiting).toBeLessThanOrEqual(1)
    vm.guest.supply(60)
    expect(heard(vm).length).toBeLessThanOrEqual(2)
    expect(vm.device.muxer.size).toBeLessThanOrEqual(1)
  })

  test('or left again: no connection that is gone stays in line', () => {
    const vm = new FakeVm()
    vm.device.muxer.connect(5000, vm.now)
    const packet = { sourcePort: 1025, destinationPort: 80 }
    for (let i = 0; i < 100; i++) {
      vm.guest.send({ op: Op.REQUEST, ...packet })
      vm.run()
      for (const connection of vm.device.muxer.takeNews()) connection.accept()
      vm.guest.send({ op: Op.RST, ...packet })
      vm.run()
      vm.guest.tx.takeUsed()
    }
    expect([vm.device.muxer.size, vm.device.muxer.waiting]).toEqual([1, 1])
  })
})
