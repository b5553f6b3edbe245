import { type Command, Option } from 'commander'
import type { Action, Context } from '../context.js'
import { UsageError } from '../errors.js'
import { parseIds, parseInteger } from '../options.js'
import { operate } from '../session.js'

interface CpuOptions {
  count?: number
  apicVersion?: number
  present?: string
}

export function addCpuCommands(program: Command, action: Action): void {
  const cpu = program
    .command('cpu')
    .description('bring vCPUs of the guest online, or take them offline')
    .addHelpText(
      'after',
      `
Examples:
  $ upcall --target hvsock:///run/vm.sock:219 cpu add 2 3
  $ upcall --target hvsock:///run/vm.sock:219 cpu remove 3`,
    )

  cpu
    .command('add')
    .description('bring online the vCPUs that the VMM has started')
    .argument('[ids...]', 'x86_64: APIC ids, written "2 3", "2,3" or "4-7"; sent in ascending order')
    .addOption(new Option('--count <n>', 'aarch64: how many to add; the guest chooses which').argParser(parseInteger))
    .addOption(new Option('--apic-version <n>', 'x86_64: version of the local APICs (default: 0x14)').argParser(parseInteger))
    .addOption(present())
    .addHelpText(
      'after',
      `
On x86_64 a batch stops at the first id that fails. The ids before it are online then.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 cpu add 2 3
  $ upcall --target hvsock:///run/vm.sock:219 --arch aarch64 cpu add --count 2`,
    )
    .action(action((context: Context, options: CpuOptions, ids: string[]) => resize(context, 'cpu.add', ids, options)))

  cpu
    .command('remove')
    .description('take vCPUs offline; the VMM stops them after the guest agrees')
    .argument('[ids...]', 'x86_64: APIC ids, written "2 3", "2,3" or "4-7"; sent in descending order')
    .addOption(new Option('--count <n>', 'aarch64: how many, from the highest down').argParser(parseInteger))
    .addOption(present())
    .addHelpText(
      'after',
      `
An id that is not present crashes the guest's service thread. Pass --present with the ids that are present: upcall
then refuses such a request. CPU 0 is the boot CPU and cannot be removed.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 cpu remove 3
  $ upcall --target hvsock:///run/vm.sock:219 cpu remove 2 3 --present 0-3
  $ upcall --target hvsock:///run/vm.sock:219 --arch aarch64 cpu remove --count 1`,
    )
    .action(action((context: Context, options: CpuOptions, ids: string[]) => resize(context, 'cpu.remove', ids, options)))
}

function present(): Option {
  return new Option(
    '--present <cpus>',
    'the vCPUs that the guest has: ids such as 0-3, on aarch64 a count; upcall then refuses a request that would harm the guest',
  )
}

async function resize(context: Context, op: 'cpu.add' | 'cpu.remove', texts: string[], options: CpuOptions): Promise<void> {
  const { count, apicVersion } = options
  const ids = parseIds(texts)
  if (context.arch === 'aarch64') {
    if (ids.length > 0 || apicVersion !== undefined || count === undefined)
      throw new UsageError(
        op,
        'an aarch64 guest chooses the vCPUs itself',
        'Pass --count <n>; for an x86_64 guest, which takes ids, pass --arch x86_64.',
      )
    await operate(context, { op, count }, options.present === undefined ? undefined : presentCount(op, options.present))
    return
  }
  if (count !== undefined)
    throw new UsageError(op, 'an x86_64 guest takes vCPU ids, not --count', 'For an aarch64 guest pass --arch aarch64.')
  if (ids.length === 0) throw new UsageError(op, 'no vCPU ids', `Write them as in \`upcall ${op.replace('.', ' ')} 2 3\`.`)
  await operate(
    context,
    { op, apicIds: ids, ...(apicVersion !== undefined && { apicVersion }) },
    options.present === undefined ? undefined : parseIds([options.present]),
  )
}

function presentCount(op: string, text: string): number {
  if (!/^\d{1,3}$/.test(text)) throw new UsageError(op, `--present is a count of vCPUs on aarch64, got ${JSON.stringify(text)}`)
  return Number(text)
}
