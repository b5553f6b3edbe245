import { once } from 'node:events'
import { formatEndpoint, forward as open } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../../context.js'
import { UsageError } from '../../errors.js'
import { EventLog } from '../../events.js'
import { parseDuration, parseInteger } from '../../options.js'
import { ServiceManager } from '../../service-manager.js'
import { type ListenOn, parseAnyEndpoint, parseInherited } from '../../streams/endpoint.js'
import { cannotListen, logRefusal } from '../../streams/listener.js'
import { isForMessages } from '../../streams/messages.js'
import { followTraffic } from '../../streams/traffic.js'
import { forwardReport } from './converse.js'
import { forwardMessages } from './forward-messages.js'
import {
  addConnectingOptions,
  addListeningOptions,
  addProgressOptions,
  addStreamOptions,
  type ConnectingOptions,
  checkConnecting,
  checkGlobals,
  checkListening,
  checkProgress,
  checkStream,
  type ListeningOptions,
  type ProgressFlags,
  vsockOptionsOf,
} from './options.js'
import { logConnect, logDisconnect } from './service.js'

interface Options extends ConnectingOptions, ListeningOptions, ProgressFlags {
  max: number
  grace?: number
}

const DEFAULT_MAX = 1024

export function addForwardCommand(vsock: Command, action: Action): void {
  const command = vsock
    .command('forward')
    .description('open a connection to <to> for each connection on <from>, and carry bytes both ways')
    .argument('<from>', 'where to listen: tcp, unix, hvsock or vsock; the port may be any')
    .argument('<to>', 'where to connect: tcp, unix, hvsock or vsock')
    .addOption(new Option('--max <n>', 'connections at once; more wait').argParser(parseInteger).default(DEFAULT_MAX))
    .addOption(
      new Option(
        '--grace <duration>',
        'how long open connections may continue after SIGINT or SIGTERM (default: they end at once); a second Ctrl-C ends them',
      ).argParser(parseDuration),
    )
  addProgressOptions(addConnectingOptions(addListeningOptions(addStreamOptions(command))))
    .addHelpText(
      'after',
      `
tcp:8080 is port 8080 of the loopback interface. --timeout limits each connecting to <to>; if that fails,
the connection to <from> is closed (tcp: reset). EOF is passed on where both transports can; --half-close
and --no-half-close apply to hvsock, unix and vsock on both sides. SIGINT and SIGTERM end the command and
remove its socket file.

With +seq after both schemes (vsock+seq://, unix+seq:, hvsock+seq://) it carries messages (SOCK_SEQPACKET),
each of them whole.

hvsock://<path>:<port> as <from> takes connections that the guest makes, on <path>_<port>. With --as-vmm the
command listens on <path> and answers CONNECT <port> once <to> is connected: a guest with vhost-vsock, or any
server, then looks like a guest of a hybrid vsock VMM. It is tolerant of its clients. With --profile it is as
strict as that VMM, and passes EOF on as that VMM does, unless --half-close says otherwise.

systemd, systemd:<name> and fd:<n> as <from> are a socket that systemd or another program has opened. With
NOTIFY_SOCKET set, systemd is told when the command listens and when it ends.

Each connection is one line on stdout, or one JSON object with --json. "sent" counts the bytes from <from> to
<to>. A stderr that is a terminal also shows connections, bytes and rate, except with --json and in CI.

Examples:
  $ upcall vsock forward tcp:8080 hvsock:///run/vm.sock:80
  $ upcall vsock forward hvsock:///run/vm.sock:5432 tcp:db.internal:5432
  $ upcall vsock forward --as-vmm hvsock:///run/qemu-vm.sock:219 vsock://3:219
  $ upcall vsock forward unix:/run/agent.sock vsock://3:1024 --mode 660 --retry --timeout 1m`,
    )
    .action(action(forward))
}

async function forward(context: Context, options: Options, fromText: string, toText: string): Promise<void> {
  const { io, exit, output, timeoutMs } = context
  checkGlobals(context)
  const from = parseInherited(fromText, '<from>', io.env) ?? parseAnyEndpoint(fromText, '<from>')
  const to = parseAnyEndpoint(toText, '<to>')
  checkListening(from, options)
  checkConnecting(to, '<to>', options)
  checkStream(options, from, to)
  checkProgress(options, to)
  if (options.max < 1) throw new UsageError('--max', 'must be at least 1')

  const { asVmm, profile, mode, max, grace: graceMs, halfClose, linger: lingerMs, retry } = options
  checkSameKind(from, to)
  if (isForMessages(to) && ('fd' in from || isForMessages(from))) {
    if (lingerMs !== undefined) throw new UsageError('--linger', 'is for streams')
    return forwardMessages(context, from, to, { max, graceMs, retry, mode, vsock: vsockOptionsOf(options) })
  }
  const peer = formatEndpoint(to)
  const log = new EventLog(output)
  const { signal } = io
  const manager = new ServiceManager(io)
  const forwarder = await open(from, to, {
    ...{ asVmm, profile, mode, max, graceMs, halfClose, lingerMs, retry, timeoutMs },
    ...{ vsock: vsockOptionsOf(options), signal },
  }).catch(cannotListen('<from>'))
  forwarder
    .on('connection', ({ id, remote }) => logConnect(log, id, remote))
    .on('closed', (connection, end) => logDisconnect(log, connection.id, forwardReport(end, peer, connection)))
    .on('refused', (refusal) => logRefusal(log, refusal))
  const inHurry = () => forwarder.closeAllConnections()
  io.hurry?.addEventListener('abort', inHurry)
  try {
    const address = formatEndpoint(forwarder.address)
    await output.result(
      { event: 'listening', address, to: peer },
      (paint) => `${paint('green', 'listening')} on ${address}, to ${peer}`,
    )
    await manager.ready(address)
    exit.servesUntilTold = true
    using progress = output.progress(address, { show: options.progress })
    using _following = followTraffic(
      () => ({ connections: forwarder.connections, ...forwarder.traffic }),
      address,
      progress,
      io.clock,
    )
    if (!signal.aborted) await once(signal, 'abort')
  } finally {
    await manager.stopping()
    await forwarder.close()
    io.hurry?.removeEventListener('abort', inHurry)
  }
}

/** Messages have boundaries, and a stream has none: neither can be made of the other. A descriptor is what the other end is. */
function checkSameKind(from: ListenOn, to: ListenOn): void {
  if ('fd' in from || isForMessages(from) === isForMessages(to)) return
  const [messages, streams] = isForMessages(from) ? ['<from>', '<to>'] : ['<to>', '<from>']
  throw new UsageError(
    streams,
    `is for streams, and ${messages} for messages`,
    'Write +seq after both schemes, or after neither.',
  )
}
