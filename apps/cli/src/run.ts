import { messageFor } from '@upcall/foundation/error'
import { type Command, CommanderError } from 'commander'
import { separateExec } from './commands/vsock/options.js'
import { errorReport, UsageError } from './errors.js'
import { placeOf, placeText } from './errors-page.js'
import { Exit, ExitStatus, interruptedStatus } from './exit.js'
import { type Io, Output } from './output.js'
import { createProgram } from './program.js'
import { failed, reportText } from './report.js'
import { didYouMean, meantOr } from './suggest.js'

/** Errors of commander that say what is wrong, and not what to write. */
const TAKES: ReadonlySet<string> = new Set([
  'commander.excessArguments',
  'commander.missingArgument',
  'commander.missingMandatoryOptionValue',
  'commander.optionMissingArgument',
  'commander.unknownOption',
])

/**
 * Runs one command.
 *
 * @param argv - The arguments after the program's name.
 * @returns The exit status. Nothing that the command opened is open then; it never rejects.
 */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  // Before parsing, because its errors are answered in JSON too.
  const { argv: words, own } = separateExec(argv)
  const json = own.includes('--json')
  const verbose = isVerbose(own)
  const exit = new ExitStatus()
  const program = createProgram(io, exit)
  try {
    await program.parseAsync(words, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return Exit.ok
      exit.add(Exit.invalid)
      const usage = usageOf(error, program, own)
      if (json) await invalid(io, json, verbose, usage)
      // Without a command, commander has printed the help.
      else if (error.code !== 'commander.help')
        await new Output(io, json, verbose).failure({ error: errorReport(usage) }, () => messageFor(usage))
    } else if (error instanceof UsageError) {
      exit.add(Exit.invalid)
      await invalid(io, json, verbose, error)
    } else {
      exit.add(Exit.bug)
      io.stderr.write(`upcall: this is a mistake in upcall itself: ${(error as Error)?.stack ?? error}\n`) // prints
      if (verbose) io.stderr.write(`        ${placeText(placeOf(['INTERNAL']))}\n`)
    }
  }
  return io.signal.aborted && exit.status !== Exit.bug ? interruptedStatus(io.signal.reason, exit) : exit.status
}

/** @param own - The words before `--exec`. */
export function isVerbose(own: readonly string[]): boolean {
  return own.includes('--verbose') || own.includes('-v')
}

async function invalid(io: Io, json: boolean, verbose: boolean, error: UsageError): Promise<void> {
  const report = failed(undefined, '', error)
  await new Output(io, json, verbose).failure(report, (paint) => reportText(report, '', paint))
}

/** Of an option, and of an argument. */
const INVALID_CHOICE = /^(.*(?:argument|value) '(.*)' is invalid(?: for argument '.*')?)\. Allowed choices are (.*)$/s

function usageOf(error: CommanderError, program: Command, words: readonly string[]): UsageError {
  if (error.code === 'commander.help') return new UsageError('', 'no command', '`upcall --help` lists the commands.')
  // reads the text of commander
  const text = error.message.replace(/^error: /, '').replace(/\.$/, '')
  const [, what = text, names] = /^(.*)\n\(Did you mean (?:one of )?(.*)\?\)$/s.exec(text) ?? []
  const meant = names && didYouMean(names.split(', '))
  if (error.code !== 'commander.unknownCommand') {
    const [, wrong, value, choices] = INVALID_CHOICE.exec(what) ?? []
    if (wrong !== undefined && value !== undefined && choices !== undefined)
      return new UsageError('', wrong, meantOr(value, choices.split(', '), `Allowed choices are ${choices}.`))
    const next = meant ?? (TAKES.has(error.code) ? 'Add --help to see what the command takes.' : undefined)
    return new UsageError('', what, next)
  }
  if (meant !== undefined) return new UsageError('', what, meant)
  const before = words[words.findIndex((word) => text.startsWith(`unknown command '${word}'`)) - 1]
  const group = program.commands.find((command) => command.name() === before)
  return new UsageError('', what, `\`upcall ${group ? `${before} ` : ''}--help\` lists the commands.`)
}
