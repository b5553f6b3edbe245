import { randomInt } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { Attachment, type ConnectionHandler, type DeviceSnapshot, type Recovery } from './attachment.js'
import { type Clock, systemClock } from './clock.js'
import { VsockDeviceError } from './errors.js'
import { type Listener, listenUnix, socketName } from './listener.js'
import type { DeviceError } from './machine/errors.js'
import { FIRST_HOST_PORT, LAST_HOST_PORT, type MuxerOptions } from './machine/muxer.js'
import type { Binding, Descriptor } from './native/binding.js'
import { loadBinding } from './native/loader.js'
import type { VsockStream } from './stream.js'

export interface VhostUserVsockOptions {
  /** Unix socket that the VMM connects to (`-chardev socket,path=…`), 1 to 107 bytes. */
  socketPath: string
  /** The guest's CID: 3 to 4294967294. Two guests of one host may share one; they never hear of each other. */
  guestCid: number
  /** Answers connections that the guest begins. Default: every one is refused. */
  onConnection?: ConnectionHandler | undefined
  /** Connections at a time, those still closing included: 1 to 1023. Default 1023. */
  maxConnections?: number | undefined
  /** How much of what the guest sent may wait per connection, in bytes: 4096 to 2^30. Default 262144, as Linux has it. */
  bufferBytes?: number | undefined
  /** How long a handshake may take in either direction, in milliseconds: an integer from 1 to 2147483647. Default 2000. */
  handshakeTimeoutMs?: number | undefined
  /** How long an orderly close may take before it becomes a reset, in milliseconds: an integer from 1 to 2147483647. Default 8000, as Linux has it. */
  lingerMs?: number | undefined
  clock?: Clock | undefined
  /** @internal */
  binding?: Binding | undefined
  /** @internal The host's port of the first connection that it begins. Default: any of 2^30 to 2^32 - 2. */
  firstHostPort?: number | undefined
}

/**
 * - `waiting`: no VMM on the line
 * - `attached`: a VMM, but no driver in the guest that uses the device (booting, paused, reset)
 * - `running`: connections are possible
 * - `faulted`: the guest broke a rule; its rings are left alone until its driver begins anew, the VMM starts them again, or `restart()`
 * - `closed`
 */
export type DeviceState = 'waiting' | 'attached' | 'running' | 'faulted' | 'closed'

/**
 * Why a running device stopped. `paused`: the VM was stopped, or its guest is being reset; connections survive until that is known.
 * `fault`: the guest broke a rule. `disconnected`: the VMM has gone. `protocol`: the VMM broke the vhost-user protocol. `closed`: by `close()`.
 */
export type StopReason = 'paused' | 'fault' | 'disconnected' | 'protocol' | 'closed'

export interface VhostUserVsockEvents {
  running: []
  stopped: [info: { reason: StopReason; error?: DeviceError | undefined }]
  /** The guest's driver began anew; so many connections of the old one were cut. */
  reset: [info: { connections: number }]
  state: [change: { state: DeviceState; previous: DeviceState }]
  /** The guest and the device seemed to wait for each other, and the device has ended that. A count of these is worth having. */
  recovery: [recovery: Recovery]
  /** A VMM is at the socket and cannot be let in for now, `EMFILE` for example. It is tried again and again, at most a second later. */
  warning: [error: VsockDeviceError]
}

/**
 * A virtio-vsock device for one VM: the VMM connects to `socketPath` and hands its guest's rings over (vhost-user). The guest sees
 * an ordinary AF_VSOCK transport; the host gets a stream per connection. When the VMM goes, the device waits for the next one.
 */
export class VhostUserVsock extends EventEmitter<VhostUserVsockEvents> implements AsyncDisposable {
  readonly socketPath: string
  readonly guestCid: number
  readonly #options: MuxerOptions
  readonly #clock: Clock
  readonly #onConnection: ConnectionHandler | undefined
  readonly #givenBinding: Binding | undefined
  /**
   * A guest that outlives a VMM's connection to us, or this process, may still have sockets that belong to ports of before: no port comes
   * again soon.
   */
  #nextHostPort: number
  #listening: Promise<Listener> | undefined
  #attachment: Attachment | undefined
  #state: DeviceState = 'waiting'
  #closing: Promise<void> | undefined

