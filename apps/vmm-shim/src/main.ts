#!/usr/bin/env node
import { errnoOf, messageFor, textOf } from '@upcall/foundation/error'
import { hybridProfiles } from '@upcall/vsock'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import packageJson from '../package.json' with { type: 'json' }
import { openApiDocument } from './api/app.js'
import { demo } from './commands/demo.js'
import { type RunFlags, run } from './commands/run.js'
import { UsageError } from './commands/usage-error.js'
import { LOG_LEVELS } from './log.js'
import { parsePageAddress } from './page/where.js'

const KERNELS = ['5.10', '6.1', '6.12', '6.18']

const program = new Command('vmm-shim')
  .description('A demo VMM: hotplug into a guest, simulated or under QEMU, over a hybrid Unix socket, with a control API')
  .version(packageJson.version)
  .exitOverride()

program
  .command('run')
  .description('serve a guest on a hybrid vsock socket until SIGINT or SIGTERM: a simulated guest, or with --qemu a real one')
  .requiredOption('--uds <path>', 'where the hybrid vsock socket goes')
  .option('--api <path>', 'where the Unix socket of the control API goes (HTTP)')
  .option(
    '--pcap <file>',
    'capture for Wireshark: under --qemu the packets of the vsock device, otherwise the messages of the upcall session',
  )
  .option(
    '--ui <address>',
    'serve a page that shows the machine, for this machine alone: 127.0.0.1:<port>; a port alone is on 127.0.0.1, and 0 is any free port',
    parsePageAddress,
  )
  .option(
    '--metrics <address>',
    'serve metrics for Prometheus at http://<host>:<port>/metrics; a port alone is on 127.0.0.1, and 0 is any free port',
  )
  .addOption(new Option('--vsock-profile <vmm>', 'read CONNECT and pass EOF on exactly as this VMM does').choices(hybridProfiles))
  .addOption(new Option('--arch <arch>', "the guest's architecture (default: this machine's)").choices(['x86_64', 'aarch64']))
  .option('--cpus <n>', 'vCPUs at boot', integer(1, 255), 1)
  .option('--max-cpus <n>', 'the most vCPUs that the VM can have', integer(1, 255), 8)
  .addOption(new Option('--memory <size>', 'bytes, or with K, M or G').argParser(size).default(512 * 2 ** 20, '512M'))
  .addOption(
    new Option('--kernel-generation <version>', 'the kernel version that the simulated guest behaves like')
      .choices(KERNELS)
      .default('6.1'),
  )
  .option('--boot-ms <n>', 'how long the simulated guest boots, in ms', integer(0, 600_000), 1_000)
  .addOption(
    new Option(
      '--hardware <which>',
      'hardware of the simulated guest: "plugged" is what the API or the page has plugged in; "all" is every CPU up to --max-cpus and every slot of PCI bus 0 (default: plugged with --api or --ui, else all)',
    ).choices(['plugged', 'all']),
  )
  .option('--qemu', 'boot a real Linux guest under QEMU: the default image, made of Debian packages, or --kernel')
  .addOption(new Option('--machine <type>', "QEMU's machine").choices(['q35', 'pc', 'microvm']).default('q35'))
  .addOption(
    new Option('--accel <accelerator>', 'tcg is software emulation and runs everywhere').choices(['tcg', 'kvm']).default('tcg'),
  )
  .option('--kernel <file>', 'boot this kernel (bzImage) instead of the default image; --initrd and --image say what it runs')
  .option('--initrd <file>', 'with --kernel: its initramfs')
  .option('--image <file>', 'with --kernel: its root disk, raw or .qcow2; the guest sees a virtio disk with the serial "root"')
  .option('--append <text>', "text to add to the kernel's command line")
  .option('--max-memory <size>', 'the most memory that the guest can be given (default: four times --memory)', size)
  .option('--cid <n>', "the guest's context id", integer(3, 999_999_999), 3)
  .option('--monitor <path>', 'where QEMU serves a QMP monitor for you')
  .option('--console <file>', "write the guest's console to a file")
  .option('--cache-dir <path>', 'where the default image is kept (default: ~/.cache/upcall/guest)')
  .addOption(new Option('--profile <name>', 'flags for a kernel with the upcall patches').choices(['dragonball']))
  .addOption(new Option('--log-level <level>', 'JSON lines on stderr').choices(LOG_LEVELS).default('info'))
  .addHelpText(
    'after',
    `
Examples:
  vmm-shim run --uds /tmp/vm.sock --ui 127.0.0.1:8080
  vmm-shim run --uds /tmp/vm.sock --api /tmp/vm-api.sock
  curl --unix-socket /tmp/vm-api.sock -X PUT http://vm/vm/resize -d '{"desired_vcpus":4}'
  upcall --target hvsock:///tmp/vm.sock:219 status
  vmm-shim run --qemu --uds /tmp/vm.sock --api /tmp/vm-api.sock --cpus 1 --max-cpus 4`,
  )
  .action((flags: RunFlags, command: Command) => run(flags, (flag) => command.getOptionValueSource(flag) === 'cli'))

program
  .command('demo')
  .description('show every operation in one terminal, in about ten seconds; the exit status is 1 if a step fails')
  .option('--qemu', 'use a real Linux guest under QEMU, by software emulation; takes about half a minute')
  .option('--cache-dir <path>', 'with --qemu: where the guest image is kept (default: ~/.cache/upcall/guest)')
  .option('--fast', 'without pauses')
  .option('--record <file.svg>', 'write the session to an animated SVG')
  .action(async (flags) => {
    process.exitCode = await demo(flags)
  })

program
  .command('openapi')
  .description('print the OpenAPI document of the control API')
  .action(async () => {
    process.stdout.write(`${JSON.stringify(await openApiDocument(), null, 2)}\n`)
  })

function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be an integer from ${min} to ${max}.`)
  }
}

function size(text: string): number {
  const match = /^(\d{1,12})([KMG]?)$/i.exec(text)
  const unit = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match?.[2]?.toUpperCase() ?? ''] ?? Number.NaN
  const bytes = Number(match?.[1]) * unit
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes
  throw new InvalidArgumentError('Write a number of bytes, or a number with K, M or G after it, such as 512M.')
}

// The reader has gone, or its disk is full: a VMM goes on all the same. The demo, which plays for the reader, checks for itself.
process.stdout.on('error', (error) => {
  if (errnoOf(error) !== 'EPIPE') process.stderr.write(`vmm-shim: stdout: ${textOf(error)}\n`)
})

try {
  process.exitCode = 0
  await program.parseAsync()
} catch (error) {
  // Commander has told the user already.
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2
  } else {
    process.stderr.write(`vmm-shim: ${messageFor(error)}\n`)
    process.exitCode = error instanceof UsageError ? 2 : 1
  }
}
