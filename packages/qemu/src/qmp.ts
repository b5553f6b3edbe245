import { randomInt } from 'node:crypto'
import { EventEmitter, on } from 'node:events'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { callBack } from '@upcall/foundation/callback'
import { checkClock, checkObject, checkSignal, checkString, checkTimeout, wrongType, wrongValue } from '@upcall/foundation/check'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { errnoOf, textOf } from '@upcall/foundation/error'
import { LineTooLongError, TextLines } from '@upcall/foundation/lines'
import { isLongPathError, withShortPath } from '@upcall/foundation/long-path'
import { traceOf } from '@upcall/foundation/trace'
import { type Bounds, bounded } from '@upcall/foundation/wait'
import { type About, abortedError, QemuError, QmpCommandError } from './errors.js'

/** One asynchronous event, as QEMU's QMP reference lists them: `{ event, data, timestamp }`. */
export interface QmpEvent {
  event: string
  data: Readonly<Record<string, unknown>>
  timestamp: { seconds: number; microseconds: number }
}

export interface QmpOptions {
  /** Bound on the handshake and on each command, in milliseconds; default 5000. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
  clock?: Clock | undefined
}

export interface ExecuteOptions {
  /** Default: the client's. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
}

export interface EventWaitOptions {
  /** Gives up with the code DEADLINE after so many milliseconds; Infinity for no limit. */
  timeoutMs: number
  signal?: AbortSignal | undefined
  /** Default: any event of that name will do. What it throws rejects the wait. */
  accepts?: ((event: QmpEvent) => boolean) | undefined
}

export interface HandshakeOptions extends QmpOptions {
  /** Bound on the handshake alone, in milliseconds; default `timeoutMs`. */
  handshakeTimeoutMs?: number | undefined
}

const trace = traceOf('qemu')

/** Why a monitor that takes a connection does not greet, and why it takes no more. */
const ONE_CLIENT = 'A monitor serves one client at a time: check that no other one is connected.'
/** In characters. The longest answers, such as QEMU's own schema, have a few hundred thousand. */
const LONGEST_LINE = 16 << 20
const DEFAULT_TIMEOUT_MS = 5000
/** How much of a line that is not QMP an error shows. */
const SHOWN = 80

interface Pending {
  command: string
  resolve(value: unknown): void
  reject(error: QemuError): void
}

/** A wait for an event. */
interface Waiter {
  onEvent(event: QmpEvent): void
  onEnd(ended: QemuError): void
}

/**
 * A client of the QEMU Machine Protocol (QEMU, docs/interop/qmp-spec): greeting, capabilities, commands told apart by id, events.
 * Emits `'event'` with each {@link QmpEvent} and `'close'` once, when the connection has ended, for any reason. What a listener throws
 * is an uncaught exception, as with any emitter; the connection goes on.
 */
export class QmpClient extends EventEmitter<{ event: [QmpEvent]; close: [] }> {
  readonly #stream: Duplex
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #lines = new TextLines({ max: LONGEST_LINE })
  readonly #pending = new Map<number, Pending>()
  readonly #waiters = new Set<Waiter>()
  /** Not from 1: what the last client of a monitor asked last, QEMU may answer to the next one. */
  #nextId = randomInt(2 ** 32) * 2 ** 16
  #onGreeting: ((greeting: Greeting) => void) | undefined
  #version = { major: 0, minor: 0, micro: 0 }
  #ended: QemuError | undefined

  /**
   * Greets QEMU over a connected stream, which the client then owns. Rejects with DEADLINE, ABORTED or QMP_CLOSED, or with a TypeError or
   * RangeError for a wrong argument.
   */
  static async over(stream: Duplex, options: HandshakeOptions = {}): Promise<QmpClient> {
    if (!isDuplex(stream)) wrongType('stream', 'a Duplex stream', stream)
    checkQmpOptions(options)
    if (options.handshakeTimeoutMs !== undefined) checkTimeout('handshakeTimeoutMs', options.handshakeTimeoutMs)
    const client = new QmpClient(stream, options)
    try {
      await client.#handshake(options)
      return client
    } catch (error) {
      client.close()
      throw error
    }
  }

