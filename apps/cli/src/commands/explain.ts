import { constants } from 'node:os'
import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { UsageError } from '../errors.js'
import { type Entry, errorEntries } from '../errors-page.js'
import type { Paint } from '../output.js'
import { meantOr } from '../suggest.js'

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
  const entries = errorEntries()
  const code = word.toUpperCase()
  const entry = entries.find((each) => each.code === code)
  if (entry === undefined) throw unknown(word, code, entries)
  await output.result(entry, (paint) => textOf(entry, paint))
}

function unknown(word: string, code: string, entries: readonly Entry[]): UsageError {
  if (Object.hasOwn(constants.errno, code))
    return new UsageError(word, "is the kernel's own errno and has no entry", 'The manual page errno(3) explains it.')
  const codes = entries.map((entry) => entry.code)
  return new UsageError(word, 'is not the code of an error', meantOr(code, codes, `The codes are ${codes.join(', ')}.`))
}

function textOf({ code, meanings }: Entry, paint: Paint): string {
  const blocks = meanings.map(({ where, what, ran, next }) =>
    [paint('grey', where), `  ${what}`, `  Did the request run? ${ran}`, `  What to do: ${next}`].join('\n'),
  )
  return [paint('red', code), ...blocks].join('\n')
}
