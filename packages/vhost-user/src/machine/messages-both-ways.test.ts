import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FakeVm, open, reply } from '../../testing/fake-vm.js'
import type { Kernel } from '../../testing/linux-end.js'
import { LinuxMessages, type TestMessage, testMessage } from '../../testing/linux-messages.js'
import { drive } from '../../testing/linux-socket.js'
import { Op, SEQ_EOM } from './packet.js'

const KIB = 1024
const KERNELS: Kernel[] = ['6.1', '6.12.100', '6.12.117']

interface Pair {
  device: number
  guest: number
  kernel?: Kernel
  room?: number
}

function pair({ device, guest, kernel = '6.12.100', room = 4000 }: Pair) {
  const vm = new FakeVm({ bufferBytes: device })
  const connection = open(vm, { bufferAllocation: guest }, { room, type: 'seqpacket' })
  const socket = new LinuxMessages(vm, connection, { kernel, bufferBytes: guest, peerAllocation: device })
  socket.room = room
  return { vm, connection, socket }
}

/** Whether each side reads in its turn: it may be slow. */
interface Readers {
  guestReads?: () => boolean
  hostReads?: () => boolean
}

/** Sends messages both ways at once, and returns what came, and how often everything waited for the time. */
function exchange(
  { vm, connection, socket }: ReturnType<typeof pair>,
  toHost: readonly TestMessage[],
  toGuest: readonly TestMessage[],
  { guestReads = () => true, hostReads = () => true }: Readers = {},
) {
  const got: TestMessage[] = []
  for (const message of toHost) socket.send(message)
  for (const { data, eor } of toGuest) connection.send({ data, eor, state: 'waiting' })
  const recv = () => {
    const message = connection.readMessage()
    if (message === undefined) return false
    got.push(message)
    connection.consumed(message.data.length, vm.now)
    return true
  }
  const waits = drive(vm, () => {
    let moved = socket.step()
    moved = (guestReads() && socket.recv()) || moved
    moved = (hostReads() && recv()) || moved
    // A slow reader reads when nothing else goes on.
    moved = moved || socket.recv() || recv()
    return { moved, done: got.length === toHost.length && socket.read.length === toGuest.length }
  })
  return { got, waits }
}

const plain = (messages: readonly TestMessage[]) => messages.map(({ data, eor }) => [Buffer.from(data).toString('base64'), eor])

describe('messages both ways at once', () => {
  test.each(KERNELS)('arrive whole and in order, without a pause (%s)', (kernel) => {
    const lengths = [1, 2, 127, 128, 129, 575, 1000, 4000, 4001, 20_000, 64 * KIB, 1, 1, 65_535]
    const messages = lengths.map((length, i) => testMessage(i, length, i % 3 === 0))
    const both = pair({ device: 64 * KIB, guest: 64 * KIB, kernel })
    const { got, waits } = exchange(both, messages, messages)
    expect(plain(got)).toEqual(plain(messages))
    expect(plain(both.socket.read)).toEqual(plain(messages))
    expect(waits).toBe(0)
  })

  test('no buffers, lengths and readers stand still, and no kernel is given more than it takes', () => {
    const buffer = fc.constantFrom(4 * KIB, 5000, 16 * KIB, 100_000)
    const lengths = fc.array(fc.oneof(fc.integer({ min: 1, max: 700 }), fc.integer({ min: 1, max: 100_000 })), { maxLength: 40 })
    const setting = fc.record({
      device: buffer,
      guest: buffer,
      kernel: fc.constantFrom(...KERNELS),
      room: fc.constantFrom(1056, 4000),
      toHost: lengths,
      toGuest: lengths,
      guestEvery: fc.integer({ min: 1, max: 9 }),
      hostEvery: fc.integer({ min: 1, max: 9 }),
    })
    fc.assert(
      fc.property(setting, ({ toHost, toGuest, guestEvery, hostEvery, ...ends }) => {
        const both = pair(ends)
        const most = Math.min(ends.device, ends.guest)
        const cut = (all: readonly number[]) => all.map((length, i) => testMessage(i, Math.min(length, most), length % 2 === 0))
        let turn = 0
        const { got } = exchange(both, cut(toHost), cut(toGuest), {
          guestReads: () => ++turn % guestEvery === 0,
          hostReads: () => turn % hostEvery === 0,
        })
        expect(plain(got)).toEqual(plain(cut(toHost)))
        expect(plain(both.socket.read)).toEqual(plain(cut(toGuest)))
      }),
      { numRuns: 150 },
    )
  })

  test('a guest that waits for credit with a message half sent is told at once of what was taken', () => {
    const toHost = [testMessage(0, 100), testMessage(1, 8 * KIB), testMessage(2, 10), testMessage(3, 8 * KIB)]
    expect(exchange(pair({ device: 8 * KIB, guest: 16 * KIB }), toHost, []).waits).toBe(0)
  })

  test('a guest that reads nothing has at most so many small messages waiting', () => {
    const both = pair({ device: 64 * KIB, guest: 64 * KIB })
    const messages = Array.from({ length: 500 }, (_, i) => testMessage(i, 1))
    exchange(both, [], messages, { guestReads: () => false })
    expect(both.socket.mostPackets).toBe(64)
  })
})

describe('a guest that sends its whole credit in messages of one byte', () => {
  test('fills little more memory than its bytes, and each message arrives', () => {
    let allocated = 0
    const bufferBytes = 16 * KIB
    const allocate = (size: number) => {
      allocated += size
      return new Uint8Array(size)
    }
    const vm = new FakeVm({ bufferBytes, allocate })
    const connection = open(vm, {}, { type: 'seqpacket' })
    for (let i = 0; i < bufferBytes; i++) {
      reply(vm, connection, Op.RW, { flags: SEQ_EOM }, Uint8Array.of(i))
      vm.run()
      vm.guest.tx.takeUsed()
    }
    expect(connection).toMatchObject({ state: 'open', inputPending: bufferBytes })
    expect(allocated).toBeLessThan(bufferBytes + 2 * 4096)
    for (let i = 0; i < bufferBytes; i++) expect(connection.readMessage()!.data).toEqual(Uint8Array.of(i))
    expect(connection.readMessage()).toBeUndefined()
    // One more is beyond the credit, for nothing was taken.
    reply(vm, connection, Op.RW, { flags: SEQ_EOM }, Uint8Array.of(1))
    vm.run()
    expect(connection.outcome).toBe('violation')
  })
})
