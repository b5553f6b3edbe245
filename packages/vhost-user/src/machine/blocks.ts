import type { Chain } from './chain.js'
import type { Fifo } from './fifo.js'

/** Makes room for received bytes. The contents need not be cleared: every byte is written before it can be seen. */
export type Allocate = (size: number) => Uint8Array

const BLOCK_SIZE = 4096

export interface Block {
  readonly bytes: Uint8Array
  used: number
}

/**
 * Puts the next `length` readable bytes of `chain` after the last of `blocks`. What they cost is bounded by bytes, not by packets: after a
 * backlog, small packets share a block. A reader that keeps up gets blocks of exactly the packet's size.
 */
export function store(blocks: Fifo<Block>, chain: Chain, length: number, allocate: Allocate): void {
  const { last } = blocks
  if (last !== undefined && last.bytes.length - last.used >= length) {
    chain.read(last.bytes, last.used, length)
    last.used += length
    return
  }
  const bytes = allocate(last === undefined ? length : Math.max(length, BLOCK_SIZE))
  chain.read(bytes, 0, length)
  blocks.push({ bytes, used: length })
}
