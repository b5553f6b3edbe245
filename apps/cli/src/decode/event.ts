import type { ConversationEvent, Direction } from '@upcall/trace'
import type { Paint } from '../output.js'

// What `trace` sees, and `decode` finds in a capture, in the same words.

/** `conn` is the connection's number, from 1. */
export type ConnectionEvent = ConversationEvent & { readonly conn: number }

/** One event for `--json`. */
export function eventJson(event: ConnectionEvent): object {
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

/** One event for people: the connection, an arrow to the guest or from it, and what it is; with what is wrong it has more lines. */
export function eventText(event: ConnectionEvent, paint: Paint): string {
  return `#${event.conn} ${event.type === 'state' ? '=' : arrowOf(event.direction, paint)} ${bodyOf(event, paint)}`
}

export function arrowOf(direction: Direction, paint: Paint): string {
  return direction === 'to-guest' ? paint('green', '→') : paint('yellow', '←')
}

function bodyOf(event: ConnectionEvent, paint: Paint): string {
  const rtt = 'rttMs' in event && event.rttMs !== undefined ? ` ${paint('grey', `(${event.rttMs.toFixed(2)} ms)`)}` : ''
  switch (event.type) {
    case 'handshake':
      return printable(event.text) + rtt
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

/** A peer may say anything after the number, and a terminal obeys it. */
function printable(text: string): string {
  return text.replace(/[^ -~]/g, '?')
}
