import type { Socket } from 'node:net'
import { onAbort } from '@upcall/foundation/abort'
import { checkSwitch, integer, wrongValue } from '@upcall/foundation/check'
import { errnoOf } from '@upcall/foundation/error'
import { type Address, formatAddress, type HvsockAddress, toAddress } from '../address.js'
import { repeat } from '../attempts.js'
import { dial } from '../dial.js'
import { abortedError, isVsockError, VsockError } from '../errors.js'
import { PASS_COMMAND, parseReply, passMessage } from '../handshake.js'
import { Life } from '../life.js'
import type { Binding, Descriptor } from '../native/binding.js'
import { AddonError, loadBinding } from '../native/loader.js'
import { type ConnectOptions, planOf } from '../plan.js'
import { duplicateOf } from './receive.js'

export interface PassOptions extends Pick<ConnectOptions, 'signal' | 'timeoutMs' | 'retry' | 'onRetry' | 'clock'> {
  /**
   * Whether the connection stays when the descriptor's other end goes away: a FIFO that loses its writer or its reader, for example. Another
   * one may come then. Default false: that ends the connection.
   */
  keep?: boolean | undefined
}

/** The connection that a descriptor has become. */
export interface Passed {
  /** What the guest's server sees as its peer's port: a name for the connection, by which a request over another one can refer to it. */
  hostPort: number
}

/**
 * Passes an open descriptor to a VMM, which from then on carries the bytes between it and a port of the guest (Dragonball's `passfd`). This
 * process has no part in that: it can close the descriptor, and exit.
 *
 * The descriptor stays the caller's: the VMM gets a duplicate. Both share one open file, so that the offset of a file moves for both, and so does
 * `O_NONBLOCK`, which the VMM sets. Two readers of one FIFO or socket take bytes from each other. What the descriptor can do (read,
 * write, both) decides which directions there are.
 *
 * @param address `hvsock://<path>:<port>`; the VMM has to be Dragonball, or `listenHybrid` in its place.
 * @param fd 0 to 2147483647, e.g. of `fs.openSync()`, or `fileHandle.fd`. It is duplicated before this function returns.
 * @throws {AddressError} for an address that cannot be used; {RangeError} or {TypeError} for an argument that is wrong.
 * @throws {VsockError} with op `pass`. `retryable` as with `connect`: a missing or unattended socket, a VMM that closes without an answer (all
 *   code `ECONNREFUSED`) and a deadline that has passed (`ETIMEDOUT`). `EBADF` for a descriptor that is not open, `ENOTSUP` without the
 *   addon of this package: Node cannot send descriptors.
 */
export async function passDescriptor(address: Address | string, fd: number, options: PassOptions = {}): Promise<Passed> {
  const remote = toAddress(address)
  if (remote.transport !== 'hvsock') return wrongValue('address', 'an hvsock:// address', formatAddress(remote))
  integer('fd', fd, { min: 0, max: 0x7fff_ffff })
  const plan = planOf(options)
  checkSwitch('keep', options.keep)
  const { signal, clock, onRetry, keep = false } = options
  if (signal?.aborted) throw abortedError('pass', remote, signal.reason)
  const binding = sender(remote)
  const descriptor = duplicate(binding, fd, remote)
  const stop = new AbortController()
  const unlisten = onAbort(signal, (reason) => stop.abort(abortedError('pass', remote, reason)))
  try {
    const attempts = { signal: stop.signal, life: new Life(clock), onRetry }
    const hostPort = await repeat('pass', remote, plan, attempts, async (attempt) => {
      const control = await dialControl(remote, attempt)
      try {
        return await converse(binding, control, remote, { descriptor, keep, signal: attempt.signal })
      } finally {
        control.on('error', () => {}).destroy()
      }
    })
    return { hostPort }
  } finally {
    unlisten()
    binding.close(descriptor)
  }
}

/** The addon. */
function sender(remote: HvsockAddress): Binding {
  try {
    return loadBinding()
  } catch (cause) {
    if (!(cause instanceof AddonError)) throw cause
    throw new VsockError({
      code: 'ENOTSUP',
      op: 'pass',
      remote,
      what: `only the native addon can send descriptors: ${cause.what}`,
      next: 'Node itself has no way. The cause says how to get the addon.',
      cause,
    })
  }
}

