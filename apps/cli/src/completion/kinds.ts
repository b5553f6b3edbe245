import type { Argument, Command, Option } from 'commander'

/** What the values of an option or argument are, as far as a shell can help with them. */
export type Kind =
  | { type: 'file' }
  | {
      type: 'address'
      /** `guest`: of --target, a guest with upcall. `stream`: also tcp. */
      of: 'guest' | 'stream'
      listens: boolean
    }

// The placeholder says it: `<file>`, `<path>`. Addresses also mean other things (`--base <address>` is one in memory).
const FILE = /[<[](?:file|path|socket)\b/

export function kindOfOption(option: Option, command: Command): Kind | undefined {
  if (option.long === '--target') return { type: 'address', of: 'guest', listens: false }
  if (option.long === '--listen' && option.flags.includes('<address>'))
    return { type: 'address', of: command.name() === 'serve' ? 'guest' : 'stream', listens: true }
  return FILE.test(option.flags) ? { type: 'file' } : undefined
}

export function kindOfArgument(argument: Argument, command: Command): Kind | undefined {
  switch (argument.name()) {
    case 'file':
    case 'path':
      return { type: 'file' }
    case 'from':
      return { type: 'address', of: 'stream', listens: true }
    case 'to':
      return { type: 'address', of: 'stream', listens: false }
    case 'address':
      return { type: 'address', of: 'stream', listens: command.name() === 'listen' || command.name() === 'notify' }
    default:
      return undefined
  }
}
