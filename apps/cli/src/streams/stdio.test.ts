import { once } from 'node:events'
import { duplexPair, PassThrough, Readable, Writable } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { relay, socketEnd } from '@upcall/vsock'
import { expect, test } from 'vitest'
import { stdioEnd } from './stdio.js'

async function all(stream: Readable): Promise<string> {
  let text = ''
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) text += chunk
  return text
}

test('what breaks only as it is closed is told, too', async () => {
  let fail = () => {}
  const stuck = new Writable({
    write(_bytes, _encoding, done) {
      fail = () => done(new Error('full'))
    },
  }).on('error', () => {})
  const clock = new ManualClock()
  const [peer, near] = duplexPair()
  const result = relay(stdioEnd({ stdin: new PassThrough(), stdout: stuck }), socketEnd(near, { halfClose: false }), { clock })
  peer.resume().end('lost')
  await turn()
  clock.advance(500)
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
  const result = relay(stdioEnd({ stdin: large, stdout: stuck }), socketEnd(near, { halfClose: true }), {
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

test('stdout is left open, stdin that has ended already is EOF', async () => {
  const stdin = Readable.from([])
  for await (const _ of stdin);
  const stdout = new PassThrough()
  const [peer, near] = duplexPair()
  const result = relay(stdioEnd({ stdin, stdout }), socketEnd(near, { halfClose: true }))
  expect(await all(peer)).toBe('')
  peer.end('reply')
  expect(await result).toEqual({ toFar: 0, toNear: 5 })
  expect([String(stdout.read()), stdout.writable]).toEqual(['reply', true])
})

test.each([
  ['says something', 'late', 'EPIPE'],
  ['ends', undefined, undefined],
])('stdin after the peer has gone: %s', async (_, late, code) => {
  const stdin = new PassThrough()
  const [peer, near] = duplexPair()
  const result = relay(stdioEnd({ stdin, stdout: new PassThrough() }), socketEnd(near, { halfClose: true }))
  peer.end()
  await once(near, 'end')
  near.destroy()
  await turn()
  stdin.end(late)
  expect((await result).broken?.error).toEqual(code ? expect.objectContaining({ code }) : undefined)
})
