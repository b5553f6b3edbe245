import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { NeededOption, parseInteger, parseSize } from '../options.js'
import { operate } from '../session.js'

interface MmioOptions {
  base: string
  size: string
  irq: number
}

export function addMmioCommands(program: Command, action: Action): void {
  const mmio = program
    .command('mmio')
    .description('register virtio-mmio windows in the guest, or remove them')
    .addHelpText(
      'after',
      `
Examples:
  $ upcall --target hvsock:///run/vm.sock:219 mmio add --base 0xd0000000 --size 0x1000 --irq 5
  $ upcall --target hvsock:///run/vm.sock:219 mmio remove --base 0xd0000000 --size 0x1000 --irq 5`,
    )

  windowCommand(mmio, 'add')
    .description('register a window; success means that the platform device exists, not that a driver is bound to it')
    .addHelpText(
      'after',
      `
Several windows may share irq 5; any other irq belongs to one window. On aarch64 the irq is the GIC SPI number.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 mmio add --base 0xd0000000 --size 0x1000 --irq 5
  $ upcall --target hvsock:///run/vm.sock:219 --arch aarch64 --json mmio add --base 0xd0000000 --size 0x2000 --irq 33`,
    )
    .action(action((context: Context, options: MmioOptions) => operate(context, { op: 'mmio.add', ...options })))

  windowCommand(mmio, 'remove')
    .description('remove a window, with the base, size and irq of its add')
    .addHelpText(
      'after',
      `
Tear the device down after the guest agrees, not before.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 mmio remove --base 0xd0000000 --size 0x1000 --irq 5`,
    )
    .action(action((context: Context, options: MmioOptions) => operate(context, { op: 'mmio.remove', ...options })))
}

function windowCommand(mmio: Command, name: 'add' | 'remove'): Command {
  return mmio
    .command(name)
    .addOption(new NeededOption('--base <address>', 'first byte, as in 0xd0000000'))
    .addOption(new NeededOption('--size <bytes>', 'length, as in 0x1000 or 4K').argParser(parseSize))
    .addOption(new NeededOption('--irq <n>', 'interrupt line').argParser(parseInteger))
}
