import { describe, expect, test } from 'vitest'
import { opName } from '../../../testing/fake-guest.js'
import { CALLEE_PORT, CALLER_PORT, FakeSiblings, joined } from '../../../testing/fake-siblings.js'
import { Op, SEQ_EOM, SEQ_EOR, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND } from '../packet.js'

const bytes = (length: number, from = 0) => Uint8Array.from({ length }, (_, i) => (from + i) & 0xff)
const all = (packets: { payload: Uint8Array }[]) => packets.flatMap(({ payload }) => [...payload])

describe('a connection between two guests', () => {
  test('is asked for and answered as if there were nothing between them', () => {
    const { request, response } = joined({ fields: { bufferAllocation: 5000 }, callee: { bufferAllocation: 6000 } })
    expect(request.map(({ header }) => header)).toMatchObject([
      {
        ...{ op: Op.REQUEST, sourceCid: 3, sourcePort: CALLER_PORT, destinationCid: 4, destinationPort: CALLEE_PORT },
        bufferAllocation: 5000,
      },
    ])
    expect(response.map(({ header }) => header)).toMatchObject([
      {
        op: Op.RESPONSE,
        sourceCid: 4,
        sourcePort: CALLEE_PORT,
        destinationCid: 3,
        destinationPort: CALLER_PORT,
        bufferAllocation: 6000,
      },
    ])
  })

  test('carries bytes, cut to the buffers of their receiver, with the credit of their sender', () => {
    const { fromA, fromB, heard, a, b } = joined({ room: 100 })
    fromA(Op.RW, { forwardCount: 17 }, bytes(450))
    const packets = heard(b)
    expect(packets.map(({ payload }) => payload.length)).toEqual([100, 100, 100, 100, 50])
    expect(all(packets)).toEqual([...bytes(450)])
    expect(packets[0]!.header).toMatchObject({ op: Op.RW, forwardCount: 17, bufferAllocation: 1 << 16 })
    fromB(Op.CREDIT_UPDATE, { forwardCount: 450 })
    expect(heard(a).map(({ header }) => header)).toMatchObject([{ op: Op.CREDIT_UPDATE, forwardCount: 450 }])
  })

  test('carries several packets in one buffer if they fit, and does not cut one to fill it', () => {
    const { fromA, heard, b } = joined({ room: 100 })
    for (const length of [30, 40, 50, 100, 120, 10]) fromA(Op.RW, {}, bytes(length))
    expect(heard(b).map(({ payload }) => payload.length)).toEqual([70, 50, 100, 100, 30])
  })

  test('keeps the ends of messages: EOM and EOR go with the last part', () => {
    const { fromA, heard, b } = joined({ type: 2, room: 100 })
    fromA(Op.RW, { flags: 0 }, bytes(50))
    fromA(Op.RW, { flags: SEQ_EOM | SEQ_EOR }, bytes(150, 50))
    fromA(Op.RW, { flags: SEQ_EOM }, bytes(10))
    const packets = heard(b)
    expect(packets.map(({ payload, header }) => [payload.length, header.flags, header.type])).toEqual([
      [50, 0, 2],
      [100, 0, 2],
      [50, SEQ_EOM | SEQ_EOR, 2],
      [10, SEQ_EOM, 2],
    ])
  })

  test('ends one half after its bytes, and is over with a reset after the bytes', () => {
    const { fromA, fromB, heard, a, b } = joined({ room: 100 })
    fromA(Op.RW, {}, bytes(150))
    fromA(Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    expect(heard(b).map((packet) => [opName(packet), packet.header.flags])).toEqual([
      ['RW', 0],
      ['RW', 0],
      ['SHUTDOWN', SHUTDOWN_SEND],
    ])
    fromB(Op.RW, {}, bytes(20))
    fromB(Op.RST)
    expect(heard(a).map(opName)).toEqual(['RW', 'RST'])
    expect([a.device.size, b.device.size]).toEqual([0, 0])
  })

  test('tells at once that one side takes no more, and drops what was on its way there', () => {
    const { fromA, fromB, heard, a, b } = joined({ callee: { bufferAllocation: 100 } })
    fromA(Op.RW, {}, bytes(100))
    expect(heard(b)).toHaveLength(1)
    fromB(Op.SHUTDOWN, { flags: SHUTDOWN_RECEIVE })
    expect(heard(a).map(({ header }) => header)).toMatchObject([{ op: Op.SHUTDOWN, flags: SHUTDOWN_RECEIVE }])
    fromA(Op.RW, {}, bytes(100))
    expect(heard(b)).toEqual([])
    expect(a.device.port.held).toBe(0)
  })

  test('of a guest with itself goes over the device, too', () => {
    const siblings = new FakeSiblings([3])
    const vm = siblings.vms[0]!
    vm.guest.supply(20)
    vm.guest.send({ op: Op.REQUEST, sourcePort: 5, destinationPort: 6, destinationCid: 3 })
    vm.run()
    expect(vm.guest.received().map(({ header }) => header)).toMatchObject([{ op: Op.REQUEST, sourcePort: 5, destinationPort: 6 }])
    vm.guest.send({ op: Op.RESPONSE, sourcePort: 6, destinationPort: 5, destinationCid: 3 })
    vm.guest.send({ op: Op.RW, sourcePort: 6, destinationPort: 5, destinationCid: 3 }, bytes(10))
    vm.run()
    expect(vm.guest.received().map(opName)).toEqual(['RESPONSE', 'RW'])
    vm.guest.send({ op: Op.RST, sourcePort: 5, destinationPort: 6, destinationCid: 3 })
    vm.run()
    expect(vm.guest.received().map(opName)).toEqual(['RST'])
    expect(vm.device.size).toBe(0)
  })

  test('is reset for the one when the driver of the other is gone', () => {
    const { a, b, heard, fromA } = joined()
    expect(a.device.abandon(a.now)).toBe(1)
    expect(heard(b).map(opName)).toEqual(['RST'])
    fromA(Op.RW, {}, bytes(5))
    expect(heard(a).map(opName)).toEqual(['RST'])
    expect([a.device.size, b.device.size]).toEqual([0, 0])
  })
})

test('a connection with the host stays one when a guest comes that has the CID', () => {
  const siblings = new FakeSiblings([])
  const a = siblings.add(3, { hostCids: 'any' })
  const said = { sourcePort: 1, destinationPort: 2, destinationCid: 9 }
  a.guest.supply(10)
  a.guest.send({ ...said, op: Op.REQUEST })
  siblings.run()
  const [connection] = a.device.muxer.takeNews()
  connection!.accept()
  siblings.add(9)
  a.guest.send({ ...said, op: Op.RW }, bytes(3))
  siblings.run()
  expect(a.guest.received().map(opName)).toEqual(['RESPONSE'])
  expect([connection!.state, connection!.inputPending]).toEqual(['open', 3])
  a.guest.send({ ...said, op: Op.RST })
  siblings.run()
  expect([connection!.outcome, a.device.size]).toEqual(['reset', 0])
  // Its address is the other guest's from now on.
  a.guest.send({ ...said, op: Op.REQUEST })
  siblings.run()
  expect(a.device.port.size).toBe(1)
})

describe('refused', () => {
  const ask = (siblings: FakeSiblings, destinationCid: number, type = 1) => {
    const [a] = siblings.vms
    a!.guest.supply(4)
    a!.guest.send({ op: Op.REQUEST, type, sourcePort: 1, destinationPort: 2, destinationCid })
    siblings.run()
    return a!.guest.received().map(opName)
  }

  test('a CID that no guest has', () => {
    const siblings = new FakeSiblings()
    expect(ask(siblings, 77)).toEqual(['RST'])
    expect(siblings.refusals).toEqual([{ from: { cid: 3, port: 1 }, to: { cid: 77, port: 2 }, type: 1, reason: 'unknown-cid' }])
  })

  test('a guest of another group, and one without a driver', () => {
    const siblings = new FakeSiblings([3])
    siblings.add(4, {}, ['others'])
    siblings.add(5)
    siblings.switch.get(5)!.up = false
    expect(ask(siblings, 4)).toEqual(['RST'])
    expect(ask(siblings, 5)).toEqual(['RST'])
    expect(siblings.refusals.map(({ reason }) => reason)).toEqual(['group', 'not-running'])
  })

  test('more connections than the guest may begin', () => {
    const siblings = new FakeSiblings([3, 4], { maxConnections: 0 })
    expect(ask(siblings, 4)).toEqual(['RST'])
    expect(siblings.refusals.map(({ reason }) => reason)).toEqual(['full'])
  })

  test('a type of socket that does not exist', () => {
    expect(ask(new FakeSiblings(), 4, 7)).toEqual(['RST'])
  })

  test('by a guest that does not answer, after the time of a handshake', () => {
    const siblings = new FakeSiblings()
    expect(ask(siblings, 4)).toEqual([])
    siblings.advance(2_000)
    expect(siblings.vms[0]!.guest.received().map(opName)).toEqual(['RST'])
    // The other guest never had a buffer for the REQUEST, and knows nothing of it.
    siblings.vms[1]!.guest.supply(4)
    siblings.run()
    expect(siblings.vms[1]!.guest.received()).toEqual([])
  })
})

describe('a guest that does not keep to the rules', () => {
  test('is reset, and the other with it, when it sends more than it has credit for', () => {
    const { fromA, heard, a, b } = joined({ callee: { bufferAllocation: 100 } })
    fromA(Op.RW, {}, bytes(101))
    expect(heard(b).map(opName)).toEqual(['RST'])
    expect(heard(a).map(opName)).toEqual(['RST'])
  })

  test('a caller that answers its own REQUEST has no connection', () => {
    const siblings = new FakeSiblings()
    const [a, b] = siblings.vms
    for (const { guest } of [a!, b!]) guest.supply(4)
    const ports = { sourcePort: 1, destinationPort: 2, destinationCid: 4 }
    a!.guest.send({ op: Op.REQUEST, ...ports })
    siblings.run()
    expect(b!.guest.received().map(opName)).toEqual(['REQUEST'])
    a!.guest.send({ op: Op.RESPONSE, ...ports })
    siblings.run()
    expect([a!, b!].map(({ guest }) => guest.received().map(opName))).toEqual([['RST'], ['RST']])
    expect([a!.device.size, b!.device.size]).toEqual([0, 0])
  })

  test.each([
    ['a second RESPONSE', Op.RESPONSE, {}],
    ['an operation that does not exist', 99, {}],
    ['a second REQUEST', Op.REQUEST, {}],
  ])('%s ends the connection', (_name, op, fields) => {
    const { fromB, heard, a, b } = joined()
    fromB(op, fields)
    expect([heard(a).map(opName), heard(b).map(opName)]).toEqual([['RST'], ['RST']])
  })

  test('is held up when others have much of it to take, and loses what does not move', () => {
    const siblings = new FakeSiblings([3, 4], { maxConnections: 1023 })
    const huge = { bufferAllocation: 2 ** 32 - 1 }
    const { fromA, a, b } = joined({ callee: huge }, siblings)
    // The receiver has taken what it had buffers for, and gives no more.
    for (let i = 0; i < 2000; i++) {
      fromA(Op.RW, {}, bytes(4000))
      siblings.run()
      a.guest.tx.takeUsed()
      if (!a.device.port.accepting) break
    }
    expect(a.device.port.held).toBeGreaterThan(4_000_000)
    expect(a.device.port.held).toBeLessThan(4_300_000)
    siblings.advance(2_000)
    expect(a.device.port.held).toBe(0)
    expect(a.guest.received().map(opName)).toEqual(['RST'])
    b.guest.received()
    b.guest.supply(20)
    siblings.run()
    expect(b.guest.received().map(opName)).toEqual(['RST'])
  })

  test('holds its sender up no longer with the bytes of a connection that its sender has ended', () => {
    const siblings = new FakeSiblings([3, 4, 5], { lingerMs: 60_000 })
    const { fromA, fromB, a, b } = joined({}, siblings)
    const c = siblings.vms[2]!
    const send = (op: number, fields = {}, payload?: Uint8Array) => {
      fromA(op, fields, payload)
      siblings.run()
      a.guest.tx.takeUsed()
    }
    fromB(Op.CREDIT_UPDATE, { bufferAllocation: 0 })
    send(Op.RW, {}, bytes(4000))
    send(Op.RST)
    expect([a.device.port.held, a.device.size]).toEqual([4000, 0])
    // What waits for a third guest holds the sender up.
    const other = { sourcePort: 7, destinationCid: 5, destinationPort: 8 }
    send(Op.REQUEST, other)
    c.guest.send({ op: Op.RESPONSE, sourcePort: 8, destinationCid: 3, destinationPort: 7, bufferAllocation: 2 ** 32 - 1 })
    siblings.run()
    while (a.device.port.accepting) send(Op.RW, other, bytes(4000))
    let touched = false
    b.guest.received()
    b.device.port.onTouch = () => {
      touched = true
    }
    a.advance(1_000)
    expect([a.device.port.held, touched]).toEqual([0, true])
    b.run()
    expect(b.guest.received().map(opName)).toEqual(['RST'])
  })

  test('a RST waits for bytes that its receiver never takes only as long as the linger lasts', () => {
    const { fromA, b, siblings, a } = joined({ callee: { bufferAllocation: 100 } })
    fromA(Op.RW, {}, bytes(60))
    siblings.run()
    b.guest.received()
    fromA(Op.RW, {}, bytes(40))
    fromA(Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
    fromA(Op.RST)
    siblings.run()
    expect(a.device.size).toBe(0)
    expect(b.guest.received().map(opName)).toEqual(['CREDIT_REQUEST'])
    siblings.advance(7_999)
    expect(b.guest.received().map(opName)).toEqual(['CREDIT_REQUEST'])
    siblings.advance(1)
    expect(b.guest.received().map(opName)).toEqual(['RST'])
    expect(b.device.size).toBe(0)
  })
})
