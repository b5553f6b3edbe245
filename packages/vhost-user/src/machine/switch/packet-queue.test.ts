import { collectGarbage } from '@upcall/foundation/testing/collect-garbage'
import { expect, test } from 'vitest'
import { Chain } from '../chain.js'
import { SEQ_EOM, SEQ_EOR } from '../packet.js'
import { PacketQueue } from './packet-queue.js'

const into = (buffer: Uint8Array): Chain => {
  const chain = new Chain()
  chain.begin(0)
  chain.append(buffer, 0, buffer.length, true)
  return chain
}

test('a packet costs its bytes, or 256 for its bookkeeping, until its last byte has left', () => {
  const queue = new PacketQueue()
  expect([queue.push(new Uint8Array(1), 0), queue.push(new Uint8Array(1000), 0)]).toEqual([256, 1000])
  const buffer = new Uint8Array(2000)
  expect(queue.moveTo(into(buffer), 1)).toBe(256)
  expect(queue.moveTo(into(buffer), 999)).toBe(0)
  expect([queue.length, queue.cost]).toEqual([1, 1000])
  expect(queue.moveTo(into(buffer), 1)).toBe(1000)
  expect([queue.length, queue.cost]).toEqual([0, 0])
})

test('bytes keep their order over packets, parts and a list that is cut back', () => {
  const queue = new PacketQueue()
  const out: number[] = []
  let next = 0
  for (let round = 0; round < 500; round++) {
    for (let i = 0; i < 3; i++) queue.push(Uint8Array.of(next++ & 0xff, next++ & 0xff), 0)
    const buffer = new Uint8Array(5)
    queue.moveTo(into(buffer), 5)
    out.push(...buffer)
  }
  expect(out).toEqual(out.map((_, i) => i & 0xff))
})

test('a packet that is split has its flags in its last part', () => {
  const queue = new PacketQueue()
  queue.push(new Uint8Array(100), SEQ_EOM | SEQ_EOR | 8)
  expect(queue.nextMessagePart(60)).toEqual({ length: 60, flags: 0 })
  queue.moveTo(into(new Uint8Array(60)), 60)
  expect(queue.nextMessagePart(60)).toEqual({ length: 40, flags: SEQ_EOM | SEQ_EOR })
})

test('packets that have left are let go of, although the queue is never empty', () => {
  const queue = new PacketQueue()
  const buffer = new Uint8Array(65_536)
  queue.push(new Uint8Array(65_536), 0)
  collectGarbage(5)
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 1_000; i++) {
    queue.push(new Uint8Array(65_536), 0)
    queue.moveTo(into(buffer), 65_536)
  }
  collectGarbage(5)
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 << 20)
  expect(queue.length).toBe(65_536)
})
