// The protocol's numbered facts, as a client meets them; the buffers of a connection: facts 1 … 4.
import { declaredLength, decodeReply, encodeConnect, encodeRequest, readHeader } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import {
  addCount,
  addCpu,
  addMmio,
  addPci,
  Connection,
  delCount,
  delCpu,
  delMmio,
  delPci,
  NO_REPLY,
  raw,
  setUp,
} from '../../testing/guest-rig.js'

describe('greeting', () => {
  test('is one Connect message', () => {
    expect(setUp().connect().session.greeting).toEqual(encodeConnect())
  })
})

describe('1: a short read is a whole message', () => {
  const window = encodeRequest(addMmio(), 'x86_64')

  test('torn at 512: the first piece is executed, the second has a wrong magic', async () => {
    const { guest, connect } = setUp()
    const { send } = connect()
    const first = await send(window.subarray(0, 512))
    expect(first.map((reply) => decodeReply(reply, 'x86_64'))).toEqual([{ type: 'ADD_MMIO', result: 0 }])
    expect(guest.state.mmio).toHaveLength(1)
    expect((await send(window.subarray(512))).map((reply) => decodeReply(reply, 'x86_64'))).toEqual([
      { type: 'CONNECT', result: 0 },
    ])
  })

  test('torn at 20: two replies of −22', async () => {
    const { guest, connect } = setUp()
    const { send } = connect()
    const replies = [...(await send(window.subarray(0, 20))), ...(await send(window.subarray(20)))]
    expect(replies.map((reply) => decodeReply(reply, 'x86_64').result)).toEqual([-22, -22])
    expect(guest.state.mmio).toEqual([])
  })

  test('a short message keeps the end of the one before it', async () => {
    const { guest, connect } = setUp()
    const { send, result } = connect()
    expect(await result(addMmio())).toBe(0)
    expect(await result(delMmio())).toBe(0)
    // The header of an ADD alone: the load is that of the DEL before it.
    expect(await send(window.subarray(0, 16))).toHaveLength(1)
    expect(guest.state.mmio).toEqual([{ base: 0xd000_0000n, size: 0x1000n, irq: 5 }])
  })

  test('a long one is read 1024 bytes at a time, in order', async () => {
    const { guest, connect } = setUp()
    const both = new Uint8Array(2048)
    both.set(window)
    both.set(encodeRequest(delMmio(), 'x86_64'), 1024)
    expect((await connect().send(both)).map((reply) => readHeader(reply).messageType)).toEqual([5, 6])
    expect(guest.state.mmio).toEqual([])
  })

  test('off: any chunking is one request', async () => {
    const { guest, connect } = setUp({ quirks: { tornRequests: false } })
    for (const at of [1, 20, 512, 1023]) {
      const { send } = connect()
      expect(await send(window.subarray(0, at))).toEqual([])
      expect((await send(window.subarray(at))).map((reply) => decodeReply(reply, 'x86_64').result)).toEqual([0])
      expect(guest.state.mmio).toHaveLength(1)
      void guest.mmio!.remove({ type: 'DEL_MMIO', base: 0xd000_0000n, size: 0x1000n, irq: 5 }, new Connection(0))
    }
  })
})

describe('2: the reply buffer is never cleared', () => {
  test('after an empty load stand bytes of the reply before', async () => {
    const { connect } = setUp()
    const { send, ask } = connect()
    expect(await ask(addCpu(1))).toEqual({ type: 'ADD_CPU', result: 0, apicIdIndex: 1 })
    const [reply] = await send(encodeRequest(addMmio(), 'x86_64'))
    expect(declaredLength(reply!)).toBe(20)
    expect(reply![20]).toBe(1)
  })

  test('each connection has its own', async () => {
    const { connect } = setUp()
    await connect().ask(addCpu(1))
    const [reply] = await connect().send(encodeRequest(addMmio(), 'x86_64'))
    expect(reply![20]).toBe(0)
  })

  test('aarch64 leaves the online count there when it refuses', async () => {
    const { guest, connect } = setUp({ arch: 'aarch64', cpus: 3 })
    guest.setCpuOnline(1, false)
    const [reply] = await connect().send(encodeRequest(addCount(1), 'aarch64'))
    expect(decodeReply(reply!, 'aarch64')).toEqual({ type: 'ADD_CPU', result: 1 })
    expect(reply![20]).toBe(2)
  })

  test('off: zeros', async () => {
    const { connect } = setUp({ quirks: { staleReplyBytes: false } })
    const { send, ask } = connect()
    await ask(addCpu(1))
    const [reply] = await send(encodeRequest(addMmio(), 'x86_64'))
    expect(reply!.subarray(16).every((byte) => byte === 0)).toBe(true)
    const arm = setUp({ arch: 'aarch64', quirks: { staleReplyBytes: false } })
    arm.guest.setCpuOnline(1, true)
    const [refusal] = await arm.connect().send(encodeRequest(delCount(2), 'aarch64'))
    expect(refusal!.subarray(20).every((byte) => byte === 0)).toBe(true)
  })

  test('a reply that was handed out does not change any more', async () => {
    const { connect } = setUp()
    const { send } = connect()
    const [first] = await send(encodeRequest(addMmio(), 'x86_64'))
    const copy = first!.slice()
    await send(encodeRequest(addCpu(1), 'x86_64'))
    expect(first).toEqual(copy)
  })
})

