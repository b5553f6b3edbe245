import { createRequire } from 'node:module'
import { Command, Option } from 'commander'
import { addBatchCommand } from './commands/batch.js'
import { addCompletionCommands } from './commands/completion.js'
import { addCpuCommands } from './commands/cpu.js'
import { addDecodeCommand } from './commands/decode.js'
import { addDoctorCommand } from './commands/doctor.js'
import { addExplainCommand } from './commands/explain.js'
import { addManCommand } from './commands/man.js'
import { addMmioCommands } from './commands/mmio.js'
import { addPciCommands } from './commands/pci.js'
import { addRequestCommand } from './commands/request.js'
import { addServeCommand } from './commands/serve.js'
import { addStatusCommands } from './commands/status.js'
import { addTraceCommand } from './commands/trace.js'
import { addVsockCommands } from './commands/vsock/index.js'
import { type AddCommand, actionOf } from './context.js'
import type { ExitStatus } from './exit.js'
import { parseDuration } from './options.js'
import type { Io } from './output.js'

const commands: readonly AddCommand[] = [
  addStatusCommands,
  addCpuCommands,
  addMmioCommands,
  addPciCommands,
  addRequestCommand,
  addBatchCommand,
  addServeCommand,
  addDecodeCommand,
  addTraceCommand,
  addVsockCommands,
  addDoctorCommand,
  addExplainCommand,
  addCompletionCommands,
  addManCommand,
]

/** The command line: the commands, and the functions that answer them. */
export function createProgram(io: Io, exit: ExitStatus): Command {
  const { version } = createRequire(import.meta.url)('../package.json') as { version: string }
  const program = new Command('upcall')
    .description('Hotplug CPUs, virtio-mmio and PCI devices into a running guest, over vsock.')
    .version(version, '-V, --version', 'print the version')
    .addOption(
      new Option('-t, --target <address>', 'address of the guest; the port is 219 if it is missing (default: $UPCALL_TARGET)'),
    )
    .addOption(new Option('--arch <arch>', "the guest's architecture (default: this machine's)").choices(['x86_64', 'aarch64']))
    .addOption(
      new Option('--timeout <duration>', 'time limit of each operation, connecting included: 500ms, 5s, 2m').argParser(
        parseDuration,
      ),
    )
    .addOption(new Option('--json', 'one JSON object per operation on stdout'))
    .addOption(new Option('-v, --verbose', 'after each error, the entry of docs/errors.md that explains it'))
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      // `run` says it, with --json as without.
      outputError: () => {},
    })
    .exitOverride()
    .addHelpText(
      'after',
      `
Addresses:
  hvsock://<path>:<port>   a port of the guest behind the VMM's Unix socket (Firecracker, Cloud Hypervisor, Dragonball)
  unix:<path>              a Unix socket that leads to the guest's port without a handshake
  vsock://<cid>:<port>     AF_VSOCK: a port of the guest with this CID; also local, host, and any to listen

Exit status:
  0 ok   1 the guest refused   2 wrong usage or input   3 nothing was sent   4 sent, but the outcome is unknown   130 interrupted
  After several failures it is the first of 2, 4, 3, 1 that occurred.

Examples:
  $ upcall serve --listen hvsock:///tmp/vm.sock:219 --max-cpus 8
  $ upcall --target hvsock:///tmp/vm.sock:219 status
  $ upcall --target hvsock:///tmp/vm.sock:219 cpu add 1 2 3
  $ upcall --target hvsock:///tmp/vm.sock:219 --json mmio add --base 0xd0000000 --size 0x1000 --irq 5`,
    )
  const action = actionOf(io, exit)
  for (const add of commands) add(program, action)
  return program
}
