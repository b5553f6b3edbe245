import { Duplex } from 'node:stream'
import { expect, test } from 'vitest'
import { collectGarbage } from '../testing/collect-garbage.js'
import { type JoinedStream, joinStreams } from './join.js'

const joined = (stream: Duplex): JoinedStream => ({
  stream,
  closeError: () => undefined,
  breakOff: (error) => stream.destroy(error),
})

test('a stream that always has bytes to take costs no more memory the longer it lives', () => {
  let done = () => {}
  const from = new Duplex({ read() {}, write: (_chunk, _encoding, taken) => taken() })
  const to = new Duplex({
    read() {},
    write(_chunk, _encoding, taken) {
      done = taken
    },
  })
  joinStreams(joined(from), joined(to))
  const chunk = Buffer.alloc(1)
  from.emit('data', chunk)
  const carry = (chunks: number) => {
    for (let i = 0; i < chunks; i++) {
      from.emit('data', chunk)
      done()
    }
    collectGarbage()
    return process.memoryUsage().heapUsed
  }
  const before = carry(1_000)
  const after = carry(1_000_000)
  expect(to.writableLength).toBe(1)
  expect(after - before).toBeLessThan(4_000_000)
})
