import { describe, expect, test } from 'vitest'
import { opName } from '../../testing/fake-guest.js'
import { FakeVm, heard, open, reply } from '../../testing/fake-vm.js'
import type { Connection } from './connection.js'
import type { MuxerOptions } from './muxer.js'
import { Op, SEQ_EOM, SEQ_EOR, SHUTDOWN_BOTH, SHUTDOWN_SEND, TYPE_SEQPACKET, TYPE_STREAM } from './packet.js'

const GUEST = { sourcePort: 7000, destinationPort: 80 }

interface Setting {
  options?: Partial<MuxerOptions>
  /** The guest's buffer. */
  bufferAllocation?: number
  /** Of the guest's receive buffers. */
  room?: number
}

function messages({ options = {}, bufferAllocation = 1 << 16, room = 1024 }: Setting = {}) {
  const vm = new FakeVm(options)
  const connection = open(vm, { bufferAllocation }, { room, type: 'seqpacket' })
  const says = (text: string, flags: number) => reply(vm, connection, Op.RW, { flags, bufferAllocation }, bytes(text))
  return { vm, connection, says }
}

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (data: Uint8Array) => new TextDecoder().decode(data)
const outgoing = (data: Uint8Array, eor = false) => ({ data, eor, state: 'waiting' as const })

/** Every complete message that waits, `|` after those with MSG_EOR. */
function read(connection: Connection, vm?: FakeVm): string[] {
  const all: string[] = []
  for (let it = connection.readMessage(); it !== undefined; it = connection.readMessage()) {
    all.push(text(it.data) + (it.eor ? '|' : ''))
    if (vm !== undefined) connection.consumed(it.data.length, vm.now)
  }
  return all
}

/** What the guest was sent: length and flags of each RW. */
const packets = (vm: FakeVm) =>
  heard(vm)
    .filter(({ header }) => header.op === Op.RW)
    .map(({ header }) => [header.length, header.flags])

describe('the type of a connection', () => {
  test('is that of every packet, and of the guest that begins it', () => {
    const vm = new FakeVm()
    vm.device.muxer.seqpacket = true
    vm.guest.supply(10)
    vm.guest.send({ op: Op.REQUEST, type: TYPE_SEQPACKET, ...GUEST })
    vm.run()
    const [connection] = vm.device.muxer.takeNews()
    expect(connection).toMatchObject({ type: 'seqpacket', state: 'accepting' })
    connection!.accept()
    expect(heard(vm).map((it) => [opName(it), it.header.type])).toEqual([['RESPONSE', TYPE_SEQPACKET]])
    expect(vm.device.muxer.snapshot()).toMatchObject([{ type: 'seqpacket' }])
  })

  test('is refused by a reset of the same type while the feature is not negotiated', () => {
    const vm = new FakeVm()
    vm.guest.supply(10)
    vm.guest.send({ op: Op.REQUEST, type: TYPE_SEQPACKET, ...GUEST })
    expect(heard(vm).map((it) => [opName(it), it.header.type])).toEqual([['RST', TYPE_SEQPACKET]])
    expect(vm.device.muxer.size).toBe(0)
  })

  test.each([3, 0, 0xffff])('%i is refused', (type) => {
    const vm = new FakeVm()
    vm.device.muxer.seqpacket = true
    vm.guest.supply(10)
    vm.guest.send({ op: Op.REQUEST, type, ...GUEST })
    expect(heard(vm).map((it) => [opName(it), it.header.type])).toEqual([['RST', type]])
  })

  test.each([
    ['seqpacket', TYPE_STREAM],
    ['stream', TYPE_SEQPACKET],
  ] as const)('a packet of the other type is reset, and the %s connection goes on', (type, other) => {
    const vm = new FakeVm()
    const connection = open(vm, {}, { type })
    vm.device.muxer.seqpacket = true
    for (const op of [Op.RW, Op.REQUEST, Op.SHUTDOWN, Op.CREDIT_REQUEST])
      reply(vm, connection, op, { type: other, flags: 3 }, op === Op.RW ? bytes('x') : undefined)
    expect(heard(vm).map((it) => [opName(it), it.header.type])).toEqual(Array(4).fill(['RST', other]))
    // A reset is never answered, and it is not this connection's.
    reply(vm, connection, Op.RST, { type: other })
    expect(heard(vm)).toEqual([])
    expect(connection).toMatchObject({ state: 'open', inputPending: 0, inputEnded: false })
  })

  test('a port that was a stream can be a SEQPACKET socket next', () => {
    const vm = new FakeVm()
    const connection = open(vm)
    vm.device.muxer.seqpacket = true
    connection.close(vm.now)
    expect(heard(vm).map(opName)).toEqual(['SHUTDOWN'])
    vm.device.muxer.takeNews()
    const { hostPort: destinationPort, guestPort: sourcePort } = connection
    vm.guest.send({ op: Op.REQUEST, type: TYPE_SEQPACKET, sourcePort, destinationPort })
    vm.run()
    expect(vm.device.muxer.takeNews()).toMatchObject([{ type: 'seqpacket', state: 'accepting' }])
  })
})

