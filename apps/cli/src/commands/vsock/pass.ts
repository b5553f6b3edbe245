import { closeSync, constants, openSync, statSync } from 'node:fs'
import { errnoOf } from '@upcall/foundation/error'
import { formatAddress, passDescriptor } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../../context.js'
import { UsageError } from '../../errors.js'
import { Exit } from '../../exit.js'
import { parseInteger } from '../../options.js'
import { type Report, reportText } from '../../report.js'
import { parseStreamEndpoint } from '../../streams/endpoint.js'
import { explainStreamError, isStreamError } from '../../streams/error.js'
import { checkGlobals } from './options.js'

interface Options {
  fd?: number
  keep?: boolean
  write?: boolean
  retry?: boolean
}

const OP = 'vsock.pass'

export function addPassCommand(vsock: Command, action: Action): void {
  vsock
    .command('pass')
    .description('pass a file, FIFO or terminal to the VMM, which joins it with a port of the guest (passfd)')
    .argument('<address>', "the guest's port: hvsock://<path>:<port>")
    .argument('[file]', 'what to pass; without it, the standard input of the command')
    .addOption(
      new Option('--fd <n>', 'pass an open descriptor of the command instead, as in --fd 3 3<> fifo').argParser(parseInteger),
    )
    .option('--write', '[file] takes what the guest sends: appended, and made if it is missing (default: [file] is read)')
    .option('--keep', 'the connection stays when the other end of a FIFO or terminal goes away; another may come')
    .option('--retry', 'keep trying, for 30s or the time of --timeout')
    .addHelpText(
      'after',
      `
Needs Dragonball, or "upcall vsock forward --as-vmm", and the native addon. The VMM itself then carries the bytes:
the command ends at once, and what it passed lives on in the VMM. A terminal and a device are passed for reading
and writing. What is passed as a descriptor (stdin, --fd) goes the ways that it was opened for.

The command prints the host port: the guest's server sees it as its peer's port.

Exit status: 0 the guest's server has the connection, 2 the file cannot be opened, 3 no connection, 130 interrupted.

Examples:
  $ upcall vsock pass hvsock:///run/vm.sock:1027 stdin.fifo --keep
  $ upcall vsock pass hvsock:///run/vm.sock:1027 stdout.log --write
  $ upcall vsock pass hvsock:///run/vm.sock:1027 < request
  $ upcall --json vsock pass hvsock:///run/vm.sock:1027 /dev/pts/3`,
    )
    .action(action(pass))
}

async function pass(context: Context, options: Options, address: string, file: string | undefined): Promise<void> {
  const { io, output, exit, timeoutMs } = context
  checkGlobals(context)
  const to = parseStreamEndpoint(address, '<address>')
  if (to.transport !== 'hvsock') throw new UsageError('<address>', 'only an hvsock:// address has a VMM that takes descriptors')
  const { fd: given, keep, write, retry } = options
  if (file !== undefined && given !== undefined) throw new UsageError('--fd', 'a file is given, too', 'Leave one of them out.')
  if (write && file === undefined)
    throw new UsageError('--write', 'needs [file]', 'A descriptor goes the ways that it was opened for.')
  const fd = file === undefined ? (given ?? 0) : openToPass(file, write === true)
  const subject = formatAddress(to)
  try {
    using _progress = output.progress(`pass to ${subject}`)
    const { hostPort } = await passDescriptor(to, fd, { keep, retry, timeoutMs, signal: io.signal })
    await output.result({ op: OP, outcome: 'ok', hostPort }, () => `host port ${hostPort}`)
  } catch (error) {
    if (!isStreamError(error)) throw error
    if (error.code === 'EBADF') throw UsageError.of(given === undefined ? 'stdin' : '--fd', error)
    exit.add(Exit.notSent)
    const report: Report = { op: OP, outcome: 'not-sent', error: explainStreamError(error) }
    await output.failure(report, (paint) => reportText(report, subject, paint))
  } finally {
    if (file !== undefined) closeSync(fd)
  }
}

/** Opens it as it is to be used, without waiting for the other end of a FIFO. */
function openToPass(file: string, write: boolean): number {
  const { O_RDONLY, O_WRONLY, O_RDWR, O_APPEND, O_CREAT, O_NONBLOCK, O_NOCTTY } = constants
  try {
    if (!write && statSync(file).isCharacterDevice()) return openSync(file, O_RDWR | O_NONBLOCK | O_NOCTTY)
    return openSync(file, write ? O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK : O_RDONLY | O_NONBLOCK)
  } catch (cause) {
    const code = errnoOf(cause)
    const why = {
      ENOENT: 'it does not exist (ENOENT)',
      EACCES: 'access is denied (EACCES)',
      EISDIR: 'it is a directory (EISDIR)',
    }[code]
    // What open(2) says of a FIFO that is opened for writing, and of every socket.
    const noReader = code === 'ENXIO' ? 'it is a FIFO without a reader, or a socket (ENXIO)' : undefined
    throw new UsageError(
      file,
      why ?? noReader ?? `it cannot be opened (${code})`,
      noReader && 'Open it for reading first, or pass an open descriptor with --fd.',
    )
  }
}
