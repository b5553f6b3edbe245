import type { VsockEnd, VsockPacket } from '@upcall/trace'
import { encodeConnect, encodeReply, encodeRequest } from '@upcall/wire'
import { expect, test } from 'vitest'
import { type CaptureEvent, Connections } from './connections.js'

const none = new Uint8Array(0)
const host = (port: number): VsockEnd => ({ cid: 2n, port })
const guest = { cid: 3n, port: 219 }
const request = encodeRequest({ type: 'DEL_PCI', bus: 0, devfn: 0x28 }, 'x86_64')
const reply = encodeReply({ type: 'DEL_PCI', result: 0 }, 'x86_64')

function feed(connections: Connections, port: number, way: '>' | '<', payload: Uint8Array, op: VsockPacket['op'] = 'payload') {
  const [source, destination] = way === '>' ? [host(port), guest] : [guest, host(port)]
  return connections.packet({ source, destination, op, payload }, { time: 0, length: payload.length, bytes: payload })
}

const titles = (events: CaptureEvent[], conn: number) =>
  events.flatMap((event) => (event.type === 'message' && event.conn === conn ? [event.title] : []))

test('connections whose messages come in pieces between those of others, and end in another order', () => {
  const connections = new Connections({})
  const ports = [1, 2, 3]
  const told: CaptureEvent[] = []
  const each = (way: '>' | '<', payload: Uint8Array, op?: VsockPacket['op']) => {
    for (const port of ports) told.push(...feed(connections, port, way, payload, op))
    ports.reverse()
  }
  each('>', none, 'connect')
  each('>', Uint8Array.of(0x64))
  each('<', encodeConnect())
  for (let at = 0; at < 1024; at += 300) each('>', request.subarray(at, at + 300))
  for (let at = 0; at < 1024; at += 500) each('<', reply.subarray(at, at + 500))
  each('>', none, 'disconnect')
  for (const conn of ports) expect(titles(told, conn)).toEqual(['CONNECT  the greeting', 'DEL_PCI  00:05.0', 'DEL_PCI  0'])
  expect(told.filter(({ type }) => type === 'garbage' || type === 'cut')).toEqual([])
})

test('a reused port in the middle of a message: what the first began is cut, and the second is whole', () => {
  const connections = new Connections({})
  const told: CaptureEvent[] = []
  for (let round = 0; round < 2; round++) {
    told.push(...feed(connections, 1, '>', none, 'connect'), ...feed(connections, 1, '>', Uint8Array.of(0x64)))
    told.push(...feed(connections, 1, '<', encodeConnect()))
    told.push(...feed(connections, 1, '>', round === 0 ? request.subarray(0, 700) : request))
  }
  expect(told.filter(({ type }) => type === 'cut').map(({ conn }) => conn)).toEqual([1])
  expect([titles(told, 1), titles(told, 2)]).toEqual([['CONNECT  the greeting'], ['CONNECT  the greeting', 'DEL_PCI  00:05.0']])
})

test('connections that never end are forgotten, that with the longest silence first', () => {
  const connections = new Connections({})
  let cut = 0
  for (let port = 1; port <= 5000; port++) {
    const told = [
      ...feed(connections, port, '>', none, 'connect'),
      ...feed(connections, port, '>', Uint8Array.of(0x64)),
      ...feed(connections, port, '>', request.subarray(0, 1000)),
    ]
    cut += told.filter(({ type }) => type === 'cut').length
  }
  // What is still remembered is told at the end.
  expect([cut, connections.end().length]).toEqual([5000 - 4096, 4096])
})

test('a payload of nothing but beginnings of messages costs no more than its length', () => {
  const connections = new Connections({})
  feed(connections, 1, '>', none, 'connect')
  feed(connections, 1, '>', Uint8Array.of(0x64))
  const magics = Buffer.alloc(1 << 18, Buffer.from([0, 1, 0x4d, 0x44, 0]))
  const lines = Buffer.alloc(1 << 18, 'OK 1\n')
  const told = [...feed(connections, 1, '>', magics), ...feed(connections, 1, '<', lines)]
  expect(told.length).toBeLessThan(2048)
  expect(told.length).toBeGreaterThan(256)
})
