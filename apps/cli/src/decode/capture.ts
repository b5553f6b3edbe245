import {
  type CapturedPacket,
  decodeVsockPacket,
  isTraceError,
  LINKTYPE_VSOCK,
  readCapture,
  type VsockPacket,
} from '@upcall/trace'
import type { Context } from '../context.js'
import { UsageError } from '../errors.js'
import { Exit } from '../exit.js'
import type { Paint } from '../output.js'
import { type CaptureEvent, Connections, type ConnectionsOptions } from './connections.js'
import { arrowOf, eventJson, eventText } from './event.js'

/** The last moment that a `Date` knows. */
const LAST_TIME = 8.64e15

/** Prints what the packets of a pcap or pcapng file tell. `source` names it in errors. */
export async function decodeCapture(
  { io, output, exit }: Context,
  input: AsyncIterable<Uint8Array>,
  source: string,
  options: ConnectionsOptions,
): Promise<void> {
  const connections = new Connections(options)
  const print = async (event: CaptureEvent, time: string | undefined) => {
    if (isUnreadable(event)) exit.add(Exit.invalid)
    await output.result(
      { ...(time && { time }), ...jsonOf(event) },
      (paint) => `${timeText(time, paint)} ${textOf(event, paint)}`,
    )
  }
  let last: string | undefined
  try {
    for await (const captured of readCapture(input)) {
      const time = timeOf(captured)
      last = time ?? last
      const { packet, problem } = vsockPacketOf(captured)
      if (packet !== undefined) for (const event of connections.packet(packet, captured)) await print(event, time)
      if (problem !== undefined) {
        exit.add(Exit.invalid)
        await output.result({ ...(time && { time }), ...problemJson(captured, problem) }, (paint) => {
          return `${timeText(time, paint)} ${paint('red', '!')} packet ${captured.number}: ${problem}`
        })
      }
      if (io.signal.aborted) return
    }
  } catch (error) {
    if (!isTraceError(error)) throw error
    for (const event of connections.end()) await print(event, last)
    throw UsageError.of(source, error)
  }
  if (io.signal.aborted) return
  for (const event of connections.end()) await print(event, last)
}

/** What of it can be used, and what is wrong with the rest. */
function vsockPacketOf(captured: CapturedPacket): { packet?: VsockPacket; problem?: string } {
  const { linkType, bytes, length } = captured
  const problem =
    captured.problem ??
    (linkType !== LINKTYPE_VSOCK
      ? `link type ${linkType} is not vsock, ${LINKTYPE_VSOCK}`
      : bytes.length < length
        ? `the capture has ${bytes.length} of its ${length} bytes`
        : undefined)
  if (linkType !== LINKTYPE_VSOCK || captured.problem !== undefined) return { problem: problem! }
  try {
    return { packet: decodeVsockPacket(bytes), ...(problem !== undefined && { problem }) }
  } catch (error) {
    if (!isTraceError(error)) throw error
    return { problem: `${error.subject}: ${error.what}` }
  }
}

function problemJson({ number, offset }: CapturedPacket, what: string): object {
  const subject = `packet ${number}`
  return { event: 'unreadable', packet: number, offset, error: { code: 'PACKET', subject, what, message: `${subject}: ${what}` } }
}

function isUnreadable(event: CaptureEvent): boolean {
  return event.type === 'garbage' || event.type === 'cut' || (event.type === 'message' && 'error' in event.decoded)
}

function timeOf({ time }: CapturedPacket): string | undefined {
  return time === undefined || Math.abs(time) > LAST_TIME ? undefined : new Date(time).toISOString()
}

/** The same width without a time. */
function timeText(time: string | undefined, paint: Paint): string {
  return paint('grey', time === undefined ? '            ' : time.slice(-13, -1))
}

function jsonOf(event: CaptureEvent): object {
  if (event.type !== 'packet' && event.type !== 'midway') return eventJson(event)
  const { conn: connection, host, guest } = event
  const ends = { host: endText(host), guest: endText(guest) }
  if (event.type === 'midway') return { event: 'midway', connection, ...ends }
  const { op, virtio } = event.packet
  return { event: op, connection, direction: event.direction, ...ends, ...(virtio && { virtio: headerOf(virtio) }) }
}

function textOf(event: CaptureEvent, paint: Paint): string {
  if (event.type !== 'packet' && event.type !== 'midway') return eventText(event, paint)
  const ends = `${endText(event.host)} to ${endText(event.guest)}`
  if (event.type === 'midway') return `#${event.conn} = ${paint('grey', `the capture begins inside of this connection, ${ends}`)}`
  const { op, virtio } = event.packet
  const words = [op, ...(op === 'connect' ? [ends] : []), ...(virtio ? [headerText(headerOf(virtio))] : [])]
  return `#${event.conn} ${arrowOf(event.direction, paint)} ${paint('grey', words.join('  '))}`
}

function endText({ cid, port }: { cid: bigint; port: number }): string {
  return `${cid}:${port}`
}

const OPS = ['INVALID', 'REQUEST', 'RESPONSE', 'RST', 'SHUTDOWN', 'RW', 'CREDIT_UPDATE', 'CREDIT_REQUEST']

interface Header {
  op: string
  flags: number
  bufAlloc: number
  fwdCnt: number
}

/** Source: struct virtio_vsock_hdr of include/uapi/linux/virtio_vsock.h. */
function headerOf(virtio: Uint8Array): Header {
  const view = new DataView(virtio.buffer, virtio.byteOffset, virtio.byteLength)
  const op = view.getUint16(30, true)
  const [flags, bufAlloc, fwdCnt] = [32, 36, 40].map((at) => view.getUint32(at, true)) as [number, number, number]
  return { op: OPS[op] ?? `op ${op}`, flags, bufAlloc, fwdCnt }
}

function headerText({ op, flags, bufAlloc, fwdCnt }: Header): string {
  return `${op}${flags === 0 ? '' : ` flags ${flags}`}, credit ${bufAlloc} after ${fwdCnt}`
}
