// docs/errors.md, as the program reads it.

import { existsSync, readFileSync } from 'node:fs'

/** What docs/errors.md says of a code. */
export interface Entry {
  code: string
  meanings: Meaning[]
}

interface Meaning {
  where: string
  what: string
  ran: string
  next: string
}

/** The page that is shipped with the program, or that of the repository. */
function errorsPage(): string {
  const shipped = new URL('./errors.md', import.meta.url)
  return readFileSync(existsSync(shipped) ? shipped : new URL('../../../docs/errors.md', import.meta.url), 'utf8')
}

/** All entries, in the order of the page. */
export function errorEntries(): Entry[] {
  const sections = errorsPage()
    .split(/^## (?=[A-Z][A-Z0-9_]+$)/m)
    .slice(1)
  return sections.map((section) => {
    const [code, , , , ...rows] = section.trimEnd().split('\n')
    return { code: code!, meanings: rows.map(meaningOf) }
  })
}

function meaningOf(row: string): Meaning {
  const [where, what, ran, next] = row
    .replace(/^\| | \|$/g, '')
    .split(' | ')
    .map(plain)
  return { where: where!, what: what!, ran: ran!, next: next! }
}

/** Without the marks of Markdown. */
function plain(text: string): string {
  return text.replace(/\[([^\]]+)\]\([^)]*\)/g, '$1').replaceAll('`', '')
}

/** Where a code is explained. */
export interface Place {
  anchor: string
  /** The entry; undefined for the top of the page, which says what the codes without an entry are: the kernel's own errnos. */
  code: string | undefined
}

/** @param codes - An error's, and those of what it came from. The last that has an entry says most. */
export function placeOf(codes: readonly string[]): Place {
  const known = new Set(errorEntries().map((entry) => entry.code))
  const code = codes.findLast((each) => known.has(each))
  return { anchor: `errors.md#${code === undefined ? 'errors' : code.toLowerCase()}`, code }
}

/** The same in words. */
export function placeText({ anchor, code }: Place): string {
  return `see docs/${anchor}${code === undefined ? '' : `, or run: upcall explain ${code}`}`
}
