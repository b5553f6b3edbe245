import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const FILE = fileURLToPath(new URL('../docs/real-guest.md', import.meta.url))

/** Puts a table between the two comments of that name; `columns` are keys of its rows, null stands as nothing. */
export function writeTable(name, columns, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`
  const body = rows.map((row) => line(columns.map((column) => row[column] ?? '')))
  const text = [line(columns), line(columns.map(() => '---')), ...body].join('\n')
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
  const [before, rest] = readFileSync(FILE, 'utf8').split(begin)
  writeFileSync(FILE, `${before}${begin}\n\n${text}\n\n${end}${rest.split(end)[1]}`)
}
