import { randomInt } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { onAbort } from '@upcall/foundation/abort'
import { checkClock, checkObject, checkOptionalFunction, checkSignal, integer } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { Attachment, type DeviceSnapshot } from './attachment.js'
import { checkGroups, checkHostCids, MAX_CID } from './check-options.js'
import { unheldClock } from './clock.js'
import type { ConnectionHandler } from './connections.js'
import { DEFAULTS, MAX_CONNECTIONS } from './defaults.js'
import type { DeviceState, StopReason, VhostUserVsockEvents } from './device-events.js'
import { abortedError, policyError, refusedError, VsockDeviceError } from './errors.js'
import { Hub, type Place } from './hub.js'
import { checkSocketPath, type Listener, listenUnix } from './listener.js'
import type { DeviceOptions } from './machine/device.js'
import type { DeviceError } from './machine/errors.js'
import { FIRST_HOST_PORT, LAST_HOST_PORT } from './machine/muxer.js'
import { HOST_CID, type SocketType } from './machine/packet.js'
import { PolicyGate } from './machine/policy.js'
import { type DeviceCounters, Tally } from './machine/tally.js'
import type { Tap } from './machine/tap.js'
import type { VsockMessageStream } from './message-stream.js'
import type { Binding, Descriptor } from './native/binding.js'
import { loadBinding } from './native/loader.js'
import { packetTap } from './packet-tap.js'
import { checkPolicy, type VsockPolicy } from './policy-options.js'
import type { VsockStream } from './stream.js'
import { tell } from './tell.js'
import { trace } from './trace.js'

export interface VhostUserVsockOptions {
  /** Unix socket that the VMM connects to (`-chardev socket,path=…`). It may have any length; QEMU itself takes at most 107 bytes. */
  socketPath: string
  /** The guest's CID: 3 to 4294967294. Two guests of one host may have the same CID, if they are not in one network: they do not notice each other. */
  guestCid: number
  /**
   * CIDs that mean the host for this guest: integers from 0 to 4294967294. Default `[2]`. Connections that the host begins come from
   * the first. `any`: every CID that no guest of the network has, and connections come from 2. (A Nitro Enclave's parent is 3.)
   */
  hostCids?: readonly number[] | 'any' | undefined
  /** In a network: two guests reach each other if they have one of these in common. Default `['default']`. */
  groups?: readonly string[] | undefined
  /** What the guest may do; `setPolicy` changes it. Default: everything. */
  policy?: VsockPolicy | undefined
  /** Answers connections that the guest begins. Default: every one is refused. */
  onConnection?: ConnectionHandler | undefined
  /** Connections with the host at a time, those still closing included: 1 to 1023. Default 1023. It may begin as many with other guests. */
  maxConnections?: number | undefined
  /** How much of what the guest sent may wait per connection, in bytes: 4096 to 2^30. Default 262144, as Linux has it. */
  bufferBytes?: number | undefined
  /** How long a handshake may take in either direction, in milliseconds: an integer from 1 to 2147483647. Default 2000. */
  handshakeTimeoutMs?: number | undefined
  /** How long an orderly close may take before it becomes a reset, in milliseconds: an integer from 1 to 2147483647. Default 8000, as Linux has it. */
  lingerMs?: number | undefined
  /** Time of the connections and of the rings. Default: the system's, with timers that do not keep the process alive. */
  clock?: Clock | undefined
}

const MAX_PORT = 0xffff_fffe
/** What setTimeout can wait for. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * A virtio-vsock device for one VM: the VMM connects to `socketPath` and hands its guest's rings over (vhost-user). The guest sees
 * an ordinary AF_VSOCK transport; the host gets a stream per connection. When the VMM goes, the device waits for the next one.
 */
export class VhostUserVsock extends EventEmitter<VhostUserVsockEvents> implements AsyncDisposable {
  readonly socketPath: string
  readonly guestCid: number
  readonly #options: DeviceOptions
  readonly #place: Place
  readonly #policy: PolicyGate
  readonly #tally = new Tally()
  readonly #tap: Tap
  readonly #clock: Clock
  readonly #onConnection: ConnectionHandler | undefined
  /**
   * A guest may outlive a VMM's connection to us, or this process, and still have sockets that belong to old ports. So no port comes
   * again soon.
   */
  #nextHostPort = randomInt(FIRST_HOST_PORT, LAST_HOST_PORT + 1)
  #listening: Promise<Listener> | undefined
  #attachment: Attachment | undefined
  #state: DeviceState = 'waiting'
  #closing: Promise<void> | undefined