describe('messages from the guest', () => {
  test('keep their boundaries and MSG_EOR, however they are split', () => {
    const { vm, connection, says } = messages()
    says('one', SEQ_EOM)
    says('tw', 0)
    says('o', SEQ_EOM | SEQ_EOR)
    says('thr', 0)
    vm.run()
    expect(read(connection)).toEqual(['one', 'two|'])
    expect(connection.inputPending).toBe(3)
    says('ee', 0)
    // What it ends may have come before.
    says('', SEQ_EOM)
    vm.run()
    expect(read(connection)).toEqual(['three'])
    expect(connection.inputPending).toBe(0)
  })

  test('MSG_EOR without the end of a message means nothing', () => {
    const { vm, connection, says } = messages()
    says('a', SEQ_EOR)
    says('b', SEQ_EOM)
    vm.run()
    expect(read(connection)).toEqual(['ab'])
  })

  test('an empty message is dropped', () => {
    const { vm, connection, says } = messages()
    for (let i = 0; i < 3; i++) says('', SEQ_EOM | SEQ_EOR)
    says('', 0)
    says('x', SEQ_EOM)
    vm.run()
    expect(read(connection)).toEqual(['x'])
    expect(connection.state).toBe('open')
  })

  test('are news when they are complete, and not before', () => {
    const { vm, connection, says } = messages()
    vm.device.muxer.takeNews()
    says('a', 0)
    vm.run()
    expect(vm.device.muxer.takeNews()).toEqual([])
    says('b', SEQ_EOM)
    vm.run()
    expect(vm.device.muxer.takeNews()).toEqual([connection])
  })

  test('the guest gets credit for what the reader has taken', () => {
    const { vm, connection, says } = messages({ options: { bufferBytes: 4096 }, bufferAllocation: 4096 })
    says('x'.repeat(2048), SEQ_EOM)
    vm.run()
    read(connection, vm)
    expect(heard(vm).map(({ header }) => [header.op, header.forwardCount])).toEqual([[Op.CREDIT_UPDATE, 2048]])
    says('y'.repeat(10), SEQ_EOM)
    vm.run()
    read(connection, vm)
    vm.advance(20)
    expect(heard(vm).map(({ header }) => [header.op, header.forwardCount])).toEqual([[Op.CREDIT_UPDATE, 2058]])
  })

  test('a message may fill the whole buffer', () => {
    const { vm, connection, says } = messages({ options: { bufferBytes: 4096 } })
    for (let i = 0; i < 3; i++) says('x'.repeat(1024), 0)
    says('x'.repeat(1024), SEQ_EOM)
    vm.run()
    expect(read(connection)).toEqual(['x'.repeat(4096)])
  })

  test('a message that fills the buffer and goes on is a violation: no credit is left for its end', () => {
    const { vm, connection, says } = messages({ options: { bufferBytes: 4096 } })
    for (let i = 0; i < 4; i++) says('x'.repeat(1024), 0)
    expect(heard(vm).map(opName)).toContain('RST')
    expect(connection).toMatchObject({ state: 'closed', outcome: 'violation' })
  })

  test('an unfinished message waits for its rest while a reader makes room', () => {
    const { vm, connection, says } = messages({ options: { bufferBytes: 4096 } })
    says('a'.repeat(2000), SEQ_EOM)
    says('b'.repeat(2096), 0)
    vm.run()
    expect(connection.state).toBe('open')
    expect(read(connection, vm)).toEqual(['a'.repeat(2000)])
    says('b'.repeat(1000), SEQ_EOM)
    vm.run()
    expect(read(connection, vm)).toEqual(['b'.repeat(3096)])
  })

  test('more than the credit allows is a violation', () => {
    const { vm, connection, says } = messages({ options: { bufferBytes: 4096 } })
    for (let i = 0; i < 5; i++) says('x'.repeat(1000), SEQ_EOM)
    vm.run()
    expect(connection.outcome).toBe('violation')
    // What came before stays readable.
    expect(read(connection)).toHaveLength(4)
  })

  test('a message that the guest never finishes is dropped at its end, and the end waits for no reader of it', () => {
    const { vm, connection, says } = messages()
    says('whole', SEQ_EOM)
    says('half', 0)
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_SEND })
    vm.run()
    expect(connection).toMatchObject({ inputEnded: true, inputPending: 5 })
    expect(read(connection, vm)).toEqual(['whole'])
    reply(vm, connection, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
    vm.run()
    expect(connection).toMatchObject({ state: 'closed', outcome: 'done' })
  })
})

