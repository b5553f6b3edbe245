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

/** Where the page explains a code; undefined if it does not, as of the kernel's own errnos. */
export function anchorOf(code: string): string | undefined {
  return errorEntries().some((entry) => entry.code === code) ? `errors.md#${code.toLowerCase()}` : undefined
}