describe('3: a PCI success does not set the result', () => {
  test('it repeats the failure before it, on this connection only', async () => {
    const { guest, connect } = setUp({ hardware: { hasCpu: () => true, hasPci: (_bus, devfn) => devfn === 0x28 } })
    const { result } = connect()
    expect(await result(addPci(0x30))).toBe(-19)
    expect(await result(addPci(0x28))).toBe(-19)
    expect(guest.state.pci).toEqual([{ bus: 0, devfn: 0x28 }])
    expect(await connect().result(delPci(0x28))).toBe(0)
    expect(guest.state.pci).toEqual([])
  })

  test('a success of another kind in between sets it right', async () => {
    const { connect } = setUp()
    const { result } = connect()
    expect(await result(delMmio())).toBe(-19)
    expect(await result(addPci(0x28))).toBe(-19)
    expect(await result(addMmio())).toBe(0)
    expect(await result(delPci(0x28))).toBe(0)
  })

  test('off: 0', async () => {
    const { connect } = setUp({ quirks: { stalePciResult: false } })
    const { result } = connect()
    expect(await result(delMmio())).toBe(-19)
    expect(await result(addPci(0x28))).toBe(0)
  })
})

describe('4: a wrong magic repeats the result of the request before', () => {
  const wrong = encodeRequest(addMmio(), 'x86_64')
  wrong[0] = 1

  test.each([
    ['at first', [], 0],
    ['after a success', [addMmio()], 0],
    ['after a failure', [delMmio(0x1000n)], -19],
  ] as const)('%s', async (_when, before, result) => {
    const { guest, connect } = setUp()
    const connection = connect()
    for (const request of before) await connection.ask(request)
    const windows = guest.state.mmio
    const [reply] = await connection.send(wrong)
    expect(decodeReply(reply!, 'x86_64')).toEqual({ type: 'ADD_MMIO', result })
    expect(guest.state.mmio).toEqual(windows)
  })

  test('off: −22', async () => {
    const { connect } = setUp({ quirks: { wrongMagicSucceeds: false } })
    const [reply] = await connect().send(wrong)
    expect(decodeReply(reply!, 'x86_64').result).toBe(-22)
  })
})

describe('types without a handler', () => {
  test.each([3, 4, 9, 0xffff_ffff])('type %i is −1 and echoed', async (messageType) => {
    expect(await setUp().connect().ask(raw(messageType))).toMatchObject({ type: 'RAW', messageType, result: -1 })
  })

  test('CONNECT as a request is −1', async () => {
    expect(await setUp().connect().ask(raw(0))).toEqual({ type: 'CONNECT', result: -1 })
  })

  test('a load longer than a message makes no difference', async () => {
    const bytes = encodeRequest(raw(9), 'x86_64')
    bytes.fill(0xff, 4, 8)
    const [reply] = await setUp().connect().send(bytes)
    expect(decodeReply(reply!, 'x86_64')).toMatchObject({ messageType: 9, result: -1 })
  })

  test.each([
    ['cpu', addCpu(1), delCpu(1)],
    ['mmio', addMmio(), delMmio()],
    ['pci', addPci(8), delPci(8)],
  ] as const)('a kernel without %s support answers −1 to it and serves the rest', async (kind, add, del) => {
    const { connect } = setUp({ support: { [kind]: false } })
    const types = []
    for (const request of [add, del, addCpu(1), addMmio()]) {
      const reply = await connect().ask(request)
      types.push(reply === NO_REPLY ? reply : `${reply.type} ${reply.result}`)
    }
    expect(types).toEqual([
      `${add.type} -1`,
      `${del.type} -1`,
      `ADD_CPU ${kind === 'cpu' ? -1 : 0}`,
      `ADD_MMIO ${kind === 'mmio' ? -1 : 0}`,
    ])
  })
})
