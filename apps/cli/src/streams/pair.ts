import { type Duplex, duplexPair } from 'node:stream'

/** Two ends of one stream in memory, neither of which outlives the other: what breaks one breaks both. */
export function joinedPair(): [Duplex, Duplex] {
  const [a, b] = duplexPair()
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    one.once('close', () => other.destroy(one.errored ?? undefined))
    // 'close' follows.
    one.on('error', () => {})
  }
  return [a, b]
}
