import { describe, expect, test } from 'vitest'
import { CALLEE_PORT, CALLER_PORT, FakeSiblings, joined } from '../../testing/fake-siblings.js'
import { FakeVm, open, readAll, reply } from '../../testing/fake-vm.js'
import { checkPolicy, type VsockPolicy } from '../policy-options.js'
import { Op, PACKET_HEADER_SIZE } from './packet.js'
import { NO_POLICY, PolicyGate } from './policy.js'

const gateOf = (policy: VsockPolicy) => new PolicyGate(checkPolicy('policy', policy), 0)
const PACKET = 1000
const bytes = new Uint8Array(PACKET - PACKET_HEADER_SIZE)

describe('a rate for the bytes that a guest sends', () => {
  /** Opens a connection, which leaves a burst of five packets, and sends twenty. */
  function sending() {
    const policy = gateOf({ fromGuest: { byteRate: { perSecond: 10_000, burst: 5000 } } })
    const vm = new FakeVm({ policy })
    const connection = open(vm)
    vm.advance(1000)
    for (let n = 0; n < 20; n++) reply(vm, connection, Op.RW, {}, bytes)
    return { vm, connection, policy }
  }

  test('leaves what is too much in the ring, without a violation, a kick or another look', () => {
    const { vm, connection } = sending()
    vm.run()
    expect(connection.inputPending).toBe(5 * bytes.length)
    expect(vm.tx.pending).toBe(15)
    const { availEvent } = vm.guest.tx
    // Time stands still: whatever asks, nothing is done, and no caller is told that there is something to do.
    for (let n = 0; n < 10; n++) expect(vm.device.process(vm.rx, vm.tx, vm.now)).toBe(false)
    expect(vm.device.unkicked(vm.rx, vm.tx, vm.now)).toBeUndefined()
    expect([vm.tx.pending, vm.guest.tx.availEvent]).toEqual([15, availEvent])
    expect(vm.device.wakeAt).toBe(vm.now + 10)
  })

  test('moves it as time passes, at the rate', () => {
    const { vm, connection } = sending()
    const from = vm.now
    let wakes = 0
    for (vm.run(); vm.tx.pending > 0; vm.run()) {
      vm.advance(vm.device.wakeAt - vm.now)
      expect(++wakes).toBeLessThan(100)
    }
    expect(readAll(connection)).toHaveLength(20 * bytes.length)
    expect(vm.now - from).toBeGreaterThanOrEqual(1400)
    expect(vm.now - from).toBeLessThanOrEqual(1600)
    // All that is left to wake for is the connection's own.
    vm.advance(1000)
    vm.run()
    expect(vm.device.wakeAt).toBeGreaterThan(vm.now)
  })

  test('does not hold up what goes to the guest', () => {
    const { vm, connection } = sending()
    vm.run()
    connection.write(bytes)
    vm.run()
    expect(vm.guest.received().map(({ header }) => header.op)).toContain(Op.RW)
  })

  test('that is lifted lets everything go', () => {
    const { vm, connection, policy } = sending()
    vm.run()
    policy.replace(NO_POLICY, vm.now)
    vm.run()
    expect(connection.inputPending).toBe(20 * bytes.length)
  })
})

test('a rate for the bytes that a guest receives: packets wait in the device, and the guest has no credit for them less', () => {
  const vm = new FakeVm({ policy: gateOf({ toGuest: { byteRate: { perSecond: 10_000, burst: 3000 } } }) })
  const connection = open(vm, { bufferAllocation: 1 << 20 }, { room: bytes.length })
  vm.advance(1000)
  vm.guest.supply(60, bytes.length)
  connection.write(new Uint8Array(10 * bytes.length))
  vm.run()
  expect(vm.guest.received()).toHaveLength(3)
  expect(connection.outputPending).toBe(7 * bytes.length)
  expect(vm.device.unkicked(vm.rx, vm.tx, vm.now)).toBeUndefined()
  const from = vm.now
  let received = 0
  for (vm.run(); connection.outputPending > 0; vm.run()) {
    vm.advance(vm.device.wakeAt - vm.now)
    received += vm.guest.received().length
  }
  expect(received + vm.guest.received().length).toBe(7)
  expect(vm.now - from).toBeGreaterThanOrEqual(600)
  expect(vm.now - from).toBeLessThanOrEqual(700)
  // What the guest sends was never held up.
  reply(vm, connection, Op.RW, {}, bytes)
  vm.run()
  expect(connection.inputPending).toBe(bytes.length)
})

describe('connections are counted', () => {
  test('with the host, by who began them, until nothing of them is left', () => {
    const policy = gateOf({})
    const vm = new FakeVm({ policy })
    const connection = open(vm)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 7, destinationPort: 8 })
    vm.run()
    expect([policy.connections('fromGuest'), policy.connections('toGuest')]).toEqual([1, 1])
    reply(vm, connection, Op.RST)
    vm.run()
    expect([policy.connections('fromGuest'), policy.connections('toGuest')]).toEqual([1, 0])
    vm.device.abandon(vm.now)
    expect([policy.connections('fromGuest'), policy.connections('toGuest')]).toEqual([0, 0])
  })

  test('with another guest, at both of them', () => {
    const [from, to] = [gateOf({}), gateOf({})]
    const siblings = new FakeSiblings([])
    siblings.add(3, { policy: from })
    siblings.add(4, { policy: to })
    const { fromA, heard, a, b } = joined({}, siblings)
    const counts = () => [from, to].flatMap((gate) => [gate.connections('fromGuest'), gate.connections('toGuest')])
    expect(counts()).toEqual([1, 0, 0, 1])
    fromA(Op.RST)
    heard(b)
    expect(counts()).toEqual([0, 0, 0, 0])
    a.guest.send({ op: Op.REQUEST, sourcePort: CALLER_PORT, destinationCid: 4, destinationPort: CALLEE_PORT })
    siblings.run()
    expect(counts()).toEqual([1, 0, 0, 1])
    b.device.abandon(b.now)
    siblings.run()
    expect(counts()).toEqual([0, 0, 0, 0])
  })
})