  private constructor(stream: Duplex, { timeoutMs = DEFAULT_TIMEOUT_MS, clock = systemClock }: QmpOptions) {
    super()
    this.#stream = stream
    this.#clock = clock
    this.#timeoutMs = timeoutMs
    const decoder = new StringDecoder('utf8')
    stream.on('data', (chunk: Buffer) => this.#receive(decoder.write(chunk)))
    stream.on('error', (cause) => this.#end('the connection failed', cause))
    stream.on('end', () => this.#end('QEMU closed the connection'))
    stream.on('close', () => this.#end('the connection closed'))
  }

  /** QEMU's version, from its greeting. */
  get version(): Readonly<{ major: number; minor: number; micro: number }> {
    return this.#version
  }

  /**
   * Runs one command and resolves with what it returns. Rejects with QmpCommandError when QEMU refuses it, with DEADLINE, ABORTED or
   * QMP_CLOSED otherwise; after these three QEMU may still have carried it out.
   */
  async execute<T = unknown>(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options: ExecuteOptions = {},
  ): Promise<T> {
    checkObject('options', options)
    const { timeoutMs = this.#timeoutMs, signal } = options
    checkTimeout('timeoutMs', timeoutMs)
    checkSignal(signal)
    // A value that JSON does not have is refused before anything waits for an answer.
    const id = this.#nextId++
    const message = JSON.stringify({ execute: command, ...(args && { arguments: args }), id })
    const about = { op: 'qmp', subject: command }
    const next = 'QEMU may still carry it out.'
    return bounded<T>(this.#bounds({ timeoutMs, signal }, about, { awaited: 'answer', next }), (resolve, reject) => {
      if (this.#ended) {
        reject(closedError(about, this.#ended))
        return undefined
      }
      trace({ type: 'qmp.sent', line: message }, 'qmp > %s', message)
      this.#pending.set(id, { command, resolve: (value) => resolve(value as T), reject })
      this.#stream.write(`${message}\n`)
      return () => this.#pending.delete(id)
    })
  }

  /** Events from the first call of `next()` on, all or those of one name. Ends with the connection; throws ABORTED on abort. */
  async *events(name?: string, { signal }: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<QmpEvent, void, void> {
    const about = { op: 'qmp events', subject: name ?? '' }
    if (signal?.aborted) throw abortedError(about, signal.reason)
    if (this.#ended) return
    const events = on(this, 'event', { close: ['close'], ...(signal && { signal }) }) as AsyncIterable<[QmpEvent]>
    try {
      for await (const [event] of events) if (name === undefined || event.event === name) yield event
    } catch (error) {
      throw signal?.aborted ? abortedError(about, signal.reason) : error
    }
  }

  /** Resolves with the next event of that name, e.g. `DEVICE_DELETED`. Call it before the command that brings the event about. */
  async nextEvent(name: string, options: EventWaitOptions): Promise<QmpEvent> {
    checkObject('options', options)
    const { timeoutMs, signal, accepts = () => true } = options
    checkTimeout('timeoutMs', timeoutMs)
    checkSignal(signal)
    const about = { op: 'qmp event', subject: name }
    return bounded<QmpEvent>(this.#bounds({ timeoutMs, signal }, about, { awaited: 'such event' }), (resolve, reject) => {
      const waiter: Waiter = {
        onEvent(event) {
          try {
            if (event.event === name && accepts(event)) resolve(event)
          } catch (error) {
            // In the stream's listener, nothing would catch it.
            reject(error)
          }
        },
        onEnd: (ended) => reject(closedError(about, ended)),
      }
      return this.#wait(waiter)
    })
  }

  /** Ends the connection, not QEMU: that is `execute('quit')`. Commands under way reject with QMP_CLOSED. Idempotent. */
  close(): void {
    this.#end('its owner closed the client')
  }

  async #handshake({ handshakeTimeoutMs, signal }: HandshakeOptions): Promise<void> {
    const timeoutMs = handshakeTimeoutMs ?? this.#timeoutMs
    const about = { op: 'qmp', subject: '' }
    // The monitor of a QEMU that was booted here has no other client.
    const next = handshakeTimeoutMs === undefined ? ONE_CLIENT : undefined
    const bounds = this.#bounds({ timeoutMs, signal }, about, { awaited: 'greeting', next })
    const greeting = await bounded<Greeting>(bounds, (resolve, reject) => {
      this.#onGreeting = resolve
      return this.#wait({ onEvent() {}, onEnd: (ended) => reject(closedError(about, ended)) })
    })
    this.#version = greeting.QMP.version.qemu
    await this.execute('qmp_capabilities', undefined, { signal, timeoutMs })
  }

  #bounds(
    { timeoutMs, signal }: ExecuteOptions & { timeoutMs: number },
    about: About,
    { awaited, next }: { awaited: string; next?: string | undefined },
  ): Bounds {
    const what = `there is no ${awaited} within ${Math.round(timeoutMs)} ms`
    return {
      ...{ timeoutMs, signal, clock: this.#clock },
      late: () => new QemuError({ ...about, code: 'DEADLINE', what, next }),
      aborted: (reason) => abortedError(about, reason),
    }
  }

  /** Returns how to wait no longer. */
  #wait(waiter: Waiter): (() => void) | undefined {
    if (this.#ended) {
      waiter.onEnd(this.#ended)
      return undefined
    }
    this.#waiters.add(waiter)
    return () => this.#waiters.delete(waiter)
  }

  #receive(text: string): void {
    if (this.#ended) return
    try {
      for (const line of this.#lines.push(text)) {
        if (line.trim() !== '') this.#handle(line)
        if (this.#ended) return
      }
    } catch (error) {
      if (!(error instanceof LineTooLongError)) throw error
      this.#end(`QEMU sent a line of more than ${LONGEST_LINE} characters`)
    }
  }

  #handle(line: string): void {
    trace({ type: 'qmp.received', line }, 'qmp < %s', line)
    const message = parseMessage(line)
    if (message === undefined) this.#end(`QEMU sent something other than QMP: ${line.slice(0, SHOWN)}`)
    else if (message.QMP !== undefined) this.#greet(message.QMP, line)
    else if (message.event) this.#announce({ ...message, data: message.data ?? {} } as QmpEvent)
    else if (message.id === undefined)
      this.#end(`QEMU sent an answer without an id: ${message.error?.desc ?? line.slice(0, SHOWN)}`)
    else this.#answer(message.id, message)
  }

  #greet(greeting: Greeting['QMP'], line: string): void {
    if (typeof greeting?.version?.qemu?.major === 'number') this.#onGreeting?.({ QMP: greeting })
    else this.#end(`QEMU sent a greeting without a version: ${line.slice(0, SHOWN)}`)
  }

  #announce(event: QmpEvent): void {
    for (const waiter of [...this.#waiters]) waiter.onEvent(event)
    callBack(() => this.emit('event', event))
  }

  #answer(id: number, { error, return: value }: QmpMessage): void {
    // An answer without a waiter belongs to a command that was given up.
    const pending = this.#pending.get(id)
    if (error) pending?.reject(new QmpCommandError(pending.command, error.class, error.desc))
    else pending?.resolve(value)
  }

  #end(what: string, cause?: unknown): void {
    if (this.#ended) return
    trace({ type: 'qmp.ended', what, cause }, 'qmp ended: %s', what)
    const ended = new QemuError({ code: 'QMP_CLOSED', op: 'qmp', subject: '', what, cause })
    this.#ended = ended
    this.#stream.destroy()
    this.#lines.take()
    for (const { command, reject } of [...this.#pending.values()]) reject(closedError({ op: 'qmp', subject: command }, ended))
    this.#pending.clear()
    for (const waiter of [...this.#waiters]) waiter.onEnd(ended)
    this.#waiters.clear()
    callBack(() => this.emit('close'))
  }
}

/** Connects to the Unix socket of a QEMU that runs with `-qmp unix:<path>,server=on,wait=off`, unless another client is connected there. On Linux `path` may have any length. */
export async function connectQmp(path: string, options: QmpOptions = {}): Promise<QmpClient> {
  checkString('path', path, 'the path of a socket')
  if (path === '' || path.includes('\0')) wrongValue('path', 'the path of a socket', path)
  checkQmpOptions(options)
  const { timeoutMs = DEFAULT_TIMEOUT_MS, clock = systemClock, signal } = options
  const about = { op: 'qmp connect', subject: path }
  const bounds: Bounds = {
    ...{ timeoutMs, signal, clock },
    late() {
      const what = `there is no connection within ${Math.round(timeoutMs)} ms`
      return new QemuError({ ...about, code: 'DEADLINE', what, next: ONE_CLIENT, retryable: true })
    },
    aborted: (reason) => abortedError(about, reason),
  }
  if (signal?.aborted) throw abortedError(about, signal.reason)
  const socket = new Socket().on('error', () => {})
  try {
    await bounded<void>(bounds, (resolve, reject) => {
      const onConnect = () => resolve()
      const onError = (cause: Error) => reject(connectError(about, cause))
      socket.once('connect', onConnect).once('error', onError)
      try {
        withShortPath(path, (short) => socket.connect(short))
      } catch (cause) {
        reject(connectError(about, cause))
      }
      return () => socket.off('connect', onConnect).off('error', onError)
    })
  } catch (error) {
    socket.destroy()
    throw error
  }
  return QmpClient.over(socket, options)
}

/** @throws TypeError, RangeError */
function checkQmpOptions(options: QmpOptions): void {
  checkObject('options', options)
  const { timeoutMs, signal, clock } = options
  if (timeoutMs !== undefined) checkTimeout('timeoutMs', timeoutMs)
  checkSignal(signal)
  if (clock !== undefined) checkClock(clock)
}

/** What the errno of a connect means, and what helps. */
const REFUSALS: Readonly<Record<string, readonly [what: string, next: string]>> = {
  ENOENT: ['there is no socket', 'Check that QEMU runs with -qmp unix:<path>,server=on,wait=off.'],
  ECONNREFUSED: ['there is no listener', 'Check that QEMU still runs.'],
  EACCES: ['this user may not connect', "The socket is QEMU's user's: run this as the same user."],
  // Too many clients wait for the monitor already.
  EAGAIN: ['the socket takes no more connections', ONE_CLIENT],
}

function connectError(about: About, cause: unknown): QemuError {
  if (isLongPathError(cause)) return new QemuError({ ...about, code: 'QMP_CLOSED', what: cause.what, next: cause.next, cause })
  const errno = errnoOf(cause)
  const [meaning, next] = REFUSALS[errno] ?? []
  const what = meaning === undefined ? textOf(cause) : `${meaning} (${errno})`
  return new QemuError({ ...about, code: 'QMP_CLOSED', what, next, retryable: next !== undefined && errno !== 'EACCES', cause })
}

interface Greeting {
  QMP: { version: { qemu: { major: number; minor: number; micro: number } } }
}

interface QmpMessage extends Partial<Greeting>, Partial<QmpEvent> {
  id?: number
  return?: unknown
  error?: { class: string; desc: string }
}

function isDuplex(value: unknown): value is Duplex {
  if (typeof value !== 'object' || value === null) return false
  return ['on', 'write', 'destroy'].every((name) => typeof Reflect.get(value, name) === 'function')
}

function parseMessage(line: string): QmpMessage | undefined {
  try {
    const message: unknown = JSON.parse(line)
    return typeof message === 'object' && message !== null ? message : undefined
  } catch {
    return undefined
  }
}

function closedError(about: About, { what, cause }: QemuError): QemuError {
  return new QemuError({ ...about, code: 'QMP_CLOSED', what, cause })
}
