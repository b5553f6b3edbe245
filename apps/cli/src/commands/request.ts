import { type Command, Option } from 'commander'
import type { Action, Context } from '../context.js'
import { NeededOption, parseMessageType } from '../options.js'
import { operate } from '../session.js'

interface RequestOptions {
  type: number
  load?: string
}

export function addRequestCommand(program: Command, action: Action): void {
  program
    .command('request')
    .description('send any message, unchecked, and print the result')
    .addOption(new NeededOption('--type <type>', 'message type, a number or a name such as ADD_MEM').argParser(parseMessageType))
    .addOption(new Option('--load <hex>', 'the bytes after the header, at most 1008, in hexadecimal'))
    .addHelpText(
      'after',
      `
The checks of the other commands do not apply: a load that the guest's kernel does not expect can crash it.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 request --type 3
  $ upcall --target hvsock:///run/vm.sock:219 --json request --type ADD_PCI --load 0028`,
    )
    .action(action((context: Context, options: RequestOptions) => operate(context, { op: 'request', ...options })))
}
