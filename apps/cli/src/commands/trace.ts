import { once } from 'node:events'
import { ConversationPackets, encodeVsockPacket, isTraceError, openPcap, type PcapFile, proxy } from '@upcall/trace'
import { formatEndpoint } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../context.js'
import { type ConnectionEvent, eventJson, eventText } from '../decode/event.js'
import { errorReport, UsageError } from '../errors.js'
import { EventLog } from '../events.js'
import { Exit } from '../exit.js'
import { hostArchOf, NeededOption } from '../options.js'
import { parseStreamEndpoint } from '../streams/endpoint.js'
import { cannotListen, logRefusal } from '../streams/listener.js'
import { forwardReport } from './vsock/converse.js'
import { logConnect, logDisconnect } from './vsock/service.js'

interface Options {
  listen: string
  pcap?: string
  raw?: boolean
}

/** Output that waits for a slow reader. More is left out, and that is said: the traffic never waits. */
const MOST_WAITING = 1 << 20

export function addTraceCommand(program: Command, action: Action): void {
  program
    .command('trace')
    .description('stand between a client and a guest, and show each message as it passes')
    .addOption(new NeededOption('--listen <address>', 'where clients connect: unix, hvsock or vsock'))
    .addOption(new Option('--pcap <file>', 'also write the messages as a capture that Wireshark reads'))
    .addOption(new Option('--raw', 'any stream: show and capture the bytes as they come'))
    .addHelpText(
      'after',
      `
--target is the guest. Every byte, EOF and backpressure passes unchanged. With hvsock:// on both sides the
handshake passes through too, for any port. SIGINT and SIGTERM end the command. When the reader of stdout is too
slow, lines are left out, and the next line says how many.

Examples:
  $ upcall trace --listen hvsock:///tmp/t.sock --target hvsock:///tmp/vm.sock &
  $ upcall --target hvsock:///tmp/t.sock cpu add 1
  $ upcall trace --listen unix:/tmp/t.sock --target unix:/tmp/vm.sock --pcap upcall.pcap`,
    )
    .action(action(trace))
}

async function trace(context: Context, { listen, pcap, raw }: Options): Promise<void> {
  const { io, exit, output, options, timeoutMs } = context
  if (options.target === undefined && io.env.UPCALL_TARGET === undefined)
    throw new UsageError('--target', 'is missing', 'It is the guest, or the socket of its VMM.')
  const from = parseStreamEndpoint(listen, '--listen')
  const to = parseStreamEndpoint(options.target ?? io.env.UPCALL_TARGET!, '--target')
  const log = new EventLog(output)
  const file = pcap === undefined ? undefined : await openFile(pcap)
  const packets = new Map<number, ConversationPackets>()
  let leftOut = 0

  const onEvent = (event: ConnectionEvent) => {
    if (file) capture(file, packets, event)
    if (io.stdout.writableLength > MOST_WAITING) {
      leftOut++
      return
    }
    if (leftOut > 0) {
      const count = leftOut
      leftOut = 0
      log.event({ event: 'left-out', count }, () => `${count} lines were left out: the reader of this output is too slow`)
    }
    log.event(eventJson(event), (paint) => eventText(event, paint))
  }
  const { signal } = io
  try {
    const forwarder = await proxy(from, to, {
      ...{ raw, arch: options.arch, fallbackArch: hostArchOf() ?? 'x86_64', timeoutMs, signal, onEvent },
    }).catch(cannotListen('--listen'))
    forwarder
      .on('connection', ({ id, remote }) => logConnect(log, id, remote))
      .on('closed', (connection, end) => logDisconnect(log, connection.id, forwardReport(end, formatEndpoint(to), connection)))
      .on('refused', (refusal) => logRefusal(log, refusal))
    try {
      const [address, target] = [formatEndpoint(from), formatEndpoint(to)]
      await output.result(
        { event: 'listening', address, to: target },
        (paint) => `${paint('green', 'listening')} on ${address}, to ${target}`,
      )
      exit.servesUntilTold = true
      if (!signal.aborted) await once(signal, 'abort')
    } finally {
      await forwarder.close()
    }
  } finally {
    if (file) await closeFile(context, file)
  }
}

async function openFile(path: string): Promise<PcapFile> {
  try {
    return await openPcap(path)
  } catch (error) {
    if (isTraceError(error)) throw UsageError.of('--pcap', error)
    throw error
  }
}

async function closeFile({ exit, output }: Context, file: PcapFile): Promise<void> {
  await file.close().catch(() => {})
  const { error, dropped, path } = file
  if (error === undefined && dropped === 0) return
  exit.add(Exit.invalid)
  const what = error === undefined ? 'the disk was too slow' : error.what
  const report = errorReport({ code: 'OUTPUT', subject: path, what })
  await output.failure(
    { event: 'pcap', path, dropped, what, error: report },
    () => `${path}: ${what}; ${dropped} packets are missing`,
  )
}

function capture(file: PcapFile, all: Map<number, ConversationPackets>, event: ConnectionEvent): void {
  const packets = all.get(event.conn) ?? new ConversationPackets({ conn: event.conn })
  const time = performance.timeOrigin + event.at
  for (const packet of packets.of(event)) file.write(time, encodeVsockPacket(packet))
  if (packets.isOver) all.delete(event.conn)
  else all.set(event.conn, packets)
}
