import { encodeConnect, encodeReply, encodeRequest } from '@upcall/wire'
import { expect, test } from 'vitest'
import { Conversation } from '../conversation/conversation.js'
import type { Direction } from '../conversation/framer.js'
import { ConversationPackets } from './packets.js'

const LINE = Buffer.from('CONNECT 220\n')
const ADD_PCI = encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0x28 }, 'x86_64')

/** The packets of what was said, as lines. */
function packetsOf(said: readonly [Direction, Uint8Array | 'end'][]): { lines: string[]; packets: ConversationPackets } {
  const conversation = new Conversation()
  const packets = new ConversationPackets({ conn: 1 })
  const lines: string[] = []
  for (const [direction, bytes] of said) {
    const events = bytes === 'end' ? conversation.end(direction, 0) : conversation.feed(direction, bytes, 0)
    for (const { source, destination, op, payload } of events.flatMap((event) => packets.of(event)))
      lines.push(`${source.cid}:${source.port} > ${destination.cid}:${destination.port} ${op} ${payload.length}`)
  }
  return { lines, packets }
}

const HOST = '2:1073741825'

test('one packet for each message, between one connect and the ends', () => {
  const { lines, packets } = packetsOf([
    ['to-guest', Uint8Array.of(0x64)],
    ['to-host', encodeConnect()],
    ['to-guest', ADD_PCI.subarray(0, 100)],
    ['to-guest', ADD_PCI.subarray(100)],
    ['to-host', encodeReply({ type: 'ADD_PCI', result: 0 }, 'x86_64')],
    ['to-guest', 'end'],
  ])
  expect(lines).toEqual([
    `${HOST} > 3:219 connect 0`,
    `3:219 > ${HOST} connect 0`,
    `${HOST} > 3:219 payload 1`,
    `3:219 > ${HOST} payload 1024`,
    `${HOST} > 3:219 payload 1024`,
    `3:219 > ${HOST} payload 1024`,
    `${HOST} > 3:219 disconnect 0`,
  ])
  expect(packets.isOver).toBe(false)
})

test('the handshake of a VMM is the connecting, to the port that it names', () => {
  const { lines, packets } = packetsOf([
    ['to-guest', LINE],
    ['to-host', Buffer.from('OK 1024\n')],
    ['to-guest', Buffer.from('x')],
    ['to-host', 'end'],
    ['to-guest', 'end'],
  ])
  expect(lines).toEqual([
    `${HOST} > 3:220 connect 0`,
    `3:220 > ${HOST} connect 0`,
    `${HOST} > 3:220 payload 1`,
    `3:220 > ${HOST} disconnect 0`,
    `${HOST} > 3:220 disconnect 0`,
  ])
  expect(packets.isOver).toBe(true)
})