  /** Checks the options (`TypeError`, `RangeError`); nothing is opened before `listen`. */
  constructor(options: VhostUserVsockOptions)
  /** @internal */
  constructor(options: VhostUserVsockOptions, hub: Hub)
  constructor(options: VhostUserVsockOptions, hub = new Hub()) {
    super()
    checkObject('options', options)
    const {
      socketPath,
      guestCid,
      hostCids = [HOST_CID],
      groups = ['default'],
      policy,
      onConnection,
      maxConnections = MAX_CONNECTIONS,
      bufferBytes = 256 * 1024,
      handshakeTimeoutMs = DEFAULTS.handshakeMs,
      lingerMs = DEFAULTS.lingerMs,
      clock = unheldClock,
    } = options
    checkSocketPath(socketPath)
    checkOptionalFunction('onConnection', onConnection)
    checkClock(clock)
    this.socketPath = socketPath
    this.guestCid = integer('guestCid', guestCid, { min: 3, max: MAX_CID })
    this.#tap = packetTap(socketPath, guestCid)
    checkHostCids(hostCids, guestCid)
    checkGroups(groups)
    this.#policy = new PolicyGate(checkPolicy('policy', policy), clock.now())
    this.#options = {
      guestCid,
      policy: this.#policy,
      tally: this.#tally,
      admit: (request, now) => this.#place.refusalOfGuest(request, now),
      hostCids,
      hostCid: hostCids === 'any' ? HOST_CID : hostCids[0],
      maxConnections: integer('maxConnections', maxConnections, { min: 1, max: MAX_CONNECTIONS }),
      bufferBytes: integer('bufferBytes', bufferBytes, { min: 4096, max: 2 ** 30 }),
      handshakeMs: integer('handshakeTimeoutMs', handshakeTimeoutMs, { min: 1, max: MAX_TIMER_MS }),
      lingerMs: integer('lingerMs', lingerMs, { min: 1, max: MAX_TIMER_MS }),
      allocate: DEFAULTS.allocate,
    }
    this.#clock = clock
    this.#onConnection = onConnection
    this.#place = hub.join({
      cid: guestCid,
      groups,
      limits: this.#options,
      policy: this.#policy,
      onRefusal: (refusal) => {
        this.#trace({ type: 'refused', refusal }, 'refused: %o', refusal)
        tell(() => this.emit('refused', refusal))
      },
    })
  }

  get state(): DeviceState {
    return this.#state
  }

  /** Connections open or closing now. */
  get connections(): number {
    return this.#attachment?.connections ?? 0
  }

  /** What the device has counted so far: a copy, cheap to have. */
  get counters(): DeviceCounters {
    return this.#tally.read()
  }

  /** Why the device is `faulted`. */
  get fault(): DeviceError | undefined {
    return this.#attachment?.fault
  }

  /**
   * Begins to listen. Do this before the VMM starts: QEMU gives up at once if there is no listener. Idempotent.
   *
   * @throws {AddonError} where the addon does not load.
   * @throws {VsockDeviceError} `EADDRINUSE`; `ABORTED` if the device is closed, also meanwhile.
   */
  async listen(): Promise<this> {
    this.#checkOpen('listen')
    const binding = loadBinding()
    const isFirst = this.#listening === undefined
    this.#listening ??= listenUnix(binding, this.socketPath, {
      onConnection: (descriptor) => this.#attach(binding, descriptor),
      onPause: (error, delayMs) => this.emit('warning', this.#notAccepted(error, delayMs)),
    })
    await this.#listening
    this.#checkOpen('listen')
    if (isFirst) this.#trace({ type: 'listening' }, 'listening')
    return this
  }

  /** Resolves when the guest's driver is there. Rejects with `ABORTED` when the signal aborts or the device is closed. */
  async ready({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    checkSignal(signal)
    while (this.#state !== 'running') {
      if (signal?.aborted) throw abortedError('ready', this.socketPath, signal.reason)
      this.#checkOpen('ready')
      await new Promise<void>((resolve) => {
        const done = () => {
          this.off('state', done)
          unlisten()
          resolve()
        }
        const unlisten = onAbort(signal, done)
        this.once('state', done)
      })
    }
  }

  /**
   * Connects to a port in the guest; the stream is open when the promise resolves. One attempt, with `handshakeTimeoutMs` as its deadline.
   *
   * @throws {VsockDeviceError} see its codes; `retryable` says which are worth another attempt.
   */
  async connect(port: number, options: { signal?: AbortSignal | undefined } = {}): Promise<VsockStream> {
    checkObject('options', options)
    const { signal } = options
    return this.#connectable(port, 'stream', signal).connect(port, signal)
  }

  /**
   * As `connect`, to a SEQPACKET socket in the guest: whole messages, both ways.
   *
   * @throws {VsockDeviceError} as `connect`; `ESOCKTNOSUPPORT` for a guest whose driver has no SOCK_SEQPACKET.
   */
  async connectSeqpacket(port: number, options: { signal?: AbortSignal | undefined } = {}): Promise<VsockMessageStream> {
    checkObject('options', options)
    const { signal } = options
    return this.#connectable(port, 'seqpacket', signal).connectSeqpacket(port, signal)
  }

  /** Other limits from now on. Connections that are open stay open, and count. @throws TypeError, RangeError */
  setPolicy(policy: VsockPolicy): void {
    this.#policy.replace(checkPolicy('policy', policy), this.#clock.now())
    this.#attachment?.touch()
  }

  /** Other groups from now on. Connections that are open stay open. @throws TypeError, RangeError */
  setGroups(groups: readonly string[]): void {
    checkGroups(groups)
    this.#place.setGroups(groups)
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

  /** Stops listening, cuts every connection, hangs up on the VMM, and resolves when the socket file is gone. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#shut()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #connectable(port: number, type: SocketType, signal: AbortSignal | undefined): Attachment {
    integer('port', port, { max: MAX_PORT })
    checkSignal(signal)
    const subject = `guest ${this.guestCid} port ${port}`
    if (signal?.aborted) throw abortedError('connect', subject, signal.reason)
    if (this.#attachment === undefined || this.#state !== 'running') {
      throw new VsockDeviceError({
        code: 'ENETDOWN',
        op: 'connect',
        subject,
        what: `the device is ${this.#state}`,
        next: this.#state === 'closed' ? 'Make a new one.' : 'Wait for ready().',
        retryable: this.#state !== 'closed',
      })
    }
    const refusal = this.#place.refusalOfHost(this.#options.hostCid ?? HOST_CID, port, type, this.#clock.now())
    if (refusal !== undefined) throw policyError(subject, refusal)
    return this.#attachment
  }

  async #shut(): Promise<void> {
    this.#attachment?.close()
    this.#attachment = undefined
    this.#place.leave()
    this.#enter('closed', 'closed')
    const listener = await this.#listening?.catch(() => undefined)
    await listener?.close()
  }

  /** One VMM at a time: the connection of a second one is closed. */
  #attach(binding: Binding, descriptor: Descriptor): void {
    if (this.#attachment !== undefined || this.#closing !== undefined) {
      binding.close(descriptor)
      return
    }
    const { socketPath } = this
    const options = { ...this.#options, firstHostPort: this.#nextHostPort }
    const attachment = new Attachment(binding, descriptor, options, this.#clock, {
      port: this.#place.port,
      tally: this.#tally,
      tap: this.#tap,
      onConnection: this.#onConnection,
      onChange: () => this.#follow(attachment),
      onReset: (connections) => {
        this.#trace({ type: 'reset', connections }, 'a new driver; connections cut: %d', connections)
        tell(() => this.emit('reset', { connections }))
      },
      onRecovery: (recovery) => {
        this.#trace({ type: 'recovery', ...recovery }, 'recovery: %o', recovery)
        tell(() => this.emit('recovery', recovery))
      },
      onRefused: (error) => {
        this.#trace({ type: 'request-refused', error }, 'a request was refused%s', textAfter(error))
        tell(() => this.emit('warning', refusedError(socketPath, error)))
      },
      onEnd: (error) => {
        this.#trace({ type: 'detached', error }, 'the front end has gone%s', textAfter(error))
        this.#attachment = undefined
        this.#nextHostPort = attachment.nextHostPort
        this.#enter('waiting', error === undefined ? 'disconnected' : 'protocol', error)
      },
    })
    this.#attachment = attachment
    this.#trace({ type: 'attached' }, 'a front end has connected')
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
    this.#place.up(state === 'running')
    this.#trace({ type: 'state', state, previous, reason, error }, '%s, was %s (%s)%s', state, previous, reason, textAfter(error))
    tell(() => this.emit('state', { state, previous }))
    if (state === 'running') tell(() => this.emit('running'))
    else if (previous === 'running' || error !== undefined) tell(() => this.emit('stopped', { reason, error }))
  }

  #trace(
    message: { readonly type: string; readonly [field: string]: unknown },
    format: string,
    ...args: readonly unknown[]
  ): void {
    const { socketPath } = this
    trace({ ...message, socketPath, device: this }, `%s: ${format}`, socketPath, ...args)
  }

  #notAccepted(cause: unknown, delayMs: number): VsockDeviceError {
    return new VsockDeviceError({
      code: 'EAGAIN',
      op: 'listen',
      subject: this.socketPath,
      what: `a VMM waits and cannot be let in: ${textOf(cause)}`,
      next: `The next try is in ${delayMs} ms. Close what is not needed, or raise the limit (ulimit -n).`,
      retryable: true,
      cause,
    })
  }

  #checkOpen(op: string): void {
    if (this.#closing === undefined) return
    const what = 'the device is closed'
    throw new VsockDeviceError({ code: 'ABORTED', op, subject: this.socketPath, what, next: 'Make a new one.' })
  }
}

/** A device that listens: `new VhostUserVsock(options).listen()`. Rejects for options that the constructor refuses. */
export async function createVsockDevice(options: VhostUserVsockOptions): Promise<VhostUserVsock> {
  return new VhostUserVsock(options).listen()
}

const textAfter = (error: DeviceError | undefined): string => (error === undefined ? '' : `: ${error.code}: ${textOf(error)}`)
