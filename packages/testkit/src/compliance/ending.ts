import { ok, strictEqual } from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import { coded } from './expect.js'
import type { Test } from './scope.js'
import { closed, digest, over, pattern, readAll, turn, write } from './streams.js'
import type { ComplianceTransport } from './transport.js'

/** How a connection ends: half-close, close, reset, and what a writer learns of it. */
export function ending<A>(transport: ComplianceTransport<A>): Test<A>[] {
  return [...orderly<A>(), ...destroyed<A>(), ...(transport.features.halfClose ? halfClosed<A>() : [])]
}

function orderly<A>(): Test<A>[] {
  return [
    [
      'EOF reaches the connecting end, which stays writable',
      async (scope) => {
        const { near, far } = await scope.pair()
        far.end('last words')
        strictEqual(String(await scope.until(readAll(near))), 'last words')
        strictEqual(near.writable, true)
      },
    ],
    [
      'when both ends have ended, both close without an error',
      async (scope) => {
        const { near, far } = await scope.pair()
        const both = Promise.all([over(near), over(far), closed(near), closed(far)])
        far.end()
        await scope.until(over(near))
        near.end()
        const [nearError, farError] = await scope.until(both)
        strictEqual(nearError, undefined)
        strictEqual(farError, undefined)
      },
    ],
  ]
}

function destroyed<A>(): Test<A>[] {
  return [
    [
      'destroy() of the accepting end is the end for the connecting one, and its writes fail',
      async (scope) => {
        const { near, far } = await scope.pair()
        const end = over(near)
        far.destroy()
        checkEnd(await scope.until(end))
        await scope.until(writesFail(near))
      },
    ],
    [
      'destroy() of the connecting end is the end for the accepting one, and its writes fail',
      async (scope) => {
        const { near, far } = await scope.pair()
        const end = over(far)
        near.destroy()
        checkEnd(await scope.until(end))
        await scope.until(writesFail(far))
      },
    ],
    [
      'destroy(error) with bytes unread is an error or EOF at the other end, nothing else',
      async (scope) => {
        const { near, far } = await scope.pair()
        await scope.until(write(near, pattern(1024)))
        const end = over(near)
        far.destroy(new Error('reset'))
        checkEnd(await scope.until(end))
        await scope.until(closesAfter(near))
      },
    ],
    [
      'destroy() in the middle of writing: a prefix arrives, then the end',
      async (scope) => {
        const { near, far } = await scope.pair()
        const bytes = pattern(4 << 20)
        const chunks: Buffer[] = []
        far.on('data', (chunk: Buffer) => chunks.push(chunk))
        const end = over(far)
        const writing = write(near, bytes).then(
          () => 'written',
          () => 'failed',
        )
        await turn()
        near.destroy()
        checkEnd(await scope.until(end))
        await scope.until(writing)
        const arrived = Buffer.concat(chunks)
        ok(bytes.subarray(0, arrived.length).equals(arrived), 'what arrived is not a prefix of what was written')
      },
    ],
  ]
}

function halfClosed<A>(): Test<A>[] {
  return [
    [
      'half-close by the connecting end: the accepting end reads to EOF and then answers at length',
      async (scope) => {
        const { near, far } = await scope.pair()
        await scope.until(answersAfterEof(near, far))
      },
    ],
    [
      'half-close by the accepting end: the connecting end reads to EOF and then answers at length',
      async (scope) => {
        const { near, far } = await scope.pair()
        await scope.until(answersAfterEof(far, near))
      },
    ],
  ]
}

async function answersAfterEof(first: Duplex, second: Duplex): Promise<void> {
  const question = pattern(10_000, 3)
  const answer = pattern(500_000, 4)
  const asked = readAll(second)
  const answered = readAll(first)
  first.end(question)
  strictEqual(digest(await asked), digest(question))
  second.end(answer)
  strictEqual(digest(await answered), digest(answer))
}

function checkEnd(error: Error | undefined): void {
  if (error !== undefined) coded('ECONNRESET', 'EPIPE')(error)
}

/** Writes to a peer that is gone fail at some point. */
async function writesFail(stream: Duplex): Promise<void> {
  for (;;) {
    try {
      await write(stream, pattern(1024))
    } catch (error) {
      coded('ECONNRESET', 'EPIPE', 'ERR_STREAM_DESTROYED')(error)
      return
    }
    await turn()
  }
}

/** A stream whose peer is gone closes, at the latest when this end ends too. */
async function closesAfter(stream: Duplex): Promise<void> {
  stream.end()
  await closed(stream)
}