describe('messages for the guest', () => {
  test('are split to the guest buffers, and the last piece alone ends the message', () => {
    const { vm, connection } = messages({ room: 100 })
    const long = outgoing(new Uint8Array(250), true)
    connection.send(long)
    connection.send(outgoing(new Uint8Array(100)))
    connection.send(outgoing(new Uint8Array(1)))
    expect(packets(vm)).toEqual([
      [100, 0],
      [100, 0],
      [50, SEQ_EOM | SEQ_EOR],
      [100, SEQ_EOM],
      [1, SEQ_EOM],
    ])
    expect(long.state).toBe('sent')
  })

  test('carry their bytes', () => {
    const { vm, connection } = messages({ room: 4 })
    connection.send(outgoing(bytes('abcdefghij')))
    connection.send(outgoing(bytes('kl')))
    const pieces = heard(vm).map(({ payload }) => text(payload))
    expect(pieces).toEqual(['abcd', 'efgh', 'ij', 'kl'])
  })

  test('each one that has left is news', () => {
    const { vm, connection } = messages({ room: 1000, bufferAllocation: 1500 })
    vm.device.muxer.takeNews()
    const [first, second] = [outgoing(new Uint8Array(1000)), outgoing(new Uint8Array(1000))]
    connection.send(first)
    connection.send(second)
    vm.run()
    expect(vm.device.muxer.takeNews()).toEqual([connection])
    expect([first.state, second.state]).toEqual(['sent', 'waiting'])
  })

  test('go out as far as there is credit, and the end follows with more of it', () => {
    const { vm, connection } = messages({ bufferAllocation: 5000, room: 4000 })
    connection.send(outgoing(new Uint8Array(4000)))
    const second = outgoing(new Uint8Array(2000))
    connection.send(second)
    expect(packets(vm)).toEqual([
      [4000, SEQ_EOM],
      [1000, 0],
    ])
    expect(second.state).toBe('begun')
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 5000, forwardCount: 4000 })
    expect(packets(vm)).toEqual([[1000, SEQ_EOM]])
    expect(second.state).toBe('sent')
  })

  test('are at most as long as both buffers', () => {
    expect(messages({ bufferAllocation: 5000 }).connection.maxMessageBytes).toBe(5000)
    expect(messages({ options: { bufferBytes: 4096 } }).connection.maxMessageBytes).toBe(4096)
  })

  test('a message that waits can be taken back, a message that has begun cannot', () => {
    const { vm, connection } = messages({ bufferAllocation: 5000, room: 4000 })
    const all = [4000, 2000, 700].map((length) => outgoing(new Uint8Array(length)))
    for (const message of all) connection.send(message)
    vm.run()
    connection.withdraw(all[2]!)
    connection.withdraw(all[1]!)
    connection.withdraw(all[0]!)
    expect(connection.outputPending).toBe(1000)
    vm.guest.received()
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 5000, forwardCount: 4000 })
    expect(packets(vm)).toEqual([[1000, SEQ_EOM]])
    expect(connection.outputPending).toBe(0)
  })

  test('a guest that takes its last message back waits for no credit any more', () => {
    const { vm, connection } = messages({ bufferAllocation: 1000 })
    connection.send(outgoing(new Uint8Array(1000)))
    const second = outgoing(new Uint8Array(10))
    connection.send(second)
    expect(heard(vm).map(opName)).toEqual(['RW', 'CREDIT_REQUEST'])
    connection.withdraw(second)
    expect(vm.device.muxer.outgoing).toBe(false)
    connection.end()
    expect(heard(vm).map(opName)).toEqual(['SHUTDOWN'])
  })

  test('that a smaller guest buffer no longer takes leave the queue; the others go on', () => {
    const { vm, connection } = messages({ bufferAllocation: 4000, room: 4000 })
    const all = [4000, 3000, 900].map((length) => outgoing(new Uint8Array(length)))
    for (const message of all) connection.send(message)
    vm.run()
    vm.device.muxer.takeNews()
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 1000, forwardCount: 4000 })
    vm.run()
    expect(all.map(({ state }) => state)).toEqual(['sent', 'too long', 'sent'])
    expect(vm.device.muxer.takeNews()).toEqual([connection])
    expect(connection.outputPending).toBe(0)
  })

  test('a guest whose buffer becomes smaller than the message under way is reset: it can never have the rest', () => {
    const { vm, connection } = messages({ bufferAllocation: 5000, room: 4000 })
    const all = [3000, 3000, 10].map((length) => outgoing(new Uint8Array(length)))
    for (const message of all) connection.send(message)
    vm.run()
    expect(all[1]!.state).toBe('begun')
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 2999, forwardCount: 3000 })
    vm.run()
    expect(connection).toMatchObject({ state: 'closed', outcome: 'violation' })
    expect(all.map(({ state }) => state)).toEqual(['sent', 'lost', 'lost'])
  })

  test('are lost with a guest that takes no more', () => {
    const { vm, connection } = messages({ bufferAllocation: 10 })
    const before = outgoing(new Uint8Array(9))
    const under = outgoing(new Uint8Array(9))
    connection.send(before)
    connection.send(under)
    vm.run()
    reply(vm, connection, Op.SHUTDOWN, { flags: 1 })
    vm.run()
    const after = outgoing(new Uint8Array(9))
    connection.send(after)
    expect([before.state, under.state, after.state]).toEqual(['sent', 'lost', 'lost'])
    expect(connection.outputLost).toBe(true)
  })

  test('after the end of this side they are lost', () => {
    const { connection } = messages()
    connection.end()
    const message = outgoing(bytes('x'))
    connection.send(message)
    expect(message.state).toBe('lost')
  })

  test('SHUTDOWN follows the last of them', () => {
    const { vm, connection } = messages({ room: 10 })
    connection.send(outgoing(new Uint8Array(25)))
    connection.end()
    expect(heard(vm).map(opName)).toEqual(['RW', 'RW', 'RW', 'SHUTDOWN'])
  })
})

describe('the packets that wait in the guest', () => {
  test('are limited, also when they are messages of one byte', () => {
    const { vm, connection } = messages({ bufferAllocation: 10 * 1024 })
    for (let i = 0; i < 30; i++) connection.send(outgoing(Uint8Array.of(i)))
    expect(packets(vm)).toHaveLength(10)
    vm.guest.supply(20)
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 10 * 1024, forwardCount: 4 })
    expect(packets(vm)).toHaveLength(4)
  })

  test('a message of more packets than that goes on once they are all its own: the guest takes none before its end', () => {
    const { vm, connection } = messages({ bufferAllocation: 4096, room: 100 })
    connection.send(outgoing(new Uint8Array(100)))
    const long = outgoing(new Uint8Array(1000))
    connection.send(long)
    expect(packets(vm)).toHaveLength(4)
    vm.guest.supply(20, 100)
    reply(vm, connection, Op.CREDIT_UPDATE, { bufferAllocation: 4096, forwardCount: 100 })
    expect(packets(vm)).toHaveLength(7)
    expect(long.state).toBe('sent')
    connection.send(outgoing(new Uint8Array(1)))
    expect(packets(vm)).toEqual([])
  })
})
