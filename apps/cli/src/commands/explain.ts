import { existsSync, readFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { UsageError } from '../errors.js'
import type { Paint } from '../output.js'

/** What docs/errors.md says of a code. */
interface Entry {
  code: string
  meanings: Meaning[]
}

interface Meaning {
  where: string
  what: string
  ran: string
  next: string
}

export function addExplainCommand(program: Command, action: Action): void {
  program
    .command('explain')
    .description('say what the code of an error means, whether the request ran, and what to do')
    .argument('<code>', 'the code, such as GUEST_ERROR or ECONNREFUSED')
    .addHelpText(
      'after',
      `
The codes are those of --json, and those that --verbose prints. docs/errors.md has the same as a page.

Examples:
  $ upcall explain ECONNREFUSED
  $ upcall explain --json GUEST_ERROR | jq -r '.meanings[].next'`,
    )
    .action(action(explain))
}

async function explain({ output }: Context, _options: object, word: string): Promise<void> {
  const entries = entriesOf(errorsPage())
  const code = word.toUpperCase()
  const entry = entries.find((each) => each.code === code)
  if (entry === undefined) throw unknown(word, code, entries)
  await output.result(entry, (paint) => textOf(entry, paint))
}

function unknown(word: string, code: string, entries: readonly Entry[]): UsageError {
  if (/^E[A-Z0-9]+$/.test(code))
    return new UsageError(word, "is the kernel's own errno and has no entry", 'The manual page errno(3) explains it.')
  const codes = entries.map((entry) => entry.code).join(', ')
  return new UsageError(word, 'is not the code of an error', `The codes are ${codes}.`)
}

function textOf({ code, meanings }: Entry, paint: Paint): string {
  const blocks = meanings.map(({ where, what, ran, next }) =>
    [paint('grey', where), `  ${what}`, `  Did the request run? ${ran}`, `  What to do: ${next}`].join('\n'),
  )
  return [paint('red', code), ...blocks].join('\n')
}

/** The page that is shipped with the program, or that of the repository. */
function errorsPage(): string {
  const shipped = new URL('./errors.md', import.meta.url)
  return readFileSync(existsSync(shipped) ? shipped : new URL('../../../../docs/errors.md', import.meta.url), 'utf8')
}

function entriesOf(page: string): Entry[] {
  const sections = page.split(/^## (?=[A-Z][A-Z0-9_]+$)/m).slice(1)
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
