import type { Command } from 'commander'
import type { Action, Context } from '../../context.js'
import { openStream, type Stream } from '../../streams/dial.js'
import { formatEndpoint, parseStreamEndpoint } from '../../streams/endpoint.js'
import { conclude, converse, notes, notSent, sayingOnStderr } from './converse.js'
import {
  addConnectingOptions,
  addExecOption,
  addStreamOptions,
  type ConnectingOptions,
  checkConnecting,
  checkStream,
  type ExecOptions,
  programOf,
  vsockOptionsOf,
} from './options.js'

type Options = ConnectingOptions & ExecOptions

export function addConnectCommand(vsock: Command, action: Action): void {
  const command = vsock
    .command('connect')
    .description('join stdin and stdout, or a program, with a connection')
    .usage('[options] <address> [--exec <command> [argument…]]')
    .argument('<address>', 'where to')
  addExecOption(addConnectingOptions(addStreamOptions(command)))
    .addHelpText(
      'after',
      `
EOF on stdin ends the sending and not the reading: it runs until the peer has ended, too. Over hvsock:// EOF is kept back until the
guest has ended, as most VMMs take it for the end of both directions: of a server that answers only at EOF nothing comes, and after 5s
(or --linger) that is status 4. --half-close says that this VMM passes EOF on. When the peer ends first, the rest of stdin is still sent,
if it takes that. --timeout bounds the connecting. stdout is the stream's alone: what there is to say goes to stderr, a JSON object with
--json.

Exit status: 0 both directions ended in order, 3 no connection, 4 it broke or not all of stdin was taken, 130 interrupted; with --exec
the program's own, 127 if there is no such program. The program finds the peer's address in UPCALL_PEER.

Examples:
  $ upcall vsock connect vsock://3:1024 < request > reply
  $ upcall vsock connect hvsock:///run/vm.sock:22 --retry --timeout 1m
  $ upcall vsock connect unix:/run/echo.sock --exec sh -c 'echo hello; cat >&2'
  $ ssh -o ProxyCommand='upcall vsock connect hvsock:///run/vm.sock:22' guest`,
    )
    .action(action(sayingOnStderr('vsock.connect', connect)))
}

async function connect(context: Context, options: Options, address: string, command: string[]): Promise<void> {
  const { io, timeoutMs } = context
  const endpoint = parseStreamEndpoint(address, '<address>')
  const program = programOf(options, command)
  checkConnecting(endpoint, '<address>', options)
  checkStream(options, endpoint)
  const output = notes(context)
  const { halfClose, linger: lingerMs, retry } = options
  const vsock = vsockOptionsOf(options)
  const peer = formatEndpoint(endpoint)
  let stream: Stream
  try {
    using _progress = output.progress(`connect ${peer}`)
    stream = await openStream(endpoint, { signal: io.signal, timeoutMs, retry, halfClose, lingerMs, vsock })
  } catch (error) {
    return conclude(output, context.exit, 'vsock.connect', notSent(error))
  }
  const report = await converse(io, { ...stream, peer, program, lingerMs })
  await conclude(output, context.exit, 'vsock.connect', report)
}
