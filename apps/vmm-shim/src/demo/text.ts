// Text with a little style, in one form for the terminal and the recording.

export type Style = 'bold' | 'dim' | 'green' | 'red' | 'yellow' | 'cyan' | 'magenta'

interface Span {
  readonly text: string
  readonly style?: Style | undefined
}

/** One line. */
export type Line = readonly Span[]

/** The width of the demo, on any terminal and in the recording. */
export const COLUMNS = 100

const SGR: Record<Style, number> = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, magenta: 35, cyan: 36 }

export function toAnsi(line: Line, colour: boolean): string {
  return line.map(({ text, style }) => (colour && style ? `\u001b[${SGR[style]}m${text}\u001b[0m` : text)).join('')
}

/** Wraps text at spaces so that each piece fits. A word that is too long is split. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (let word of text.split(' ')) {
    const joined = line === '' ? word : `${line} ${word}`
    if (joined.length <= width) {
      line = joined
      continue
    }
    if (line !== '') lines.push(line)
    for (; word.length > width; word = word.slice(width)) lines.push(word.slice(0, width))
    line = word
  }
  return [...lines, line]
}

export interface Row {
  readonly cells: readonly string[]
  readonly style?: Style | undefined
}

/** A table in box characters. The last column is for figures, aligned to the right. */
export function table(head: readonly string[], rows: readonly Row[]): Line[] {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map(({ cells }) => cells[at]!.length)))
  const rule = (left: string, middle: string, right: string): Line => [
    { text: ` ${left}${widths.map((width) => '─'.repeat(width + 2)).join(middle)}${right}`, style: 'dim' },
  ]
  const pad = (text: string, at: number) => (at === widths.length - 1 ? text.padStart(widths[at]!) : text.padEnd(widths[at]!))
  const bar: Span = { text: '│', style: 'dim' }
  const row = ({ cells, style }: Row, head = false): Line => [
    { text: ' ' },
    ...cells.flatMap((cell, at): Span[] => [
      bar,
      { text: ` ${pad(cell, at)} `, style: head ? 'bold' : at === 1 ? style : undefined },
    ]),
    bar,
  ]
  return [
    rule('┌', '┬', '┐'),
    row({ cells: head }, true),
    rule('├', '┼', '┤'),
    ...rows.map((each) => row(each)),
    rule('└', '┴', '┘'),
  ]
}
