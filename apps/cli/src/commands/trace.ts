import { once } from 'node:events'
import {
  type ConversationEvent,
  ConversationPackets,
  encodeVsockPacket,
  isTraceError,
  openPcap,
  type PcapFile,
  proxy,
} from '@upcall/trace'
import { formatEndpoint } from '@upcall/vsock'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../context.js'
import { UsageError } from '../errors.js'
import { EventLog } from '../events.js'
import { Exit } from '../exit.js'
import { hostArchOf, NeededOption } from '../options.js'
import type { Paint } from '../output.js'
import { parseStreamEndpoint } from '../streams/endpoint.js'
import { cannotListen, logRefusal } from '../streams/listener.js'
import { forwardReport } from './vsock/converse.js'
import { logConnect, logDisconnect } from './vsock/service.js'

interface Options {
  listen: string
  pcap?: string
  raw?: boolean
}

type Event = ConversationEvent & { conn: number }

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

  const onEvent = (event: Event) => {
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
    log.event(jsonOf(event), (paint) => lineOf(event, paint))
  }
  const { signal } = io
  try {
    const forwarder = await proxy(from, to, {
      ...{ raw, arch: options.arch, fallbackArch: hostArchOf() ?? 'x86_64', timeoutMs, signal, onEvent },
    }).catch(cannotListen('--listen'))
    forwarder
      .on('connection', ({ id, remote }) => logConnect(log, id, remote))
      .on('closed', (connection, end) => {
        packets.delete(connection.id)
        logDisconnect(log, connection.id, forwardReport(end, formatEndpoint(to), connection))
      })
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
  await output.failure({ event: 'pcap', path, dropped, what }, () => `${path}: ${what}; ${dropped} packets are missing`)
}

function capture(file: PcapFile, all: Map<number, ConversationPackets>, event: Event): void {
  const packets = all.get(event.conn) ?? new ConversationPackets({ conn: event.conn })
  all.set(event.conn, packets)
  const time = performance.timeOrigin + event.at
  for (const packet of packets.of(event)) file.write(time, encodeVsockPacket(packet))
}

function jsonOf(event: Event): object {
  const { at: _at, conn, type, ...rest } = event
  if (!('bytes' in rest)) return { event: type, connection: conn, ...rest }
  const { bytes, ...more } = rest
  return { event: type, connection: conn, ...more, length: bytes.length, hex: hexOf(bytes) }
}

/** Without the zeros at its end. */
function hexOf(bytes: Uint8Array): string {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return Buffer.from(bytes.subarray(0, end)).toString('hex')
}

function lineOf(event: Event, paint: Paint): string {
  const arrow = event.direction === 'to-guest' ? paint('green', '→') : paint('yellow', '←')
  return `#${event.conn} ${event.type === 'state' ? '=' : arrow} ${bodyOf(event, paint)}`
}

function bodyOf(event: Event, paint: Paint): string {
  const rtt = 'rttMs' in event && event.rttMs !== undefined ? ` ${paint('grey', `(${event.rttMs.toFixed(2)} ms)`)}` : ''
  switch (event.type) {
    case 'handshake':
      return event.text + rtt
    case 'service':
      return event.byte === 0x64 ? "service 'd', the device manager" : `service byte ${event.byte}`
    case 'message':
      return `${event.title}${rtt}${event.wrong === undefined ? '' : wrongText(event.bytes, event.wrong, event.wrongAt, paint)}`
    case 'data':
      return `${event.bytes.length} bytes  ${preview(event.bytes, 0)}`
    case 'end':
      return event.unanswered === undefined ? 'EOF' : paint('red', `EOF, ${event.unanswered} without a reply`)
    case 'state':
      return paint('grey', `${event.previous} → ${event.state}`)
    default:
      return `${paint('red', '!')} ${event.what}\n    ${preview(event.bytes, 0)}`
  }
}

const ROW = 16

/** What is wrong, the bytes around it, and a mark under the first of them. */
function wrongText(bytes: Uint8Array, wrong: string, at: number | undefined, paint: Paint): string {
  const text = `\n    ${paint('red', '!')} ${wrong}`
  if (at === undefined) return text
  const row = at - (at % ROW)
  const offset = `${row.toString(16).padStart(4, '0')}  `
  return `${text}\n    ${offset}${preview(bytes, row)}\n    ${' '.repeat(offset.length + 3 * (at - row))}${paint('red', '^^')}`
}

function preview(bytes: Uint8Array, from: number): string {
  const more = from === 0 && bytes.length > ROW ? ' …' : ''
  return Array.from(bytes.subarray(from, from + ROW), (byte) => byte.toString(16).padStart(2, '0')).join(' ') + more
}
