import { type Duplex, duplexPair } from 'node:stream'

/** Two ends of one stream in memory, neither of which outlives the other. */
export function joinedPair(): [Duplex, Duplex] {
  const [a, b] = duplexPair()
  a.once('close', () => b.destroy())
  b.once('close', () => a.destroy())
  return [a, b]
}
