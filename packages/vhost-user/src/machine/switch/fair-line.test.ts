import { expect, test } from 'vitest'
import { FairLine } from './fair-line.js'

const end = (peerCid: number, name: string) => ({ peerCid, name })

/** Who is served, one after the other, if each stays. */
const served = (line: FairLine<{ peerCid: number; name: string }>, turns: number): string =>
  Array.from({ length: turns }, () => {
    const first = line.first!
    line.turn(first)
    return first.name
  }).join(' ')

test('guests take turns, and so do the connections of each', () => {
  const line = new FairLine<{ peerCid: number; name: string }>()
  for (const name of ['a1', 'a2', 'a3']) line.join(end(3, name))
  line.join(end(4, 'b1'))
  expect(served(line, 8)).toBe('a1 b1 a2 b1 a3 b1 a1 b1')
})

test('a connection that leaves after its packet does not keep the turn for its guest', () => {
  const line = new FairLine<{ peerCid: number; name: string }>()
  const a = ['a1', 'a2', 'a3'].map((name) => end(3, name))
  for (const each of a) line.join(each)
  line.join(end(4, 'b1'))
  line.leave(a[0]!)
  line.turn(a[0]!)
  expect([line.first!.name, line.size]).toEqual(['b1', 3])
})

test('the size follows, and a member is in it once', () => {
  const line = new FairLine<{ peerCid: number; name: string }>()
  const [a, b] = [end(3, 'a'), end(4, 'b')]
  for (const each of [a, a, b]) line.join(each)
  expect(line.size).toBe(2)
  for (const each of [b, b, a]) line.leave(each)
  expect([line.size, line.first]).toEqual([0, undefined])
  line.turn(a)
  line.join(b)
  expect(served(line, 2)).toBe('b b')
})
