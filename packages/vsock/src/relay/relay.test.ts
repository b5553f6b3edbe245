import { once } from 'node:events'
import { duplexPair, type Readable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { expect, test } from 'vitest'
import { socketEnd } from './end.js'
import { relay } from './relay.js'

/** Two peers, joined by a relay whose ends face them. */
function joined(halfClose = true, lingerMs?: number) {
  const [left, nearLeft] = duplexPair()
  const [right, nearRight] = duplexPair()
  const clock = new ManualClock()
  const cut = new AbortController()
  const result = relay(socketEnd(nearLeft, { halfClose: true }), socketEnd(nearRight, { halfClose }), {
    signal: cut.signal,
    lingerMs,
    clock,
  })
  return { left, right, nearLeft, nearRight, clock, cut, result }
}

/** Whether a promise has settled, some turns of the event loop later. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  let is = false
  void promise.then(() => {
    is = true
  })
  for (let i = 0; i < 5; i++) await turn()
  return is
}

async function all(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) text += chunk
  return text
}

test('EOF goes through in each direction by itself', async () => {
  const { left, right, result } = joined()
  left.end('question')
  expect(await all(right)).toBe('question')
  // The other direction is open.
  right.write('answer, ')
  right.end('late')
  expect(await all(left)).toBe('answer, late')
  expect(await result).toEqual({ toFar: 8, toNear: 12 })
})

test('an end without half-close closes both, after everything it said', async () => {
  const { left, right, nearLeft, nearRight, result } = joined(false)
  right.resume().end('all there is')
  expect(await all(left)).toBe('all there is')
  left.end()
  expect(await result).toEqual({ toFar: 0, toNear: 12 })
  expect([nearLeft.destroyed, nearRight.destroyed]).toEqual([true, true])
})

test('an end without half-close that has ended still gets what there is for it, until there is silence', async () => {
  const { left, right, clock, result } = joined(false)
  right.end()
  left.resume()
  await turn()
  await turn()
  left.write('late')
  expect(String((await once(right, 'data'))[0])).toBe('late')
  await turn()
  clock.advance(499)
  expect(await settled(result)).toBe(false)
  clock.advance(1)
  left.end()
  expect(await result).toEqual({ toFar: 4, toNear: 0 })
})

test('an end without half-close that has ended and takes nothing is reported', async () => {
  const { left, right, clock, result } = joined(false)
  right.end()
  left.resume()
  await turn()
  left.write('taken')
  expect(String((await once(right, 'data'))[0])).toBe('taken')
  right.pause()
  left.end('left behind')
  await turn()
  await turn()
  clock.advance(4_999)
  expect(await settled(result)).toBe(false)
  clock.advance(1)
  const { broken } = await result
  expect(broken?.error).toMatchObject({ code: 'ETIMEDOUT' })
  expect(broken?.side).toBe('far')
})

test('an end that breaks takes the other one with it, and the result says which', async () => {
  const { left, right, nearLeft, nearRight, result } = joined()
  left.write('said')
  await turn()
  right.on('error', () => {})
  nearRight.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
  left.on('error', () => {}).resume()
  left.end()
  const { broken, toFar } = await result
  expect(broken?.error.message).toBe('read ECONNRESET')
  expect(broken?.side).toBe('far')
  expect(toFar).toBe(4)
  expect(nearLeft.destroyed).toBe(true)
})

test('an end that closes without having ended is broken', async () => {
  const { right, nearRight, left, result } = joined()
  right.on('error', () => {})
  nearRight.destroy()
  left.resume().end()
  expect((await result).broken?.error).toMatchObject({ code: 'ECONNRESET' })
})

test('lingerMs bounds the silence after the first EOF, not the transfer', async () => {
  const { left, right, clock, result } = joined(true, 500)
  right.write('before')
  left.once('readable', () => {})
  await turn()
  clock.advance(600_000)
  left.end('done')
  expect(await all(right)).toBe('done')
  clock.advance(499)
  // Each byte of the other direction starts the time again.
  right.write('still here')
  await turn()
  await turn()
  clock.advance(499)
  expect(await settled(result)).toBe(false)
  clock.advance(1)
  left.resume()
  right.end()
  expect(await result).toEqual({ toFar: 4, toNear: 16 })
})

test('an abort, early or late, leaves nothing open', async () => {
  const late = joined()
  late.left.on('error', () => {})
  late.right.on('error', () => {})
  late.left.write('x')
  await turn()
  late.cut.abort()
  expect(await late.result).toEqual({ toFar: 1, toNear: 0, aborted: true })
  expect([late.nearLeft.destroyed, late.nearRight.destroyed]).toEqual([true, true])

  const [, a] = duplexPair()
  const [, b] = duplexPair()
  await relay(socketEnd(a, { halfClose: true }), socketEnd(b, { halfClose: true }), { signal: AbortSignal.abort() })
  expect([a.destroyed, b.destroyed]).toEqual([true, true])
})

/** The relay's end of a peer that takes nothing, and goes on speaking. */
function deaf() {
  const [peer, near] = duplexPair()
  near._write = (_chunk, _encoding, done) => done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
  return { peer, near }
}

test('an end that takes no more is heard to its end, and then it is broken', async () => {
  const { peer, near } = deaf()
  const [left, nearLeft] = duplexPair()
  const result = relay(socketEnd(nearLeft, { halfClose: true }), socketEnd(near, { halfClose: true }))
  let heard = 0
  left.on('data', (chunk: Buffer) => {
    heard += chunk.length
  })
  left.write('lost')
  for (let i = 1; i <= 50; i++) {
    peer.write(Buffer.alloc(10_000))
    // More than any buffer on the way holds: nothing of it may stop the other direction.
    left.write(Buffer.alloc(10_000))
    await expect.poll(() => heard, { timeout: 10_000, interval: 1 }).toBe(i * 10_000)
  }
  // It is let go, and does not pile up.
  await expect.poll(() => left.writableLength, { timeout: 10_000 }).toBe(0)
  peer.end()
  const { toFar, toNear, broken } = await result
  expect([toFar, toNear, heard]).toEqual([0, 500_000, 500_000])
  expect(broken?.error).toMatchObject({ code: 'EPIPE' })
  expect(broken?.side).toBe('far')
})

test('an end that is destroyed after its EOF was heard, and closes both', async () => {
  const { left, right, nearRight, nearLeft, result } = joined()
  right.end('all there is')
  expect(await all(left)).toBe('all there is')
  nearRight.destroy()
  expect(await result).toEqual({ toFar: 0, toNear: 12 })
  expect(nearLeft.destroyed).toBe(true)
})

test('an end that is destroyed after its EOF is broken if it had not taken everything', async () => {
  const { left, right, nearRight, result } = joined()
  right.end('all there is')
  expect(await all(left)).toBe('all there is')
  left.write(Buffer.alloc(200_000))
  await turn()
  await turn()
  nearRight.destroy()
  const { broken } = await result
  expect(broken?.error).toMatchObject({ code: 'EPIPE' })
})
