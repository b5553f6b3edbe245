import { setMaxListeners } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { type Refusal, relay, socketEnd } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../../context.js'
import { errorReport, UsageError } from '../../errors.js'
import { parseDuration, parseInteger } from '../../options.js'
import { DIAL_MS } from '../../session.js'
import { type DialOptions, openStream, RETRY_MS, type Stream } from '../../streams/dial.js'
import { type Endpoint, formatEndpoint, parseStreamEndpoint } from '../../streams/endpoint.js'
import { type Incoming, logRefusal, openListener } from '../../streams/listener.js'
import { lingerOf, notSent, relayReport, type StreamReport } from './converse.js'
import {
  addConnectingOptions,
  addListeningOptions,
  addStreamOptions,
  type ConnectingOptions,
  checkConnecting,
  checkGlobals,
  checkListening,
  checkStream,
  type ListeningOptions,
  vsockOptionsOf,
} from './options.js'
import { serveConnections } from './service.js'

interface Options extends ConnectingOptions, ListeningOptions {
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
  addConnectingOptions(addListeningOptions(addStreamOptions(command)))
    .addHelpText(
      'after',
      `
tcp:8080 is port 8080 of the loopback interface. --timeout limits each connecting to <to>; if that fails,
the connection to <from> is closed (tcp: reset). EOF is passed on where both transports can; --half-close
and --no-half-close apply to hvsock, unix and vsock on both sides. SIGINT and SIGTERM end the command and
remove its socket file.

hvsock://<path>:<port> as <from> takes connections that the guest makes, on <path>_<port>. With --as-vmm the
command listens on <path> and answers CONNECT <port> once <to> is connected: a guest with vhost-vsock, or any
server, then looks like a guest of a hybrid vsock VMM. It is tolerant of its clients. With --profile it is as
strict as that VMM, and passes EOF on as that VMM does, unless --half-close says otherwise.

Each connection is one line on stdout, or one JSON object with --json. "sent" counts the bytes from <from> to
<to>.

Examples:
  $ upcall vsock forward tcp:8080 hvsock:///run/vm.sock:80
  $ upcall vsock forward hvsock:///run/vm.sock:5432 tcp:db.internal:5432
  $ upcall vsock forward --as-vmm hvsock:///run/qemu-vm.sock:219 vsock://3:219
  $ upcall vsock forward unix:/run/agent.sock vsock://3:1024 --mode 660 --retry --timeout 1m`,
    )
    .action(action(forward))
}

async function forward(context: Context, options: Options, fromText: string, toText: string): Promise<void> {
  const { io, output, timeoutMs } = context
  checkGlobals(context)
  const from = parseStreamEndpoint(fromText, '<from>')
  const to = parseStreamEndpoint(toText, '<to>')
  checkListening(from, options)
  checkConnecting(to, '<to>', options)
  checkStream(options, from, to)
  if (options.max < 1) throw new UsageError('--max', 'must be at least 1')

  const { asVmm, profile, mode, grace, halfClose, linger: lingerMs, retry } = options
  const peer = formatEndpoint(to)
  const vsock = vsockOptionsOf(options)
  // Ends pending connections when the user says so, and open ones when the grace is over.
  const cut = new AbortController()
  // Each connection adds a listener.
  setMaxListeners(0, cut.signal)
  const timing = { halfClose, lingerMs, vsock }
  const handshakeTimeoutMs = timeoutMs ?? (retry ? RETRY_MS : DIAL_MS)
  await serveConnections(context, {
    output,
    max: options.max,
    open: (offer, log) => {
      const onRefused = (refusal: Refusal) => logRefusal(log, refusal)
      return openListener(from, '<from>', { ...timing, asVmm, profile, mode, handshakeTimeoutMs, onRefused }, offer)
    },
    onListening: ({ address }) =>
      output.result(
        { event: 'listening', address, to: peer },
        (paint) => `${paint('green', 'listening')} on ${address}, to ${peer}`,
      ),
    serve: (incoming) =>
      carry(incoming, { to, peer, cut: cut.signal, dial: { ...timing, signal: io.signal, timeoutMs, retry }, lingerMs }),
    async onStopped(idle) {
      if (grace !== undefined) await graceful(idle, grace, io.hurry)
      cut.abort(io.signal.reason)
    },
  })
}

interface Route {
  to: Endpoint
  /** The same, as `upcall` writes it. */
  peer: string
  dial: DialOptions
  lingerMs: number | undefined
  /** Cuts off what is open. */
  cut: AbortSignal
}

/** Connects for one connection, and carries both to their end. */
async function carry(incoming: Incoming, { to, peer, dial, lingerMs, cut }: Route): Promise<StreamReport> {
  const started = performance.now()
  let stream: Stream
  try {
    stream = await openStream(to, { ...dial, signal: AbortSignal.any([dial.signal, incoming.signal]) })
  } catch (error) {
    incoming.refuse()
    return notSent(error)
  }
  if (incoming.signal.aborted) {
    stream.socket.destroy()
    const what = `the peer closed before ${peer} was connected`
    const error = errorReport({ code: 'ABORTED', subject: incoming.remote, what, next: 'Nothing was sent.' })
    return { outcome: 'not-sent', error }
  }
  const accepted = incoming.accept()
  const near = socketEnd(accepted.socket, { ...accepted, silenceMs: lingerMs })
  const far = socketEnd(stream.socket, { ...stream, silenceMs: lingerMs })
  const limits = { lingerMs: lingerOf(lingerMs, accepted, stream), stallMs: lingerMs }
  const relayed = await relay(near, far, { ...limits, signal: cut })
  return relayReport(relayed, { started, peer, near: incoming.remote, signal: cut })
}

/** Waits for something, but not longer than so many milliseconds, and not when the user is in a hurry. */
async function graceful(work: Promise<void>, ms: number, hurry: AbortSignal | undefined): Promise<void> {
  const done = new AbortController()
  const signal = hurry ? AbortSignal.any([done.signal, hurry]) : done.signal
  await Promise.race([work, delay(ms, undefined, { signal }).catch(() => {})])
  done.abort()
}
