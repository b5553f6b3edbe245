import { once } from 'node:events'
import { duplexPair, PassThrough, Readable, Writable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { joinedPair } from './pair.js'
import { socketParty, stdioParty } from './party.js'
import { relay } from './relay.js'

const signal = new AbortController().signal

/** Two peers, joined by a relay whose ends face them. */
function joined(halfClose = true, lingerMs?: number) {
  const [left, nearLeft] = duplexPair()
  const [right, nearRight] = duplexPair()
  const timers: { ms: number; fn: () => void }[] = []
  const setTimer = (ms: number, fn: () => void) => {
    const timer = { ms, fn }
    timers.push(timer)
    return () => void timers.splice(timers.indexOf(timer), 1)
  }
  const cut = new AbortController()
  const result = relay(socketParty(nearLeft, { halfClose: true }), socketParty(nearRight, { halfClose }), {
    signal: cut.signal,
    lingerMs,
    setTimer,
  })
  return { left, right, nearLeft, nearRight, timers, cut, result }
}

async function all(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) text += chunk
  return text
}

async function closed(stream: Readable): Promise<void> {
  if (!stream.closed) await new Promise((resolve) => stream.once('close', resolve))
}

test('EOF goes through in each direction by itself', async () => {
  const { left, right, result } = joined()
  left.end('question')
  expect(await all(right)).toBe('question')
  // The other direction is open.
  right.write('answer, ')
  right.end('late')
  expect(await all(left)).toBe('answer, late')
  expect(await result).toEqual({ forth: 8, back: 12 })
})

test('a party without half-close ends both, and what it said is delivered', async () => {
  const { left, right, nearLeft, nearRight, result } = joined(false)
  right.resume().end('all there is')
  expect(await all(left)).toBe('all there is')
  left.end()
  expect(await result).toEqual({ forth: 0, back: 12 })
  expect([nearLeft.destroyed, nearRight.destroyed]).toEqual([true, true])
})

test('what is still said to a party without half-close that has ended is carried, until there is silence', async () => {
  const { left, right, timers, result } = joined(false)
  right.end()
  left.resume()
  await turn()
  await turn()
  left.write('late')
  expect(String((await once(right, 'data'))[0])).toBe('late')
  await turn()
  expect(timers).toMatchObject([{ ms: 500 }])
  timers[0]!.fn()
  left.end()
  expect(await result).toEqual({ forth: 4, back: 0 })
})

test('one that takes none of it is broken', async () => {
  const { left, right, nearRight, timers, result } = joined(false)
  right.end()
  left.resume()
  await turn()
  left.write('taken')
  expect(String((await once(right, 'data'))[0])).toBe('taken')
  right.pause()
  left.end('left behind')
  await turn()
  await turn()
  expect(timers).toMatchObject([{ ms: 5_000 }])
  timers[0]!.fn()
  const { broken } = await result
  expect(broken?.error).toMatchObject({ code: 'ETIMEDOUT' })
  expect(broken?.party.sink).toBe(nearRight)
})

test('what breaks only as it is closed is told, too', async () => {
  let fail = () => {}
  const stuck = new Writable({
    write(_bytes, _encoding, done) {
      fail = () => done(new Error('full'))
    },
  }).on('error', () => {})
  let onSilence = () => {}
  const [peer, near] = duplexPair()
  const result = relay(stdioParty({ stdin: new PassThrough(), stdout: stuck }), socketParty(near, { halfClose: false }), {
    signal,
    setTimer(_ms, fn) {
      onSilence = fn
      return () => {}
    },
  })
  peer.resume().end('lost')
  await turn()
  onSilence()
  await turn()
  fail()
  expect((await result).broken?.error.message).toMatch(/full/)
})

test('a source is read no further than its sink takes', async () => {
  const chunk = Buffer.alloc(65_536)
  let read = 0
  const large = new Readable({
    read() {
      read += chunk.length
      this.push(read < 64 << 20 ? chunk : null)
    },
  })
  let taken = 0
  let take = () => {}
  const stuck = new Writable({
    write(bytes: Buffer, _encoding, done) {
      taken += bytes.length
      take = done
    },
  })
  const [peer, near] = duplexPair()
  const cut = new AbortController()
  const result = relay(stdioParty({ stdin: large, stdout: stuck }), socketParty(near, { halfClose: true }), {
    signal: cut.signal,
  })
  for (let i = 0; i < 100; i++) await turn()
  // The buffers on the way: of the source, and of the two ends of the stream.
  const before = read
  expect(before).toBeLessThanOrEqual(8 * chunk.length)
  // It goes on as soon as the peer reads.
  for (let got = 0; got < 4 * before; ) {
    const bytes: Buffer | null = peer.read()
    if (bytes === null) await turn()
    else got += bytes.length
  }
  expect(read).toBeGreaterThanOrEqual(4 * before)
  // And the way back, into a stdout that is stuck.
  let written = 0
  while (peer.write(chunk)) written += chunk.length
  for (let i = 0; i < 100; i++) await turn()
  expect(taken).toBeLessThanOrEqual(chunk.length)
  expect(written).toBeLessThanOrEqual(8 * chunk.length)
  take()
  cut.abort()
  await result
  expect([large.destroyed, near.destroyed, stuck.destroyed]).toEqual([true, true, false])
})

