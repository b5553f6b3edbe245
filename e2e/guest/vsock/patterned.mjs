import { createHash } from 'node:crypto'
import { once } from 'node:events'

export const GIB = 1 << 30

/** A number in each block makes it differ from all others; not a power of two, so that it falls out of step with every buffer. */
const BLOCK = 61_440

/** Writes 1 GiB, ends, and resolves with its MD5. */
export async function patterned(socket, words) {
  const hash = createHash('md5')
  const block = Buffer.alloc(BLOCK, words)
  for (let sent = 0, number = 0; sent < GIB; number++) {
    const bytes = Buffer.from(block.subarray(0, Math.min(BLOCK, GIB - sent)))
    bytes.writeUInt32LE(number, 0)
    hash.update(bytes)
    sent += bytes.length
    if (!socket.write(bytes)) await once(socket, 'drain')
  }
  socket.end()
  return hash.digest('hex')
}
