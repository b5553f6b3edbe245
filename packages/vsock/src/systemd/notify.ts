import { checkString } from '@upcall/foundation/check'
import { systemClock } from '@upcall/foundation/clock'
import { errnoOf, textOf } from '@upcall/foundation/error'
import { withShortPath } from '@upcall/foundation/long-path'
import { bounded } from '@upcall/foundation/wait'
import { Cid, PORT_ANY, type VsockAddress } from '../address.js'
import { connect } from '../connect.js'
import { isVsockError, VsockError } from '../errors.js'
import { AddonError, loadBinding } from '../native/loader.js'
import { encodeSockaddrUn } from '../native/sockaddr.js'
import { connectSeqpacket } from '../seqpacket/connect.js'

/** How long a service manager outside of the guest may take for one message. */
const VSOCK_MS = 2_000

/** Where a service manager listens. */
export type NotifySocket =
  | { readonly kind: 'path'; readonly path: string }
  | { readonly kind: 'abstract'; readonly name: string }
  | { readonly kind: 'vsock'; readonly type: 'stream' | 'seqpacket'; readonly address: VsockAddress }

export interface NotifyOptions {
  /** The value of NOTIFY_SOCKET. Default: this process's, which stays set. */
  socket?: string | undefined
}

/**
 * Tells the service manager about this process, as sd_notify(3) does: `READY=1`, `STOPPING=1`, `STATUS=…`; several assignments are lines
 * of one text. NOTIFY_SOCKET is a path, `@<name>` for the abstract namespace, or, in a guest whose manager is outside, `vsock:<cid>:<port>`,
 * `vsock-stream:…` (both a stream) or `vsock-seqpacket:…`.
 *
 * @returns Whether there is a manager: false without NOTIFY_SOCKET, and nothing is done then.
 * @throws {VsockError} op `notify`: `EINVAL` for a NOTIFY_SOCKET that is empty or malformed, `ENOTSUP` without the addon, `ECONNREFUSED`
 *   if nothing listens there, `EAGAIN` if its queue is full, or another errno.
 */
export async function notifySystemd(state: string, { socket = process.env.NOTIFY_SOCKET }: NotifyOptions = {}): Promise<boolean> {
  checkString('state', state)
  if (socket === undefined) return false
  const target = parseNotifySocket(socket)
  if (target.kind === 'vsock') await overVsock(socket, target, state)
  else sendDatagram(socket, target, state)
  return true
}

/** @throws {VsockError} `EINVAL` */
export function parseNotifySocket(text: string): NotifySocket {
  if (text === '') throw notifyError(text, 'EINVAL', 'it is empty', FORMS)
  if (text.startsWith('/')) return { kind: 'path', path: text }
  if (text.startsWith('@') && text.length > 1) return { kind: 'abstract', name: text.slice(1) }
  const [, type, cid, port] = /^vsock(-\w+)?:(\d{1,10}):(\d{1,10})$/.exec(text) ?? []
  if (cid === undefined || port === undefined) throw notifyError(text, 'EINVAL', 'its form is unknown', FORMS)
  const known = TYPES[type ?? '']
  if (known === undefined) throw notifyError(text, 'EINVAL', `vsock${type} is not supported`, FORMS)
  const address = { transport: 'vsock', cid: Number(cid), port: Number(port) } as const
  if (address.cid >= Cid.any || address.port >= PORT_ANY)
    throw notifyError(text, 'EINVAL', 'its CID and port must be below 4294967295', FORMS)
  return { kind: 'vsock', type: known, address }
}

const FORMS = 'It is a path, @<name>, vsock:<cid>:<port>, vsock-stream:<cid>:<port> or vsock-seqpacket:<cid>:<port>.'

const TYPES: Readonly<Record<string, 'stream' | 'seqpacket'>> = { '': 'stream', '-stream': 'stream', '-seqpacket': 'seqpacket' }

function sendDatagram(socket: string, target: Exclude<NotifySocket, { kind: 'vsock' }>, state: string): void {
  try {
    const binding = loadBinding()
    const send = (name: string) => binding.sendDatagram(encodeSockaddrUn(name), Buffer.from(state))
    if (target.kind === 'path') withShortPath(target.path, send)
    else send(`\0${target.name}`)
  } catch (error) {
    if (error instanceof AddonError)
      throw notifyError(socket, 'ENOTSUP', `a datagram needs the addon: ${error.what}`, error.next ?? 'See the cause.', error)
    const errno = errnoOf(error)
    const [code, what] = REASONS[errno] ?? [errno, textOf(error)]
    throw notifyError(socket, code, what, 'Look at the unit: NotifyAccess= and Type=notify.', error)
  }
}

const REASONS: Readonly<Record<string, readonly [code: string, what: string]>> = {
  ENOENT: ['ECONNREFUSED', 'there is no socket (ENOENT)'],
  ECONNREFUSED: ['ECONNREFUSED', 'there is no listener (ECONNREFUSED)'],
  EAGAIN: ['EAGAIN', "the listener's queue is full (EAGAIN)"],
  EPROTOTYPE: ['EPROTOTYPE', 'it is not a datagram socket (EPROTOTYPE)'],
}

/** One connection for one message, as systemd's own sd_notify(3) does it. */
async function overVsock(socket: string, { type, address }: NotifySocket & { kind: 'vsock' }, state: string): Promise<void> {
  try {
    if (type === 'seqpacket') await sendMessage(address, state)
    else await sendStream(address, state)
  } catch (error) {
    const code = isVsockError(error) ? error.code : errnoOf(error)
    throw notifyError(socket, code, textOf(error), 'Look at the service manager outside of this guest.', error)
  }
}

const BOUNDS = {
  timeoutMs: VSOCK_MS,
  clock: systemClock,
  late: () => new Error(`the manager did not take it within ${VSOCK_MS} ms`),
  aborted: () => new Error('aborted'),
}

async function sendStream(address: VsockAddress, state: string): Promise<void> {
  const connection = await connect(address, { timeoutMs: VSOCK_MS })
  await bounded<void>(BOUNDS, (resolve, reject) => {
    connection.once('finish', resolve).once('error', reject)
    connection.end(state)
    return undefined
  }).finally(() => connection.on('error', () => {}).destroySoon())
}

async function sendMessage(address: VsockAddress, state: string): Promise<void> {
  const connection = await connectSeqpacket({ ...address, type: 'seqpacket' }, { timeoutMs: VSOCK_MS })
  await bounded<void>(BOUNDS, (resolve, reject) => {
    connection.send(Buffer.from(state)).then(resolve, reject)
    return undefined
  }).finally(() => connection.destroy())
}

function notifyError(socket: string, code: string, what: string, next: string, cause?: unknown): VsockError {
  const retryable = code === 'EAGAIN'
  return new VsockError({ code, op: 'notify', subject: `NOTIFY_SOCKET ${JSON.stringify(socket)}`, what, next, retryable, cause })
}