function duplicate(binding: Binding, fd: number, remote: HvsockAddress): Descriptor {
  try {
    return binding.duplicate(fd)
  } catch (cause) {
    const code = errnoOf(cause)
    const what = code === 'EBADF' ? `descriptor ${fd} is not open (EBADF)` : `descriptor ${fd} cannot be duplicated (${code})`
    throw new VsockError({ code, op: 'pass', remote, what, next: 'Pass an open descriptor.', cause })
  }
}

/** The connection that the descriptor travels on. */
async function dialControl(
  remote: HvsockAddress,
  options: { signal: AbortSignal; timeoutMs: number; life: Life },
): Promise<Socket> {
  try {
    const { carrier } = await dial({ transport: 'unix', path: remote.path }, { ...options, vsock: undefined })
    return carrier
  } catch (error) {
    throw isVsockError(error) && error.op === 'connect' ? ofPass(error, remote) : error
  }
}

interface Conversation {
  readonly descriptor: Descriptor
  readonly keep: boolean
  readonly signal: AbortSignal
}

/** Sends the command and the descriptor, and reads the reply. */
function converse(binding: Binding, control: Socket, remote: HvsockAddress, options: Conversation): Promise<number> {
  const { descriptor, keep, signal } = options
  const own = duplicateOf(binding, control)
  return new Promise<number>((resolve, reject) => {
    if (!own) return reject(noWay(remote))
    let received: Buffer = Buffer.alloc(0)
    const onAbortion = () => reject(signal.reason)
    if (signal.aborted) return onAbortion()
    signal.addEventListener('abort', onAbortion, { once: true })
    control.on('error', (cause) => reject(refused(remote, cause))).on('end', () => reject(refused(remote)))
    control.on('readable', () => {
      const chunk: Buffer | null = control.read()
      if (chunk === null) return
      received = Buffer.concat([received, chunk])
      const reply = parseReply(received)
      if (reply.kind === 'accepted' && reply.hostPort <= 0xffff_ffff) resolve(reply.hostPort)
      else if (reply.kind !== 'incomplete') reject(malformed(remote, received.toString('latin1')))
    })
    // Two messages: the VMM reads the command to its newline, and then one message with the descriptor.
    const messages = [
      { bytes: Buffer.from(PASS_COMMAND), descriptors: [] as Descriptor[] },
      { bytes: Buffer.from(passMessage(remote.port, keep)), descriptors: [descriptor] },
    ]
    const send = () => {
      try {
        for (let next = messages[0]; next; next = messages[0]) {
          const sent = binding.send(own, next.bytes, next.descriptors)
          if (sent === undefined) return binding.watch(own, binding.WRITABLE, send)
          messages.shift()
        }
        binding.unwatch(own)
      } catch (cause) {
        reject(refused(remote, cause))
      }
    }
    send()
  }).finally(() => {
    if (own) binding.close(own)
  })
}

/** What kept the control connection from being made, said of the descriptor. */
function ofPass({ code, what, next, retryable, cause }: VsockError, remote: Address): VsockError {
  return new VsockError({ code, op: 'pass', remote, what, next, retryable, cause })
}

function refused(remote: HvsockAddress, cause?: unknown): VsockError {
  return new VsockError({
    code: 'ECONNREFUSED',
    op: 'pass',
    remote,
    cause,
    retryable: true,
    what: `the VMM closed the connection instead of answering: there is no listener on port ${remote.port} in the guest, or the VMM takes no such descriptor`,
    next: 'Start the server in the guest, or pass retry. Of the VMMs only Dragonball has passfd.',
  })
}

function malformed(remote: HvsockAddress, text: string): VsockError {
  return new VsockError({
    code: 'EPROTO',
    op: 'pass',
    remote,
    what: `the reply to passfd is ${JSON.stringify(text)}, not "OK <host port>"`,
    next: 'Check that a hybrid vsock VMM listens on this path.',
  })
}

function noWay(remote: HvsockAddress): VsockError {
  return new VsockError({
    code: 'ENOTSUP',
    op: 'pass',
    remote,
    what: 'there is no descriptor left for the connection, or this runtime does not show that of a socket as Node does',
    next: 'Use Node, and free some descriptors.',
  })
}
