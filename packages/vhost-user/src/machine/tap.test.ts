import { expect, test } from 'vitest'
import { GUEST_BASE } from '../../testing/fake-guest.js'
import { FakeVm, heard, open, readAll, reply } from '../../testing/fake-vm.js'
import { decodePacketHeader, emptyHeader, encodePacketHeader, LARGEST_PACKET, Op, PACKET_HEADER_SIZE } from './packet.js'
import type { TapListener } from './tap.js'

interface Seen {
  readonly direction: string
  readonly header: Uint8Array
  readonly payload: Uint8Array
}

function tapped(options = {}) {
  const seen: Seen[] = []
  const listener: TapListener = (direction, header, payload) => void seen.push({ direction, header, payload })
  const tap = { listener: listener as TapListener | undefined }
  return { vm: new FakeVm(options, { tap }), seen, tap }
}

const named = new Map<number, string>(Object.entries(Op).map(([name, value]) => [value, name]))

const said = ({ direction, header, payload }: Seen): string => {
  const { op } = headerOf(header)
  const text = payload.length === 0 ? '' : ` ${Buffer.from(payload)}`
  return `${direction === 'to-guest' ? '<' : '>'} ${named.get(op)}${text}`
}

function headerOf(bytes: Uint8Array) {
  const header = emptyHeader()
  decodePacketHeader(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), header)
  return header
}

test('every operation is seen once, in order, with its payload', () => {
  const { vm, seen } = tapped()
  const connection = open(vm, { bufferAllocation: 1 << 16 })
  connection.write(Buffer.from('to the guest'))
  heard(vm)
  reply(vm, connection, Op.RW, {}, Buffer.from('to the host'))
  reply(vm, connection, Op.CREDIT_REQUEST)
  heard(vm)
  expect(readAll(connection).length).toBe(11)
  reply(vm, connection, Op.CREDIT_UPDATE)
  reply(vm, connection, Op.SHUTDOWN, { flags: 2 })
  heard(vm)
  connection.reset()
  heard(vm)
  reply(vm, connection, Op.RST)
  heard(vm)
  expect(seen.map(said)).toEqual([
    '< REQUEST',
    '> RESPONSE',
    '< RW to the guest',
    '> RW to the host',
    '> CREDIT_REQUEST',
    '< CREDIT_UPDATE',
    '> CREDIT_UPDATE',
    '> SHUTDOWN',
    '< RST',
    '> RST',
  ])
  expect(headerOf(seen[2]!.header)).toMatchObject({ sourceCid: 2, destinationCid: 42, destinationPort: 5000, length: 12 })
})

test('a packet that is not taken is seen all the same: a sender that it is not, and a CID of more than 32 bits', () => {
  const { vm, seen } = tapped()
  vm.guest.send({ op: Op.REQUEST, sourceCid: 43, sourcePort: 1, destinationPort: 2 })
  vm.guest.send({ op: Op.REQUEST, sourcePort: 1, destinationPort: 2 })
  const at = vm.guest.memoryBytes.indexOf(2, 0x8_0000 + 5000 + 8)
  vm.guest.memoryBytes[at + 5] = 7
  heard(vm)
  expect(seen.map(({ header }) => Buffer.from(header).readBigUInt64LE(0))).toEqual([43n, 42n])
  expect(Buffer.from(seen[1]!.header).readBigUInt64LE(8)).toBe(0x700_0000_0002n)
})

test('a payload in several descriptors of any length is one copy, and the connection gets its bytes', () => {
  const { vm, seen } = tapped()
  const connection = open(vm)
  const payload = Uint8Array.from({ length: 300 }, (_, i) => i)
  const packet = new Uint8Array(PACKET_HEADER_SIZE + payload.length)
  const { guestPort: sourcePort, hostPort: destinationPort } = connection
  const fields = { op: Op.RW, sourceCid: 42, destinationCid: 2, sourcePort, destinationPort, length: payload.length }
  encodePacketHeader({ ...emptyHeader(), ...fields, bufferAllocation: 1 << 16 }, new DataView(packet.buffer))
  packet.set(payload, PACKET_HEADER_SIZE)
  vm.guest.memoryBytes.set(packet, 0xf_0000)
  const cuts = [0, 10, 45, 46, 200, packet.length]
  const buffers = cuts
    .slice(1)
    .map((to, i) => ({ address: GUEST_BASE + 0xf_0000 + cuts[i]!, length: to - cuts[i]!, writable: false }))
  vm.guest.tx.add(buffers)
  vm.run()
  vm.guest.memoryBytes.fill(0, 0xf_0000, 0xf_0000 + packet.length)
  expect(seen.at(-1)!.payload).toEqual(payload)
  expect(headerOf(seen.at(-1)!.header)).toMatchObject(fields)
  expect(readAll(connection)).toEqual([...payload])
})

test('what is written into several descriptors is one copy', () => {
  const { vm, seen } = tapped()
  const connection = open(vm, { bufferAllocation: 1 << 16 })
  const text = 'written in pieces, the last of them longer than the runs that a loop copies: '.repeat(3)
  connection.write(Buffer.from(text))
  vm.run()
  expect(
    seen
      .slice(2)
      .map(({ payload }) => Buffer.from(payload).toString())
      .join(''),
  ).toBe(text)
})

test('a length that no packet may have is cut in the copy', () => {
  const { vm, seen } = tapped()
  const connection = open(vm)
  const length = LARGEST_PACKET + 1
  const { guestPort: sourcePort, hostPort: destinationPort } = connection
  const fields = { op: Op.RW, sourceCid: 42, destinationCid: 2, sourcePort, destinationPort, length }
  encodePacketHeader({ ...emptyHeader(), ...fields }, new DataView(vm.guest.memoryBytes.buffer, 0xd_0000))
  vm.guest.tx.add([{ address: GUEST_BASE + 0xd_0000, length: PACKET_HEADER_SIZE + length, writable: false }])
  vm.run()
  expect(headerOf(seen[2]!.header).length).toBe(length)
  expect(seen[2]!.payload.length).toBe(LARGEST_PACKET)
})

test('who listens is asked for each trip', () => {
  const { vm, seen, tap } = tapped()
  const { listener } = tap
  tap.listener = undefined
  const connection = open(vm, { bufferAllocation: 1 << 16 })
  expect(seen).toEqual([])
  tap.listener = listener
  connection.write(Buffer.from('heard'))
  heard(vm)
  tap.listener = undefined
  connection.write(Buffer.from('missed'))
  expect(heard(vm).length).toBe(1)
  expect(seen.map(said)).toEqual(['< RW heard'])
})
