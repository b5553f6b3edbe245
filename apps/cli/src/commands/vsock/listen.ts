import { type EndpointListener, formatEndpoint, type Incoming } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../../context.js'
import { errorReport, UsageError } from '../../errors.js'
import { EventLog } from '../../events.js'
import { parseInteger } from '../../options.js'
import { ServiceManager } from '../../service-manager.js'
import { type ListenOn, parseAnyEndpoint, parseInherited } from '../../streams/endpoint.js'
import { logRefusal, openListener } from '../../streams/listener.js'
import { conclude, converse, notes, sayingOnStderr } from './converse.js'
import {
  addExecOption,
  addListeningOptions,
  addStreamOptions,
  checkListening,
  checkStream,
  type ExecOptions,
  type ListeningOptions,
  MESSAGES_HELP,
  programOf,
  vsockOptionsOf,
} from './options.js'
import { serveConnections } from './service.js'

interface Options extends ListeningOptions, ExecOptions {
  keep?: boolean
  max?: number
}

const DEFAULT_MAX = 64

export function addListenCommand(vsock: Command, action: Action): void {
  const command = vsock
    .command('listen')
    .description('listen, and join stdin and stdout, or a program, with the peer that connects')
    .usage('[options] <address> [--exec <command> [argument…]]')
    .argument('<address>', 'where to listen; the port may be any')
    .option('--keep', 'take connections until interrupted: with --exec one program for each, without it only receive')
    .addOption(
      new Option('--max <n>', `with --keep --exec: connections at once; more wait (default: ${DEFAULT_MAX})`).argParser(
        parseInteger,
      ),
    )
  addExecOption(addListeningOptions(addStreamOptions(command)))
    .addHelpText(
      'after',
      `
Takes one connection, and removes its socket file before another peer finds it. --timeout limits the wait
for the connection. The address goes to stderr, with the port that was chosen for any. With --keep and no
program, what the peers send goes to stdout, one connection after the other, and stdin is not read.

On hvsock://<path>:<port> connections arrive that the guest makes to port <port> of its host; the socket is
<path>_<port>. With --as-vmm the socket is <path>, and this command plays the guest's port <port>: a client
says CONNECT <port>.

${MESSAGES_HELP}

systemd, systemd:<name> and fd:<n> as <address> are a socket that systemd or another program has opened. With
NOTIFY_SOCKET set, systemd is told when the command listens and when it ends.

Exit status: 0 both directions ended in order, 3 no peer connected in time, 4 the connection broke, 130
interrupted. With --exec it is the program's own status; with --keep it is 0 after SIGTERM. The program
finds the peer's address in UPCALL_PEER, if the peer has one.

Examples:
  $ upcall vsock listen vsock://any:1024 > received
  $ upcall vsock listen hvsock:///run/vm.sock:514 --keep >> guest.log
  $ upcall vsock listen unix:/run/echo.sock --mode 660 --keep --exec cat`,
    )
    .action(action(sayingOnStderr('vsock.listen', listen)))
}

async function listen(context: Context, options: Options, address: string, command: string[]): Promise<void> {
  const endpoint = parseInherited(address, '<address>', context.io.env) ?? parseAnyEndpoint(address, '<address>')
  const program = programOf(options, command)
  checkListening(endpoint, options)
  checkStream(options, endpoint)
  if (options.max !== undefined && !(options.keep && program)) throw new UsageError('--max', 'needs --keep and --exec')
  if (options.max === 0) throw new UsageError('--max', 'must be at least 1')
  if (options.keep) await serveMany(context, options, endpoint, program)
  else await serveOne(context, options, endpoint, program)
}

async function serveOne(context: Context, options: Options, endpoint: ListenOn, program?: readonly string[]): Promise<void> {
  const { io, timeoutMs } = context
  const output = notes(context)
  const manager = new ServiceManager(io)
  let take: (incoming: Incoming) => void = () => {}
  const first = new Promise<Incoming>((resolve) => {
    take = resolve
  })
  let taken = false
  const listener = await open(endpoint, options, new EventLog(output), (incoming) => {
    if (taken || io.signal.aborted) return incoming.refuse()
    taken = true
    take(incoming)
  })
  try {
    sayListening(output, listener)
    await manager.ready(formatEndpoint(listener.address))
    const incoming = await withinTime(first, io.signal, timeoutMs)
    if (incoming === undefined) {
      if (io.signal.aborted) return
      const error = errorReport({
        code: 'ETIMEDOUT',
        op: 'listen',
        subject: formatEndpoint(listener.address),
        what: `no peer connected within ${timeoutMs} ms`,
        next: 'Allow more time with --timeout.',
      })
      return await conclude(output, context.exit, 'vsock.listen', { outcome: 'not-sent', error })
    }
    await listener.stop()
    const stream = incoming.accept()
    const report = await converse(io, { ...stream, peer: incoming.remote, program, lingerMs: options.linger })
    await conclude(output, context.exit, 'vsock.listen', report)
  } finally {
    await manager.stopping()
    await listener.close()
  }
}

async function serveMany(context: Context, options: Options, endpoint: ListenOn, program?: readonly string[]): Promise<void> {
  const { io, exit, timeoutMs } = context
  if (timeoutMs !== undefined)
    throw new UsageError('--timeout', 'bounds the wait for one connection, and --keep takes them without end')
  const output = notes(context)
  const receiveOnly = program === undefined
  await serveConnections(context, {
    output,
    // Without programs there is one stdout, and one connection at a time.
    max: receiveOnly ? 1 : (options.max ?? DEFAULT_MAX),
    open: (offer, log) => open(endpoint, options, log, offer),
    onListening: (listener) => sayListening(output, listener),
    serve: (incoming) => {
      const { remote } = incoming
      return converse(io, { ...incoming.accept(), peer: remote, program, receiveOnly, lingerMs: options.linger })
    },
  })
  exit.programStatus = 0
}

function open(
  endpoint: ListenOn,
  options: Options,
  log: EventLog,
  onIncoming: (incoming: Incoming) => void,
): Promise<EndpointListener> {
  const { halfClose, linger: lingerMs, asVmm, profile, mode } = options
  return openListener(
    endpoint,
    '<address>',
    {
      halfClose,
      lingerMs,
      asVmm,
      profile,
      mode,
      vsock: vsockOptionsOf(options),
      onRefused: (refusal) => logRefusal(log, refusal),
    },
    onIncoming,
  )
}

function sayListening(output: ReturnType<typeof notes>, listener: EndpointListener): void {
  const address = formatEndpoint(listener.address)
  void output.result({ event: 'listening', address }, (paint) => `${paint('green', 'listening')} on ${address}`)
}

/** The first connection; undefined if the time is up or the user has interrupted. */
function withinTime<T>(wanted: Promise<T>, signal: AbortSignal, timeoutMs: number | undefined): Promise<T | undefined> {
  return new Promise((resolve) => {
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => settle(undefined), timeoutMs)
    const onAbort = () => settle(undefined)
    const settle = (value: T | undefined) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      resolve(value)
    }
    signal.addEventListener('abort', onAbort)
    if (signal.aborted) onAbort()
    void wanted.then(settle)
  })
}
