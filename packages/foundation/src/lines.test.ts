import { describe, expect, test } from 'vitest'
import { ByteLines, LineTooLongError, TextLines } from './lines.js'

describe('lines of text', () => {
  const text = 'one\n\nthree\r\nrest'

  test('come whole, however the text is cut', () => {
    for (let at = 0; at <= text.length; at++)
      for (let to = at; to <= text.length; to++) {
        const lines = new TextLines()
        const pieces = [text.slice(0, at), text.slice(at, to), text.slice(to)]
        expect(pieces.flatMap((piece) => [...lines.push(piece)])).toEqual(['one', '', 'three\r'])
        expect([lines.pending, lines.take(), lines.pending]).toEqual([4, 'rest', 0])
      }
  })

  test('that are too long are refused, and forgotten', () => {
    const lines = new TextLines({ max: 3 })
    expect([...lines.push('abc\nab')]).toEqual(['abc'])
    expect(() => [...lines.push('cd')]).toThrow(new LineTooLongError(3))
    expect(lines.pending).toBe(0)
    expect([...lines.push('ok\n')]).toEqual(['ok'])
  })

  test('are cut, however they come, if they may not be refused', () => {
    const text = `${'x'.repeat(10)}\nyyy\n${'z'.repeat(7)}`
    for (let at = 0; at <= text.length; at++) {
      const lines = new TextLines({ max: 3, longer: 'cut' })
      const given = [text.slice(0, at), text.slice(at)].flatMap((piece) => [...lines.push(piece)])
      expect(given).toEqual(['xxx', 'xxx', 'xxx', 'x', 'yyy', 'zzz', 'zzz'])
      expect(lines.take()).toBe('z')
    }
  })

  test('can be looked at before they end', () => {
    const lines = new TextLines()
    expect(lines.peek()).toBe('')
    for (const piece of ['a\nlo', 'g', 'in: ']) [...lines.push(piece)]
    expect([lines.peek(), lines.peek(), lines.pending]).toEqual(['login: ', 'login: ', 7])
    expect([...lines.push('root\n')]).toEqual(['login: root'])
  })

  test('are gathered in linear work: no piece is looked at twice', () => {
    let searched = 0
    class Counting extends TextLines {
      protected override newlineFrom(piece: string, at: number): number {
        searched += piece.length - at
        return super.newlineFrom(piece, at)
      }
    }
    const lines = new Counting()
    for (let i = 0; i < 10_000; i++) expect([...lines.push('x'.repeat(100))]).toEqual([])
    expect([...lines.push('\n')][0]).toHaveLength(1_000_000)
    expect(searched).toBe(1_000_001)
  })
})

describe('lines of bytes', () => {
  const bytes = (text: string) => new TextEncoder().encode(text)
  const text = (piece: Uint8Array) => new TextDecoder().decode(piece)

  test('come whole, however the bytes are cut, in the middle of a character too', () => {
    const all = bytes('größe\n\nx')
    for (let at = 0; at <= all.length; at++) {
      const lines = new ByteLines()
      expect([all.subarray(0, at), all.subarray(at)].flatMap((piece) => [...lines.push(piece)]).map(text)).toEqual(['größe', ''])
      expect(text(lines.take())).toBe('x')
    }
  })

  test('may be empty at the end', () => expect(new ByteLines().take()).toHaveLength(0))
})

test('a line that is too long can be clipped, and costs the lines around it nothing', () => {
  const lines = new TextLines({ max: 3, longer: 'clip' })
  const pushed = ['ab\nabcd', 'ef', 'g\nabc\nab', 'cd'].flatMap((piece) => [...lines.push(piece)])
  expect([...pushed, lines.take()]).toEqual(['ab', 'abc', 'abc', 'abc'])
})
