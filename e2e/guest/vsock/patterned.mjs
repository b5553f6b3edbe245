import { createHash } from 'node:crypto'
import { once } from 'node:events'

/** A number in each block makes it differ from all others; not a power of two, so that it falls out of step with every buffer. */
const BLOCK = 61_440

/** Sends `amount` bytes and reads to the end at the same time. Resolves with the MD5 of both, and with how many bytes came. */
export async function bothWays(socket, words, amount) {
  const hash = createHash('md5')
  let length = 0
  socket.on('data', (chunk) => {
    hash.update(chunk)
    length += chunk.length
  })
  const ended = once(socket, 'end')
  const sent = await patterned(socket, words, amount)
  await ended
  return { length, received: hash.digest('hex'), sent }
}

/** Writes them, ends, and resolves with its MD5. */
async function patterned(socket, words, amount) {
  const hash = createHash('md5')
  const block = Buffer.alloc(BLOCK, words)
  for (let sent = 0, number = 0; sent < amount; number++) {
    const bytes = Buffer.from(block.subarray(0, Math.min(BLOCK, amount - sent)))
    bytes.writeUInt32LE(number, 0)
    hash.update(bytes)
    sent += bytes.length
    if (!socket.write(bytes)) await once(socket, 'drain')
  }
  socket.end()
  return hash.digest('hex')
}