  /** Checks the options (`RangeError`); nothing is opened before `listen`. */
  constructor(options: VhostUserVsockOptions) {
    super()
    const {
      socketPath,
      guestCid,
      maxConnections = 1023,
      bufferBytes = 256 * 1024,
      handshakeTimeoutMs = 2_000,
      lingerMs = 8_000,
    } = options
    socketName(socketPath)
    this.socketPath = socketPath
    this.guestCid = integer('guestCid', guestCid, 3, 0xffff_fffe)
    this.#options = {
      guestCid,
      maxConnections: integer('maxConnections', maxConnections, 1, 1023),
      bufferBytes: integer('bufferBytes', bufferBytes, 4096, 2 ** 30),
      handshakeMs: integer('handshakeTimeoutMs', handshakeTimeoutMs, 1, 2 ** 31 - 1),
      lingerMs: integer('lingerMs', lingerMs, 1, 2 ** 31 - 1),
      allocate: (size) => Buffer.allocUnsafe(size),
    }
    this.#clock = options.clock ?? systemClock
    this.#onConnection = options.onConnection
    this.#givenBinding = options.binding
    this.#nextHostPort = options.firstHostPort ?? randomInt(FIRST_HOST_PORT, LAST_HOST_PORT + 1)
  }

  get state(): DeviceState {
    return this.#state
  }

  /** Connections open or closing now. */
  get connections(): number {
    return this.#attachment?.connections ?? 0
  }

  /** Why the device is `faulted`. */
  get fault(): DeviceError | undefined {
    return this.#attachment?.fault
  }

  /**
   * Begins to listen. Do this before the VMM starts: QEMU gives up at once if nobody is there. Twice is once.
   *
   * @throws {AddonError} where the addon does not load.
   * @throws {VsockDeviceError} `EADDRINUSE`.
   */
  async listen(): Promise<this> {
    if (this.#closing !== undefined) throw this.#error('listen', 'ABORTED', 'the device is closed', 'make a new one')
    const binding = this.#givenBinding ?? loadBinding()
    this.#listening ??= listenUnix(binding, this.socketPath, {
      onConnection: (descriptor) => this.#attach(binding, descriptor),
      onPause: (error, delayMs) => this.emit('warning', this.#notAccepted(error, delayMs)),
    })
    await this.#listening
    return this
  }

  /** Resolves when the guest's driver is there; rejects when the signal aborts or the device is closed. */
  async ready({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    while (this.#state !== 'running') {
      signal?.throwIfAborted()
      if (this.#closing !== undefined) throw this.#error('ready', 'ABORTED', 'the device is closed', 'make a new one')
      await new Promise<void>((resolve) => {
        const done = () => {
          this.off('state', done)
          signal?.removeEventListener('abort', done)
          resolve()
        }
        this.once('state', done)
        signal?.addEventListener('abort', done, { once: true })
      })
    }
  }

  /**
   * Connects to a port in the guest; the stream is open when the promise resolves. One attempt, with `handshakeTimeoutMs` as its deadline.
   *
   * @throws {VsockDeviceError} see its codes; `retryable` says which are worth another attempt.
   */
  async connect(port: number, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<VsockStream> {
    integer('port', port, 0, 0xffff_fffe)
    if (signal?.aborted)
      throw this.#error(`connect guest ${this.guestCid} port ${port}`, 'ABORTED', 'aborted', 'see the cause', signal.reason)
    if (this.#attachment === undefined || this.#state !== 'running') {
      const subject = `connect guest ${this.guestCid} port ${port}`
      throw this.#error(subject, 'ENETDOWN', `the device is ${this.#state}`, 'wait for ready()')
    }
    return this.#attachment.connect(port, signal)
  }

  /** Tries the rings of a `faulted` device once more, where they stopped. */
  restart(): void {
    this.#attachment?.restart()
  }

  /**
   * Ends every connection with `ECONNRESET` at once, and returns how many. For an owner who knows that the guest was reset (QMP's
   * `RESET` event): the device itself cannot tell a reset from a pause before the new driver begins, and holds connections until then.
   */
  resetConnections(): number {
    return this.#attachment?.resetConnections() ?? 0
  }

  /** Both rings and the credit of every connection at this moment, as plain data, to look into a transfer that stands still. */
  snapshot(): DeviceSnapshot {
    return this.#attachment?.snapshot() ?? { rx: undefined, tx: undefined, connections: [] }
  }

  /** Stops listening, cuts every connection, hangs up on the VMM, and resolves when the socket file is gone. Twice is once. */
  close(): Promise<void> {
    this.#closing ??= this.#shut()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #shut(): Promise<void> {
    this.#attachment?.close()
    this.#attachment = undefined
    this.#enter('closed', 'closed')
    const listener = await this.#listening?.catch(() => undefined)
    await listener?.close()
  }

  /** One VMM at a time: a second one is hung up on. */
  #attach(binding: Binding, descriptor: Descriptor): void {
    if (this.#attachment !== undefined || this.#closing !== undefined) {
      binding.close(descriptor)
      return
    }
    const options = { ...this.#options, firstHostPort: this.#nextHostPort }
    const attachment = new Attachment(binding, descriptor, options, this.#clock, {
      onConnection: this.#onConnection,
      onChange: () => this.#follow(attachment),
      onReset: (connections) => this.#tell(() => this.emit('reset', { connections })),
      onRecovery: (recovery) => this.#tell(() => this.emit('recovery', recovery)),
      onEnd: (error) => {
        this.#attachment = undefined
        this.#nextHostPort = attachment.nextHostPort
        this.#enter('waiting', error === undefined ? 'disconnected' : 'protocol', error)
      },
    })
    this.#attachment = attachment
    this.#enter('attached', 'paused')
  }

  #follow(attachment: Attachment): void {
    if (this.#attachment !== attachment) return
    if (attachment.fault !== undefined) this.#enter('faulted', 'fault', attachment.fault)
    else this.#enter(attachment.running ? 'running' : 'attached', 'paused')
  }

  #enter(state: DeviceState, reason: StopReason, error?: DeviceError): void {
    const previous = this.#state
    if (state === previous) return
    this.#state = state
    this.#tell(() => this.emit('state', { state, previous }))
    if (state === 'running') this.#tell(() => this.emit('running'))
    else if (previous === 'running' || error !== undefined) this.#tell(() => this.emit('stopped', { reason, error }))
  }

  /** A listener that throws is the application's affair, as with any emitter, and not the end of a conversation with the VMM. */
  #tell(emit: () => void): void {
    try {
      emit()
    } catch (error) {
      process.nextTick(() => {
        throw error
      })
    }
  }

  #notAccepted(cause: unknown, delayMs: number): VsockDeviceError {
    const what = `a VMM waits and cannot be let in: ${cause instanceof Error ? cause.message : cause}`
    const next = `the next try is in ${delayMs} ms; close what is not needed, or raise the limit (ulimit -n)`
    return new VsockDeviceError({ code: 'EAGAIN', subject: `listen ${this.socketPath}`, what, next, retryable: true, cause })
  }

  #error(subject: string, code: 'ABORTED' | 'ENETDOWN', what: string, next: string, cause?: unknown): VsockDeviceError {
    return new VsockDeviceError({ code, subject, what, next, retryable: code === 'ENETDOWN', cause })
  }
}

/** A device that listens: `new VhostUserVsock(options).listen()`. Rejects for options that the constructor refuses. */
export async function createVsockDevice(options: VhostUserVsockOptions): Promise<VhostUserVsock> {
  return new VhostUserVsock(options).listen()
}

function integer(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new RangeError(`${name} is ${value}; an integer from ${min} to ${max} is allowed`)
}
