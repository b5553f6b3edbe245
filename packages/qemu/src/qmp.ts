import { randomInt } from 'node:crypto'
import { EventEmitter, on } from 'node:events'
import { connect as connectSocket } from 'node:net'
import type { Duplex } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { abortedError, bounded, type Clock, checkDeadline, systemClock } from './bounded.js'
import { checkClock, checkOptions, checkSignal, refused } from './check.js'
import { QemuError, QmpCommandError } from './errors.js'

/** One asynchronous event, as QEMU's QMP reference lists them: `{ event, data, timestamp }`. */
export interface QmpEvent {
  event: string
  data: Readonly<Record<string, unknown>>
  timestamp: { seconds: number; microseconds: number }
}

export interface QmpOptions {
  /** Default deadline of the handshake and of each command; default 5000. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
  clock?: Clock | undefined
}

export interface ExecuteOptions {
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
}

export interface EventWaitOptions {
  deadlineMs: number
  signal?: AbortSignal | undefined
  /** Default: any event of that name will do. */
  accepts?: ((event: QmpEvent) => boolean) | undefined
}

export interface HandshakeOptions extends QmpOptions {
  /** Deadline of the handshake alone. */
  handshakeMs?: number | undefined
}

/** Why a monitor that takes a connection does not greet, and why it takes no more. */
const ONE_CLIENT = 'a monitor serves one client at a time: is another one connected?'
/** Of a Unix socket's path, in bytes (Linux, struct sockaddr_un). */
const LONGEST_PATH = 107

/** The longest answers, such as QEMU's own schema, have a few hundred thousand. */
const MAX_LINE = 16 << 20

interface Pending {
  command: string
  resolve(value: unknown): void
  reject(error: QemuError): void
}

/**
 * A client of the QEMU Machine Protocol (QEMU, docs/interop/qmp-spec): greeting, capabilities, commands told apart by id, events.
 * Emits `'event'` with each {@link QmpEvent} and `'close'` once, when the connection has ended for whatever reason.
 */
export class QmpClient extends EventEmitter<{ event: [QmpEvent]; close: [] }> {
  readonly #stream: Duplex
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #pending = new Map<number, Pending>()
  /** Not from 1: what the last client of a monitor asked last, QEMU may answer to the next one. */
  #nextId = randomInt(2 ** 32) * 2 ** 16
  /** The line that has not ended yet, in the pieces that came: they are joined once, when it ends. */
  #pieces: string[] = []
  /** Of all pieces together. */
  #length = 0
  #onGreeting: ((greeting: Greeting) => void) | undefined
  #version = { major: 0, minor: 0, micro: 0 }
  #ended: QemuError | undefined

  /** Greets QEMU over a connected stream, which the client then owns. Rejects with INVALID_OPTION, DEADLINE, ABORTED or QMP_CLOSED. */
  static async over(stream: Duplex, options: HandshakeOptions = {}): Promise<QmpClient> {
    checkOptions('qmp', options)
    if (!isDuplex(stream)) throw refused('qmp: stream', stream, 'a Duplex stream')
    const client = new QmpClient(stream, options)
    try {
      await client.#handshake(options)
      return client
    } catch (error) {
      client.close()
      throw error
    }
  }

