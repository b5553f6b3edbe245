import { formatEndpoint } from '@upcall/vsock'
import type { Command } from 'commander'
import type { Action, Context } from '../../context.js'
import { parseAnyEndpoint } from '../../streams/endpoint.js'
import { dialLines, type LineStream } from '../../streams/messages.js'
import { isTerminal } from '../../streams/stdio.js'
import { followTraffic, trafficOf } from '../../streams/traffic.js'
import { conclude, converse, notes, notSent, sayingOnStderr } from './converse.js'
import {
  addConnectingOptions,
  addExecOption,
  addProgressOptions,
  addStreamOptions,
  type ConnectingOptions,
  checkConnecting,
  checkProgress,
  checkStream,
  type ExecOptions,
  MESSAGES_HELP,
  type ProgressFlags,
  programOf,
  vsockOptionsOf,
} from './options.js'

type Options = ConnectingOptions & ExecOptions & ProgressFlags

export function addConnectCommand(vsock: Command, action: Action): void {
  const command = vsock
    .command('connect')
    .description('connect, and join stdin and stdout, or a program, with the connection')
    .usage('[options] <address> [--exec <command> [argument…]]')
    .argument('<address>', 'where to connect')
  addExecOption(addProgressOptions(addConnectingOptions(addStreamOptions(command))))
    .addHelpText(
      'after',
      `
EOF on stdin ends the sending; what the peer still sends is read to its end. When the peer ends first,
the rest of stdin is still sent, if the peer takes it. --timeout limits the connecting.

Over hvsock:// EOF is held back until the guest has ended, because most VMMs take it for the end of both
directions. A server that answers only at EOF therefore never answers: after 5s (or --linger) the command
ends with status 4. Pass --half-close if this VMM passes EOF on.

${MESSAGES_HELP}

With stdin and stdout redirected, a stderr that is a terminal shows bytes and rate, except in CI.

stdout carries the stream alone. Everything else goes to stderr, as JSON objects with --json.

Exit status: 0 both directions ended in order, 3 no connection, 4 the connection broke or the peer did not
take all of stdin, 130 interrupted. With --exec it is the program's own status, or 127 if there is no such
program. The program finds the peer's address in UPCALL_PEER.

Examples:
  $ upcall vsock connect vsock://3:1024 < request > reply
  $ upcall vsock connect hvsock:///run/vm.sock:22 --retry --timeout 1m
  $ printf 'READY=1\\n' | upcall vsock connect vsock+seq://2:9999
  $ upcall vsock connect unix:/run/echo.sock --exec sh -c 'echo hello; cat >&2'
  $ ssh -o ProxyCommand='upcall vsock connect hvsock:///run/vm.sock:22' guest`,
    )
    .action(action(sayingOnStderr('vsock.connect', connect)))
}

async function connect(context: Context, options: Options, address: string, command: string[]): Promise<void> {
  const { io, timeoutMs } = context
  const endpoint = parseAnyEndpoint(address, '<address>')
  const program = programOf(options, command)
  checkConnecting(endpoint, '<address>', options)
  checkStream(options, endpoint)
  checkProgress(options, endpoint)
  const output = notes(context)
  const { halfClose, linger: lingerMs, retry, progress: show } = options
  const vsock = vsockOptionsOf(options)
  const peer = formatEndpoint(endpoint)
  let stream: LineStream
  try {
    using _progress = output.progress(`connect ${peer}`, show === false ? { show } : {})
    stream = await dialLines(endpoint, { signal: io.signal, timeoutMs, retry, halfClose, lingerMs, vsock })
  } catch (error) {
    return conclude(output, context.exit, 'vsock.connect', notSent(error))
  }
  const report = await conversing()
  await conclude(output, context.exit, 'vsock.connect', report)

  async function conversing() {
    // A person who reads stdout, or a program that writes to stderr, has the terminal for itself.
    const shared = program !== undefined || isTerminal(io.stdout) || isTerminal(io.stdin)
    using progress = output.progress(peer, { show, shared })
    using _following = followTraffic(() => trafficOf(stream.socket), peer, progress, io.clock)
    return await converse(io, { ...stream, peer, program, lingerMs })
  }
}
