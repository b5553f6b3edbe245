import type { Duplex } from 'node:stream'
import { settle } from '@upcall/foundation/testing/manual-clock'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { duplexPair } from './duplex-pair.js'
import type { FaultPlan } from './fault-plan.js'
import { type FaultEvent, faulty } from './faulty.js'

function connected(plan: FaultPlan) {
  const [inner, peer] = duplexPair()
  const stream = faulty(inner, plan)
  const faults: FaultEvent[] = []
  stream.on('fault', (event: FaultEvent) => faults.push(event))
  return { stream, peer, faults, atStream: record(stream), atPeer: record(peer) }
}

function record(stream: Duplex): string[] {
  const events: string[] = []
  stream.on('data', (chunk: Buffer) => events.push(String(chunk)))
  stream.on('end', () => events.push('|end'))
  stream.on('close', () => events.push('|close'))
  stream.on('error', (error: NodeJS.ErrnoException) => events.push(`|${error.code}`))
  return events
}

it('an empty plan changes nothing', async () => {
  const { stream, peer, atStream, atPeer } = connected({})
  stream.write('there')
  peer.write('back')
  await settle()
  stream.end()
  peer.end()
  await settle()
  expect(atPeer).toEqual(['there', '|end', '|close'])
  expect(atStream).toEqual(['back', '|end', '|close'])
  expect([stream.bytesWritten, stream.bytesRead]).toEqual([5, 4])
})

describe.each(['read', 'write'] as const)('on the way of %s', (direction) => {
  // Bytes go in at `from` and come out at `at`.
  const through = (plan: FaultPlan['read']) => {
    const all = connected({ [direction]: plan })
    return direction === 'read'
      ? { ...all, from: all.peer, at: all.atStream, there: all.atPeer }
      : { ...all, from: all.stream, at: all.atPeer, there: all.atStream }
  }

  it('pieces of n bytes, counted over chunks', async () => {
    const { from, at } = through({ every: 4 })
    from.write('abcdef')
    from.write('ghijk')
    await settle()
    expect(at).toEqual(['abcd', 'ef', 'gh', 'ijk'])
  })

  it('cut points', async () => {
    const { from, at } = through({ cuts: [5, 1, 8] })
    from.write('abcdefghij')
    await settle()
    expect(at).toEqual(['a', 'bcde', 'fgh', 'ij'])
  })

  it('EOF at byte n; what follows is lost', async () => {
    const { from, at, faults } = through({ eofAt: 3 })
    from.write('abcdef')
    from.write('ghi')
    await settle()
    expect(at).toEqual(['abc', '|end'])
    expect(faults).toEqual([{ direction, fault: 'eof', at: 3 }])
  })

  it('EOF at once', async () => {
    const { from, at } = through({ eofAt: 0 })
    await settle()
    expect(at).toEqual(['|end'])
    from.write('abc')
    await settle()
    expect(at).toEqual(['|end'])
  })

  it('EOF right after the last byte, without another one', async () => {
    const { from, at } = through({ eofAt: 3 })
    from.write('abc')
    await settle()
    expect(at).toEqual(['abc', '|end'])
  })

  it.each([0, 2])('a stall at byte %i until it is released, the end after it', async (stallAt) => {
    const { stream, from, at } = through({ stallAt })
    from.write('abcd')
    from.end()
    await settle()
    expect(at.join('')).toBe('abcd'.slice(0, stallAt))
    expect(stream.stalled).toEqual([direction])
    stream.release(direction)
    await settle()
    expect(at.join('')).toBe('abcd|end')
    expect(stream.stalled).toEqual([])
  })

  it('a reset at byte n, at both ends', async () => {
    const { from, at, there } = through({ resetAt: 2 })
    from.write('abcd')
    await settle()
    expect(at).toEqual(['ab', '|ECONNRESET', '|close'])
    expect(there).toEqual(['|ECONNRESET', '|close'])
  })

  it('bytes slipped in, which do not count', async () => {
    const { stream, from, at } = through({ insert: { at: 2, bytes: Buffer.from('??') }, eofAt: 3 })
    from.write('abcd')
    await settle()
    expect(at).toEqual(['ab', '??', 'c', '|end'])
    expect(direction === 'read' ? stream.bytesRead : stream.bytesWritten).toBe(3)
  })

  it('whatever the pieces, the same bytes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ minLength: 1, unit: 'grapheme-ascii' }), { maxLength: 6 }),
        fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined }),
        fc.array(fc.nat(30), { maxLength: 4 }),
        async (chunks, every, cuts) => {
          const { from, at } = through({ every, cuts })
          for (const chunk of chunks) from.write(chunk)
          await settle()
          expect(at.join('')).toBe(chunks.join(''))
          for (const piece of at) expect(piece.length).toBeLessThanOrEqual(every ?? Number.POSITIVE_INFINITY)
        },
      ),
      { numRuns: 50 },
    )
  })
})

it('a stalled reader holds the other end back', async () => {
  const { peer } = connected({ read: { stallAt: 0 } })
  let left = 0
  for (let i = 0; i < 100; i++) peer.write(Buffer.alloc(16_384), () => left++)
  await settle()
  expect(left).toBeLessThan(5)
})

it('a destroyed stream takes the inner one with it, stalled or not', async () => {
  const { stream, peer, atPeer } = connected({ read: { stallAt: 0 } })
  peer.write('abc')
  await settle()
  stream.destroy()
  await settle()
  expect(atPeer).toEqual(['|end'])
})

it('refuses a plan that makes no sense, and says where', () => {
  const [inner] = duplexPair()
  expect(() => faulty(inner, { read: { every: 0 } })).toThrow('every: must be an integer of at least 1, got 0')
  expect(() => faulty(inner, { write: { cuts: [1, -2] } })).toThrow('cuts[1]: must be an integer of at least 0, got -2')
  expect(() => faulty(inner, { write: { eofAt: 1.5 } })).toThrow('eofAt')
})
