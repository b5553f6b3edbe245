import { type Argument, type Command, Option } from 'commander'
import { type Kind, kindOfArgument, kindOfOption } from './kinds.js'

/** One way to complete the word under the cursor. `value` is the whole word. */
export interface Candidate {
  value: string
  description: string
}

export interface Completion {
  /** Those that begin with what was typed, in the order in which they are to be shown. */
  candidates: Candidate[]
  /** The shell's own completion of file names is to follow. */
  files: boolean
  /** The word goes on after the candidate, as after `hvsock://`: no space. */
  unfinished: boolean
}

/** Lists what an address may be. */
export type Addresses = (kind: Kind & { type: 'address' }, typed: string) => Completion

const NOTHING: Completion = { candidates: [], files: false, unfinished: false }
const FILES: Completion = { ...NOTHING, files: true }

/**
 * Completes the last of the words, which may be empty. The rest is what the parser would make of them; words that it would refuse are
 * passed over. Files and sockets are looked at by `addresses` alone.
 *
 * @param words - What is on the line after the program's name, up to the cursor, without quotes.
 */
export function complete(program: Command, words: readonly string[], addresses: Addresses): Completion {
  const typed = words.at(-1) ?? ''
  const line = new Line(program)
  for (const word of words.slice(0, -1)) line.read(word)
  // The words of another program.
  if (line.foreign) return FILES
  if (line.pending) return valuesOf(line.pending, line.command, typed, addresses)
  if (!line.optionsEnded) {
    const [, flag, value] = /^(--[^=]+)=(.*)$/s.exec(typed) ?? []
    const option = flag === undefined ? undefined : findOption(line.command, flag)
    if (option && takesValue(option)) return prefixed(`${flag}=`, valuesOf(option, line.command, value ?? '', addresses))
    if (typed.startsWith('-')) return { ...NOTHING, candidates: optionsOf(line, typed) }
  }
  const { command } = line
  if (command.name() === 'help' && command.parent === null) return commandsOf(program, typed)
  if (command.commands.length > 0) return commandsOf(command, typed)
  const argument = command.registeredArguments[line.position] ?? variadicOf(command)
  // Only the words after --exec are a program.
  if (argument === undefined || argument.name() === 'command') return { ...NOTHING, candidates: unlessTyped(line, typed) }
  return valuesOf(argument, command, typed, addresses)
}

/** What the words before the cursor mean. */
class Line {
  command: Command
  /** How many arguments of the command have been given. */
  position = 0
  /** An option that still needs its value. */
  pending: Option | undefined
  optionsEnded = false
  /** After `--exec`. */
  foreign = false
  readonly given = new Set<Option>()

  constructor(command: Command) {
    this.command = command
  }

  read(word: string): void {
    if (this.pending) {
      this.pending = undefined
      return
    }
    if (this.optionsEnded || !word.startsWith('-') || word === '-') {
      this.#operand(word)
      return
    }
    if (word === '--') {
      this.optionsEnded = true
      return
    }
    const [flag = word] = word.split('=', 1)
    const option = findOption(this.command, flag)
    if (option === undefined) return
    this.given.add(option)
    if (option.long === '--exec') this.foreign = true
    if (flag === word && option.required) this.pending = option
  }

  #operand(word: string): void {
    const next = this.command.commands.find((each) => each.name() === word || each.aliases().includes(word))
    if (next && !this.optionsEnded) {
      this.command = next
      this.position = 0
    } else this.position++
  }
}

function findOption(command: Command, flag: string): Option | undefined {
  for (let each: Command | null = command; each; each = each.parent) {
    const found = each.options.find((option) => option.long === flag || option.short === flag)
    if (found) return found
  }
  return undefined
}

const takesValue = (option: Option): boolean => option.required || option.optional

function variadicOf(command: Command): Argument | undefined {
  const last = command.registeredArguments.at(-1)
  return last?.variadic ? last : undefined
}

/** The options that the command's help shows, its own first, without those that are given already. */
function optionsOf({ command, given }: Line, typed: string): Candidate[] {
  const help = command.createHelp()
  help.showGlobalOptions = true
  Object.assign(help, command.configureHelp())
  const own = command.parent === null ? [] : help.visibleGlobalOptions(command)
  const all = [...help.visibleOptions(command), ...own]
  const repeatable = (option: Option) => option.variadic || option.long === '--vm'
  return all
    .filter((option) => repeatable(option) || !given.has(option))
    .flatMap((option) => {
      const value = [option.long, option.short].find((flag) => flag?.startsWith(typed))
      return value === undefined ? [] : [{ value, description: oneLine(option.description) }]
    })
}

/** Where nothing else is possible, an empty word shows the options. */
function unlessTyped(line: Line, typed: string): Candidate[] {
  return typed === '' && !line.optionsEnded ? optionsOf(line, '--') : []
}

function commandsOf(command: Command, typed: string): Completion {
  const candidates = command
    .createHelp()
    .visibleCommands(command)
    .map((each) => ({ value: each.name(), description: oneLine(each.description()) }))
  return { ...NOTHING, candidates: beginning(candidates, typed) }
}

function valuesOf(of: Option | Argument, command: Command, typed: string, addresses: Addresses): Completion {
  const { argChoices: choices } = of
  if (choices)
    return {
      ...NOTHING,
      candidates: beginning(
        choices.map((value) => ({ value, description: '' })),
        typed,
      ),
    }
  const kind = of instanceof Option ? kindOfOption(of, command) : kindOfArgument(of, command)
  if (kind === undefined) return NOTHING
  return kind.type === 'file' ? FILES : addresses(kind, typed)
}

function beginning(candidates: Candidate[], typed: string): Candidate[] {
  return candidates.filter(({ value }) => value.startsWith(typed))
}

function prefixed(prefix: string, completion: Completion): Completion {
  const candidates = completion.candidates.map(({ value, description }) => ({ value: `${prefix}${value}`, description }))
  return { ...completion, candidates }
}

/** Tabs and newlines separate the fields of the answer to a shell. */
export function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}
