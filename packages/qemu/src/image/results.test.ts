import { describe, expect, it } from 'vitest'
import { ResultReader } from './results.js'

/** What a reader makes of the text that arrives at the results port: lines, and the statuses it tells. */
function read(text: string) {
  const lines: string[] = []
  const reader = new ResultReader('f00d', (line) => lines.push(line))
  const statuses = text
    .split('\n')
    .slice(0, -1)
    .map((line) => reader.push(line))
  return { lines, status: statuses.at(-1) }
}

describe('ResultReader', () => {
  // The guest writes a line end and then the status after all that the command wrote.
  it.each([
    ['', []],
    ['a\n', ['a']],
    ['a', ['a']],
    ['a\n\n', ['a', '']],
    ['\n\na\n', ['', '', 'a']],
    ['x f00d exit 3\n', ['x f00d exit 3']],
  ])('gives back %j', (written, lines) => {
    expect(read(`${written}\nf00d exit 7\n`)).toEqual({ lines, status: 7 })
  })
})