test('a party that breaks takes the other one with it, and the result says which', async () => {
  const { left, right, nearLeft, nearRight, result } = joined()
  left.write('said')
  await turn()
  right.on('error', () => {})
  nearRight.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
  left.on('error', () => {}).resume()
  left.end()
  const { broken, forth } = await result
  expect(broken?.error.message).toBe('read ECONNRESET')
  expect(broken?.party.source).toBe(nearRight)
  expect(forth).toBe(4)
  expect(nearLeft.destroyed).toBe(true)
})

test('a party that closes without having ended is a broken one', async () => {
  const { right, nearRight, left, result } = joined()
  right.on('error', () => {})
  nearRight.destroy()
  left.resume().end()
  expect((await result).broken?.error).toMatchObject({ code: 'ECONNRESET' })
})

test('linger bounds the silence behind the first EOF, not the transfer', async () => {
  const { left, right, timers, result } = joined(true, 500)
  right.write('before')
  left.once('readable', () => {})
  await turn()
  expect(timers).toHaveLength(0)
  left.end('done')
  expect(await all(right)).toBe('done')
  expect(timers).toMatchObject([{ ms: 500 }])
  const [first] = timers
  // Each byte of the other direction starts it anew.
  right.write('still here')
  await turn()
  await turn()
  expect(timers).toHaveLength(1)
  expect(timers[0]).not.toBe(first)
  timers[0]!.fn()
  left.resume()
  right.end()
  expect(await result).toEqual({ forth: 4, back: 16 })
})

test('an abort, early or late, leaves nothing open', async () => {
  const late = joined()
  late.left.on('error', () => {})
  late.right.on('error', () => {})
  late.left.write('x')
  await turn()
  late.cut.abort()
  expect(await late.result).toEqual({ forth: 1, back: 0, cut: true })
  expect([late.nearLeft.destroyed, late.nearRight.destroyed]).toEqual([true, true])

  const [, a] = duplexPair()
  const [, b] = duplexPair()
  await relay(socketParty(a, { halfClose: true }), socketParty(b, { halfClose: true }), { signal: AbortSignal.abort() })
  expect([a.destroyed, b.destroyed]).toEqual([true, true])
})

test('stdout is left open, stdin that has ended already is EOF', async () => {
  const stdin = Readable.from([])
  for await (const _ of stdin);
  const stdout = new PassThrough()
  const [peer, near] = duplexPair()
  const result = relay(stdioParty({ stdin, stdout }), socketParty(near, { halfClose: true }), { signal })
  expect(await all(peer)).toBe('')
  peer.end('reply')
  expect(await result).toEqual({ forth: 0, back: 5 })
  expect([String(stdout.read()), stdout.writable]).toEqual(['reply', true])
})

/** The relay's end of a peer that takes nothing, and goes on speaking. */
function deaf() {
  const [peer, near] = duplexPair()
  near._write = (_chunk, _encoding, done) => done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
  return { peer, near }
}

test('a party that takes no more is heard to its end, and then it is a broken one', async () => {
  const { peer, near } = deaf()
  const [left, nearLeft] = duplexPair()
  const result = relay(socketParty(nearLeft, { halfClose: true }), socketParty(near, { halfClose: true }), { signal })
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
  const { forth, back, broken } = await result
  expect([forth, back, heard]).toEqual([0, 500_000, 500_000])
  expect(broken?.error).toMatchObject({ code: 'EPIPE' })
  expect(broken?.party.sink).toBe(near)
})

test('a party that is destroyed behind its end was heard, and ends both', async () => {
  const { left, right, nearRight, nearLeft, result } = joined()
  right.end('all there is')
  expect(await all(left)).toBe('all there is')
  nearRight.destroy()
  expect(await result).toEqual({ forth: 0, back: 12 })
  expect(nearLeft.destroyed).toBe(true)
})

test('it is a broken one if it had not taken everything', async () => {
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

test.each([
  ['says something', 'late', 'EPIPE'],
  ['ends', undefined, undefined],
])('stdin behind a peer that has gone: %s', async (_, late, code) => {
  const stdin = new PassThrough()
  const [peer, near] = duplexPair()
  const result = relay(stdioParty({ stdin, stdout: new PassThrough() }), socketParty(near, { halfClose: true }), { signal })
  peer.end()
  await once(near, 'end')
  near.destroy()
  await turn()
  stdin.end(late)
  expect((await result).broken?.error).toEqual(code ? expect.objectContaining({ code }) : undefined)
})

test('two ends in memory break together', async () => {
  const [a, b] = joinedPair()
  a.destroy(new Error('reset'))
  await closed(b)
  expect(b.errored?.message).toBe('reset')
})

test('two ends in memory close together, and the other one has heard everything', async () => {
  const [a, b] = joinedPair()
  a.write('all there is')
  a.destroy()
  await turn()
  expect(await all(b)).toBe('all there is')
  await closed(b)
  expect(b.errored).toBeNull()
})

test('an end in memory that has heard the other one end closes with it', async () => {
  const [a, b] = joinedPair()
  a.end('all there is')
  expect(await all(b)).toBe('all there is')
  a.destroy()
  await closed(b)
  expect(b.errored).toBeNull()
})
