import { describe, expect, it } from 'vitest'
import { dump, place } from './hex.js'

const field = (name: string, offset: number, length: number) => ({ name, offset, length, value: '', meaning: '' })

describe('dump', () => {
  it('cuts fields at the ends of rows, and marks where each begins', () => {
    const fields = [field('magic', 0, 4), field('base', 12, 8)]
    const { rows, zerosFrom } = dump({ hex: '0011223344556677889900aabbccddeeff00'.padEnd(40, '0'), length: 1024, fields })
    expect(
      rows.map(({ offset, segments }) => [offset, ...segments.map(({ field, begins, bytes }) => [field, begins, bytes.length])]),
    ).toEqual([
      [0, [0, true, 4], [undefined, false, 8], [1, true, 4]],
      [16, [1, false, 4], [undefined, false, 12]],
    ])
    expect(rows[0]!.segments[0]!.bytes).toEqual(['00', '11', '22', '33'])
    expect(zerosFrom).toBe(32)
  })

  it('fills the last row with zeros, up to the length of the message', () => {
    const { rows, zerosFrom } = dump({ hex: 'ff', length: 3, fields: [] })
    expect(rows.map(({ segments }) => segments.map(({ bytes }) => bytes))).toEqual([[['ff', '00', '00']]])
    expect(zerosFrom).toBeUndefined()
  })

  it('survives fields that lie outside of the message, overlap or are empty', () => {
    const fields = [
      field('far', 100, 4),
      field('all', 0, 2 ** 40),
      field('over', 1, 1),
      field('none', 2, 0),
      field('before', -4, 2),
    ]
    const { rows } = dump({ hex: '010203', length: 3, fields })
    expect(rows[0]!.segments.map(({ field }) => field)).toEqual([1])
  })

  it('shows one row of a message of zeros alone', () => {
    expect(dump({ hex: '', length: 1024, fields: [] }).rows).toHaveLength(1)
  })
})

it('names the bytes of a field', () => {
  expect([field('a', 8, 4), field('b', 4, 1)].map(place)).toEqual(['bytes 8-11', 'byte 4'])
})
