/**
 * The words of the hybrid vsock handshake, both directions, as functions over bytes.
 *
 * dialer → VMM `CONNECT <port>\n`, VMM → dialer `OK <n>\n`, and the stream is the guest's. On failure the VMM closes without text.
 *
 * Dragonball has a second command: `passfd\n`, and then one message of its own, `<port>` or `<port> keep`, with one descriptor beside it. The
 * reply is the same, and the descriptor takes the stream's place.
 */

/** Longest command, `\n` included: the buffer of Firecracker, Cloud Hypervisor and Dragonball. */
export const COMMAND_MAX = 32
/** Longest reply, `\n` included. */
export const REPLY_MAX = 32
/** The first `n` in `OK <n>`: Firecracker counts its host-side ports from 2^30. */
export const FIRST_HOST_PORT = 0x40000000

const NEWLINE = 0x0a

export function connectCommand(port: number): string {
  return `CONNECT ${port}\n`
}

export const PASS_COMMAND = 'passfd\n'

/** What goes beside the descriptor. Without a newline, as Kata's runtime sends it. */
export function passMessage(port: number, keep: boolean): string {
  return keep ? `${port} keep` : `${port}`
}

export function okReply(hostPort: number): string {
  return `OK ${hostPort}\n`
}

export type Reply =
  | { readonly kind: 'incomplete' }
  /** The handshake ends before offset `end`; what comes after it is the guest's. `hostPort` is the `n`. */
  | { readonly kind: 'accepted'; readonly end: number; readonly hostPort: number }
  | { readonly kind: 'malformed'; readonly text: string }

/** Reads the VMM's reply from all bytes received so far. Malformed as soon as no continuation could be a reply. */
export function parseReply(bytes: Buffer): Reply {
  const newline = bytes.subarray(0, REPLY_MAX).indexOf(NEWLINE)
  const text = bytes.toString('latin1', 0, newline < 0 ? Math.min(bytes.length, REPLY_MAX) : newline)
  if (newline >= 0)
    return /^OK \d+$/.test(text)
      ? { kind: 'accepted', end: newline + 1, hostPort: Number(text.slice(3)) }
      : { kind: 'malformed', text }
  const canGrow = bytes.length < REPLY_MAX && /^(O(K( \d*)?)?)?$/.test(text)
  return canGrow ? { kind: 'incomplete' } : { kind: 'malformed', text }
}

export type Command =
  | { readonly kind: 'incomplete' }
  /** The command ends before offset `end`; what comes after it is for the guest. */
  | { readonly kind: 'connect'; readonly port: number; readonly end: number }
  /** A message with a descriptor follows. */
  | { readonly kind: 'passfd' }
  | { readonly kind: 'invalid'; readonly why: string }

/**
 * Reads a dialer's command from all bytes received so far, as generously as Firecracker's parser: the first word in any case, the
 * port the second, words after it ignored.
 */
export function parseCommand(bytes: Buffer): Command {
  const newline = bytes.subarray(0, COMMAND_MAX).indexOf(NEWLINE)
  if (newline < 0) {
    return bytes.length < COMMAND_MAX ? { kind: 'incomplete' } : { kind: 'invalid', why: `no newline in ${COMMAND_MAX} bytes` }
  }
  const [word = '', port = ''] = bytes.toString('latin1', 0, newline).trim().split(/\s+/)
  if (word.toLowerCase() === 'passfd') return { kind: 'passfd' }
  if (word.toLowerCase() !== 'connect') return { kind: 'invalid', why: `${JSON.stringify(word)} is not CONNECT` }
  if (!isPort(port)) return { kind: 'invalid', why: `${JSON.stringify(port)} is not a u32 port` }
  return { kind: 'connect', port: Number(port), end: newline + 1 }
}

/** Reads what came beside a descriptor; undefined if it is neither `<port>` nor `<port> keep`. */
export function parsePassMessage(bytes: Uint8Array): { port: number; keep: boolean } | undefined {
  if (bytes.length > COMMAND_MAX) return undefined
  const [port = '', keep, ...more] = Buffer.from(bytes).toString('latin1').trim().split(/\s+/)
  if (!isPort(port) || more.length > 0 || (keep !== undefined && keep !== 'keep')) return undefined
  return { port: Number(port), keep: keep !== undefined }
}

function isPort(text: string): boolean {
  return /^\d+$/.test(text) && Number(text) <= 0xffffffff
}
