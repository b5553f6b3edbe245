import { type Duplex, duplexPair } from 'node:stream'

/**
 * Two ends of one stream in memory, neither of which outlives the other. What breaks one breaks the other, with the same error. A close
 * without an error is an end: the other one reads what was said, then EOF, and closes.
 */
export function joinedPair(): [Duplex, Duplex] {
  const [a, b] = duplexPair()
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    // In place of Node's own: up to 22 it tells the other end nothing, and from 24 it shows a break there as a close without an error.
    one._destroy = (error, done) => {
      process.nextTick(() => {
        if (error || other.readableEnded) other.destroy(error ?? undefined)
        else other.once('end', () => other.destroy()).push(null)
      })
      done(error)
    }
    // 'close' follows.
    one.on('error', () => {})
  }
  return [a, b]
}
