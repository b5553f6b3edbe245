import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { operate } from '../session.js'

export function addPciCommands(program: Command, action: Action): void {
  const pci = program
    .command('pci')
    .description('have the guest probe PCI functions, or release them')
    .addHelpText(
      'after',
      `
Examples:
  $ upcall --target hvsock:///run/vm.sock:219 pci add 00:05.0
  $ upcall --target hvsock:///run/vm.sock:219 pci remove 00:05.0`,
    )

  pci
    .command('add')
    .description('have the guest probe a function that the VMM has plugged in')
    .argument('<bdf>', 'bus:slot.function in hexadecimal, as in 00:05.0; the domain can only be 0000')
    .addHelpText(
      'after',
      `
Examples:
  $ upcall --target hvsock:///run/vm.sock:219 pci add 00:05.0
  $ UPCALL_TARGET=hvsock:///run/vm.sock upcall --json pci add 0000:00:05.0`,
    )
    .action(action((context: Context, _options: object, bdf: string) => operate(context, { op: 'pci.add', bdf })))

  pci
    .command('remove')
    .description('have the guest release a function; the VMM unplugs it after the guest agrees')
    .argument('<bdf>', 'as in 00:05.0')
    .addHelpText(
      'after',
      `
Examples:
  $ upcall --target hvsock:///run/vm.sock:219 pci remove 00:05.0`,
    )
    .action(action((context: Context, _options: object, bdf: string) => operate(context, { op: 'pci.remove', bdf })))
}
