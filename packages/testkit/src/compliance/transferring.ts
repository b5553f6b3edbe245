import { ok, strictEqual } from 'node:assert/strict'
import { roundTrip } from './expect.js'
import type { Test } from './scope.js'
import { digest, echo, pattern, readAll, readExactly, turn, write, writeBlocks } from './streams.js'

const MIB = 1 << 20
/** Far more than any transport buffers, far less than would slow the test down. */
const TOO_MUCH = 32 * MIB
/** After so many turns of the event loop without progress, a writer counts as held back. */
const IDLE_TURNS = 200

/** The bytes: sizes, order, amounts, backpressure. */
export function transferring<A>(): Test<A>[] {
  return [...unchanged<A>(), holdsBack<A>()]
}

function unchanged<A>(): Test<A>[] {
  return [
    [
      'odd sizes come back unchanged',
      async (scope) => {
        const { near, far } = await scope.pair()
        echo(far)
        for (const size of [1, 2, 3, 31, 32, 33, 1023, 1024, 1025, 4095, 4097, 65_535, 65_537, 200_001]) {
          await roundTrip(scope, near, size)
        }
      },
    ],
    [
      'what the accepting end sends first is there for a connecting end that reads late',
      async (scope) => {
        const listener = await scope.listen()
        listener.serve((stream) => void stream.write('greetings'))
        const near = await scope.connect(listener.address)
        for (let i = 0; i < 10; i++) await turn()
        strictEqual(String(await scope.until(readExactly(near, 9))), 'greetings')
      },
    ],
    [
      'what the connecting end sends first is there for an accepting end that reads late',
      async (scope) => {
        const { near, far } = await scope.pair()
        await scope.until(write(near, Buffer.from('greetings')))
        for (let i = 0; i < 10; i++) await turn()
        strictEqual(String(await scope.until(readExactly(far, 9))), 'greetings')
      },
    ],
    [
      'one MiB each way at the same time arrives unchanged',
      async (scope) => {
        const { near, far } = await scope.pair()
        const [there, back] = [pattern(MIB, 1), pattern(MIB, 2)]
        const [atFar, atNear] = await scope.until(
          Promise.all([readExactly(far, MIB), readExactly(near, MIB), writeBlocks(near, there), writeBlocks(far, back)]),
        )
        strictEqual(digest(atFar), digest(there), 'towards the accepting end')
        strictEqual(digest(atNear), digest(back), 'towards the connecting end')
      },
    ],
    [
      'what was written before end() arrives before EOF',
      async (scope) => {
        const { near, far } = await scope.pair()
        const bytes = pattern(300_000)
        far.end(bytes)
        strictEqual(digest(await scope.until(readAll(near))), digest(bytes))
      },
    ],
  ]
}

function holdsBack<A>(): Test<A> {
  return [
    'a reader that does not read holds its writer back, and loses nothing',
    async (scope) => {
      const { near, far } = await scope.pair()
      const block = pattern(65_536)
      let taken = 0
      let stop = false
      const writing = (async () => {
        while (!stop && taken < TOO_MUCH) {
          await write(near, block)
          taken += block.length
        }
      })()
      // A failure counts where `writing` is awaited.
      writing.catch(() => {})
      for (let idle = 0, before = -1; idle < IDLE_TURNS && taken < TOO_MUCH; idle++) {
        if (taken !== before) idle = 0
        before = taken
        await scope.until(turn())
      }
      ok(taken < TOO_MUCH, `the transport took ${taken} bytes that were not read`)
      stop = true
      let received = 0
      far.on('data', (chunk: Buffer) => {
        received += chunk.length
      })
      await scope.until(writing)
      while (received < taken) await scope.until(turn())
      strictEqual(received, taken)
    },
  ]
}
