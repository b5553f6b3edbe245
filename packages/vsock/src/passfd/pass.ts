import { onAbort } from '@upcall/foundation/abort'
import { backoffDelay } from '@upcall/foundation/backoff'
import { checkObject, checkSwitch, integer, wrongValue } from '@upcall/foundation/check'
import { type Clock, setLongTimer, systemClock } from '@upcall/foundation/clock'
import { errnoOf, textOf } from '@upcall/foundation/error'
import { type Address, formatAddress, type HvsockAddress, toAddress } from '../address.js'
import { type ConnectOptions, connect, planOf } from '../connect.js'
import { abortedError, isVsockError, VsockError } from '../errors.js'
import { PASS_COMMAND, parseReply, passMessage } from '../handshake.js'
import type { Binding, Descriptor } from '../native/binding.js'
import { needBinding } from '../native/vsock.js'
import type { VsockSocket } from '../socket.js'
import { trace } from '../trace.js'
import { duplicateOf } from './receive.js'

export interface PassOptions extends Pick<ConnectOptions, 'signal' | 'timeoutMs' | 'retry' | 'clock'> {
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
 * @param address `hvsock://<path>:<port>`; the VMM has to be Dragonball, or one that `listenHybrid` plays.
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
  checkObject('options', options)
  checkSwitch('keep', options.keep)
  const { timeoutMs, retry } = planOf(options)
  const { signal, clock = systemClock, keep = false } = options
  if (signal?.aborted) throw abortedError('pass', remote, signal.reason)
  const binding = needBinding('pass', { remote })
  const descriptor = duplicate(binding, fd, remote)
  const started = clock.now()
  try {
    for (let attempts = 1; ; attempts++) {
      const left = timeoutMs - (clock.now() - started)
      const limitMs = Math.max(1, Math.min(left, retry?.attemptTimeoutMs ?? left))
      let delayMs: number
      try {
        const hostPort = await attempt(binding, remote, { descriptor, keep, signal, clock, limitMs })
        trace({ type: 'passed', remote, hostPort, attempts }, 'pass %s: OK %d', formatAddress(remote), hostPort)
        return { hostPort }
      } catch (error) {
        const elapsedMs = clock.now() - started
        const again = retry !== undefined && isVsockError(error) && error.retryable
        delayMs = again ? Math.min(backoffDelay(retry, attempts), timeoutMs - elapsedMs - retry.minDelayMs) : 0
        const told = { type: 'pass-failed', remote, attempts, error, retryInMs: delayMs > 0 ? delayMs : undefined }
        trace(told, 'pass %s: attempt %d failed: %s', formatAddress(remote), attempts, textOf(error))
        if (!again) throw error
        if (delayMs <= 0) throw gaveUp(remote, attempts, elapsedMs, error)
      }
      await sleep(delayMs, remote, signal, clock)
    }
  } finally {
    binding.close(descriptor)
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

interface Attempt {
  readonly descriptor: Descriptor
  readonly keep: boolean
  readonly signal: AbortSignal | undefined
  readonly clock: Clock
  readonly limitMs: number
}

/** Dials, sends the command and the descriptor, and reads the reply. The control connection is closed afterwards, whatever became of it. */
async function attempt(binding: Binding, remote: HvsockAddress, { signal, clock, limitMs, ...what }: Attempt): Promise<number> {
  if (signal?.aborted) throw abortedError('pass', remote, signal.reason)
  const stop = new AbortController()
  const cancel = setLongTimer(clock, limitMs, () => stop.abort(timedOut(remote, limitMs)))
  const unlisten = onAbort(signal, (reason) => stop.abort(abortedError('pass', remote, reason)))
  let control: VsockSocket | undefined
  try {
    control = await connect({ transport: 'unix', path: remote.path }, { signal: stop.signal, timeoutMs: limitMs, clock })
    return await converse(binding, control, remote, { ...what, signal: stop.signal })
  } catch (error) {
    if (stop.signal.aborted) throw stop.signal.reason
    throw isVsockError(error) && error.op === 'connect' ? ofPass(error, remote) : error
  } finally {
    cancel()
    unlisten()
    control?.on('error', () => {}).destroy()
  }
}

type Conversation = Pick<Attempt, 'descriptor' | 'keep'> & { readonly signal: AbortSignal }

function converse(binding: Binding, control: VsockSocket, remote: HvsockAddress, options: Conversation): Promise<number> {
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

function sleep(ms: number, remote: Address, signal: AbortSignal | undefined, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortedError('pass', remote, signal.reason))
    const cancel = setLongTimer(clock, ms, () => {
      unlisten()
      resolve()
    })
    const unlisten = onAbort(signal, (reason) => {
      cancel()
      reject(abortedError('pass', remote, reason))
    })
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

function timedOut(remote: HvsockAddress, ms: number): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'pass',
    remote,
    retryable: true,
    what: `no answer within ${Math.round(ms)} ms`,
    next: 'Check that the guest has booted and is not paused, or allow more time with timeoutMs.',
  })
}

function gaveUp(remote: HvsockAddress, attempts: number, elapsedMs: number, last: VsockError): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'pass',
    remote,
    retryable: true,
    cause: last,
    attempts,
    elapsedMs,
    what: `gave up after ${attempts} attempt${attempts === 1 ? '' : 's'} in ${Math.round(elapsedMs)} ms: ${last.what}`,
    next: 'Allow more time with timeoutMs. The cause is the error of the last attempt.',
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