  private constructor(stream: Duplex, { timeoutMs = 5000, clock = systemClock }: QmpOptions) {
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
    const { timeoutMs = this.#timeoutMs, signal } = options
    // What JSON does not have is refused before anything waits for an answer.
    const id = this.#nextId++
    const message = JSON.stringify({ execute: command, ...(args && { arguments: args }), id })
    return bounded<T>({ deadlineMs: timeoutMs, signal, clock: this.#clock, what: `qmp ${command}` }, (resolve, reject) => {
      if (this.#ended) {
        reject(closedError(command, this.#ended))
        return undefined
      }
      this.#pending.set(id, { command, resolve: (value) => resolve(value as T), reject })
      this.#stream.write(`${message}\n`)
      return () => this.#pending.delete(id)
    })
  }

  /** Events from the first call of `next()` on, all or those of one name; ends with the connection, throws ABORTED on abort. */
  async *events(name?: string, { signal }: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<QmpEvent, void, void> {
    if (signal?.aborted) throw abortedError('qmp events', signal)
    if (this.#ended) return
    const events = on(this, 'event', { close: ['close'], ...(signal && { signal }) }) as AsyncIterable<[QmpEvent]>
    try {
      for await (const [event] of events) if (name === undefined || event.event === name) yield event
    } catch (error) {
      throw signal?.aborted ? abortedError('qmp events', signal) : error
    }
  }

  /** Resolves with the next event of that name, e.g. `DEVICE_DELETED`. Call it before the command that brings the event about. */
  async nextEvent(name: string, { deadlineMs, signal, accepts = () => true }: EventWaitOptions): Promise<QmpEvent> {
    return bounded<QmpEvent>({ deadlineMs, signal, clock: this.#clock, what: `qmp event ${name}` }, (resolve, reject) => {
      const onEvent = (event: QmpEvent) => {
        try {
          if (event.event === name && accepts(event)) resolve(event)
        } catch (error) {
          // It would end in the stream's listener, where nobody waits for it.
          reject(error)
        }
      }
      const onClose = () => reject(closedError(`event ${name}`, this.#ended!))
      if (this.#ended) {
        onClose()
        return undefined
      }
      this.on('event', onEvent).on('close', onClose)
      return () => this.off('event', onEvent).off('close', onClose)
    })
  }

  /** Ends the connection, not QEMU: that is `execute('quit')`. Commands under way reject with QMP_CLOSED. Twice is once. */
  close(): void {
    this.#end('closed by its owner')
  }

  async #handshake({ handshakeMs, signal }: HandshakeOptions): Promise<void> {
    const deadlineMs = handshakeMs ?? this.#timeoutMs
    // The monitor of a QEMU that was booted here has no other client.
    const hint = handshakeMs === undefined ? ONE_CLIENT : undefined
    const bounds = { deadlineMs, signal, clock: this.#clock, what: 'qmp greeting', hint }
    const greeting = await bounded<Greeting>(bounds, (resolve, reject) => {
      const onClose = () => reject(closedError('greeting', this.#ended!))
      this.#onGreeting = resolve
      this.once('close', onClose)
      return () => this.off('close', onClose)
    })
    this.#version = greeting.QMP.version.qemu
    await this.execute('qmp_capabilities', undefined, { signal, timeoutMs: deadlineMs })
  }

  #receive(text: string): void {
    const pieces = text.split('\n')
    for (const [i, piece] of pieces.entries()) {
      if (this.#ended) return
      if (piece !== '') this.#pieces.push(piece)
      this.#length += piece.length
      if (this.#length > MAX_LINE) {
        this.#end(`a line of more than ${MAX_LINE} characters`)
        return
      }
      if (i === pieces.length - 1) return
      const line = this.#pieces.join('')
      this.#forget()
      if (line.trim() !== '') this.#handle(line)
    }
  }

  #forget(): void {
    this.#pieces = []
    this.#length = 0
  }

  #handle(line: string): void {
    const message = parseMessage(line)
    if (message === undefined) this.#end(`not a QMP message: ${line.slice(0, 80)}`)
    else if (message.QMP !== undefined) this.#greet(message.QMP, line)
    else if (message.event) this.emit('event', { ...message, data: message.data ?? {} } as QmpEvent)
    else if (message.id === undefined) this.#end(`an answer without an id: ${message.error?.desc ?? line.slice(0, 80)}`)
    else this.#answer(message.id, message)
  }

  #greet(greeting: Greeting['QMP'], line: string): void {
    if (typeof greeting?.version?.qemu?.major === 'number') this.#onGreeting?.({ QMP: greeting })
    else this.#end(`a greeting without a version: ${line.slice(0, 80)}`)
  }

  #answer(id: number, { error, return: value }: QmpMessage): void {
    // An answer without a waiter belongs to a command whose deadline is over.
    const pending = this.#pending.get(id)
    if (error) pending?.reject(new QmpCommandError(pending.command, error.class, error.desc))
    else pending?.resolve(value)
  }

  #end(reason: string, cause?: unknown): void {
    if (this.#ended) return
    this.#ended = new QemuError('QMP_CLOSED', reason, { cause })
    this.#stream.destroy()
    this.#forget()
    for (const { command, reject } of [...this.#pending.values()]) reject(closedError(command, this.#ended))
    this.#pending.clear()
    this.emit('close')
  }
}

/** Connects to the Unix socket of a QEMU that runs with `-qmp unix:<path>,server=on,wait=off`, unless another client is connected there. */
export async function connectQmp(path: string, options: QmpOptions = {}): Promise<QmpClient> {
  checkOptions('qmp connect', options)
  if (typeof path !== 'string' || path === '') throw refused('qmp connect: path', path, 'the path of a socket')
  const { timeoutMs = 5000, clock = systemClock, signal } = options
  const what = `qmp connect ${path}`
  if (Buffer.byteLength(path) > LONGEST_PATH)
    throw new QemuError(
      'INVALID_OPTION',
      `${what}: the path of a socket has at most ${LONGEST_PATH} bytes; this one has ${Buffer.byteLength(path)}`,
    )
  checkDeadline(what, timeoutMs)
  checkSignal(what, signal)
  checkClock(what, clock)
  const socket = connectSocket(path).on('error', () => {})
  try {
    await bounded<void>({ deadlineMs: timeoutMs, signal, clock, what, hint: ONE_CLIENT }, (resolve, reject) => {
      const onConnect = () => resolve()
      const onError = (cause: NodeJS.ErrnoException) => {
        const why = WHY_NOT[cause.code ?? '']
        reject(new QemuError('QMP_CLOSED', `${what}: ${cause.message}${why === undefined ? '' : `; ${why}`}`, { cause }))
      }
      socket.once('connect', onConnect).once('error', onError)
      return () => socket.off('connect', onConnect).off('error', onError)
    })
  } catch (error) {
    socket.destroy()
    throw error
  }
  return QmpClient.over(socket, options)
}

const WHY_NOT: Readonly<Record<string, string>> = {
  ENOENT: 'nothing is there; is QEMU running with -qmp unix:<path>,server=on,wait=off?',
  ECONNREFUSED: 'nobody listens there; is QEMU still running?',
  EACCES: "this user may not connect there; the socket is QEMU's user's",
  // Those that wait for the monitor are too many already.
  EAGAIN: ONE_CLIENT,
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

function closedError(command: string, { message, cause }: QemuError): QemuError {
  return new QemuError('QMP_CLOSED', `qmp ${command}: ${message}`, { cause })
}
