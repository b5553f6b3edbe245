import type { Duplex } from 'node:stream'
import { onAbort } from '@upcall/foundation/abort'
import type { Clock } from '@upcall/foundation/clock'
import { type Bounds, bounded } from '@upcall/foundation/wait'
import { VsockError } from '../errors.js'
import { hostPortOf } from '../host-port.js'
import type { ConnectOptions } from '../plan.js'
import { type Carried, relay, type Side, socketEnd } from '../relay/index.js'
import { dialEndpoint } from './dial.js'
import { type EndpointInit, formatEndpoint, toEndpoint } from './endpoint.js'
import type { Incoming } from './listener.js'

/** One connection of a forwarder. */
export interface ForwardedConnection {
  /** From 1, in the order in which they are taken. */
  readonly id: number
  /** The address of the peer that connected, as text and as far as the transport tells. */
  readonly remote: string
  /** Aborts when it is known, before it is connected, that the peer has gone, and when the forwarder closes. */
  readonly signal: AbortSignal
}

/** What `forward` connects to: an endpoint, or a function that gives one, or a stream, for each connection. A socket may still be connecting. */
export type ForwardTarget =
  | EndpointInit
  | ((connection: ForwardedConnection) => Duplex | EndpointInit | Promise<Duplex | EndpointInit>)

/** How a connection of a forwarder ended. */
export interface ForwardEnd {
  /**
   * - `ok`: each peer has taken all that the other one said.
   * - `not-sent`: there was nothing to connect it to, or its peer left before that. It was refused, and nothing of it was read.
   * - `indeterminate`: it broke or was cut off, and what was on its way may be lost.
   */
  readonly outcome: 'ok' | 'not-sent' | 'indeterminate'
  /** Bytes of `from` that `to` took. */
  readonly sent: number
  /** Bytes of `to` that `from` took. */
  readonly received: number
  /** From its being taken to its end, in milliseconds. */
  readonly durationMs: number
  /** The end that broke, or that did not take everything; absent if the connection was cut off. */
  readonly side?: 'from' | 'to'
  /**
   * Absent with `ok`. What an end broke with; why there is no connection; `ABORTED` if the forwarder was closed (`cause`: its signal's
   * reason) or if the peer left before there was a connection.
   */
  readonly error?: Error
}

export interface CarryOptions {
  readonly to: ForwardTarget
  readonly connecting: ConnectOptions
  /** The time for connecting. */
  readonly connectMs: number
  readonly lingerMs: number | undefined
  readonly clock: Clock
  /** Ends what is connected. */
  readonly cut: AbortSignal
  /** Is given how to read what has been carried so far, when both ends are connected. */
  readonly onOpen: (carried: () => Carried) => void
}

interface Target {
  readonly socket: Duplex
  readonly halfClose: boolean
}

/** Connects for one connection, and carries both to their end. It never rejects. */
export async function carry(incoming: Incoming, connection: ForwardedConnection, options: CarryOptions): Promise<ForwardEnd> {
  const { lingerMs, clock, cut, onOpen } = options
  const started = clock.now()
  const notSent = (error: Error): ForwardEnd => ({
    outcome: 'not-sent',
    sent: 0,
    received: 0,
    durationMs: clock.now() - started,
    error,
  })
  let found: Found
  try {
    found = await find(connection, options)
  } catch (error) {
    incoming.refuse()
    return notSent(error as Error)
  }
  const { target, what } = found
  if (incoming.signal.aborted) {
    target.socket.on('error', () => {}).destroy()
    return notSent(leftError(what, incoming.signal.reason))
  }
  const accepted = incoming.accept(hostPortOf(target.socket))
  const near = socketEnd(accepted.socket, { ...accepted, silenceMs: lingerMs, clock })
  const far = socketEnd(target.socket, { ...target, silenceMs: lingerMs, clock })
  const bounded = accepted.halfClose && target.halfClose
  const { toFar, toNear, broken, aborted } = await relay(near, far, {
    signal: cut,
    // A socket without half-close bounds the silence itself, and fails: its peer has not been told of the end.
    lingerMs: bounded ? lingerMs : undefined,
    stallMs: lingerMs,
    clock,
    onOpen,
  })
  return {
    outcome: broken || aborted ? 'indeterminate' : 'ok',
    sent: toFar,
    received: toNear,
    durationMs: clock.now() - started,
    ...(broken && { side: names[broken.side], error: broken.error }),
    ...(aborted && { error: cutError(cut.reason) }),
  }
}

const names: Readonly<Record<Side, 'from' | 'to'>> = { near: 'from', far: 'to' }

interface Found {
  readonly target: Target
  /** What it is, for a person. */
  readonly what: string
}

async function find(connection: ForwardedConnection, options: CarryOptions): Promise<Found> {
  const { to, connecting } = options
  const given = typeof to === 'function' ? await ask(to, connection, options) : to
  if (isDuplex(given)) return { target: { socket: given, halfClose: halfCloseOf(given) }, what: 'its stream' }
  const target = await dialEndpoint(given, { ...connecting, signal: connection.signal })
  return { target, what: typeof given === 'string' ? given : formatEndpoint(toEndpoint(given)) }
}

type Asked = Duplex | EndpointInit

/** Within the time for connecting, which is also a stream's own that still connects. A stream that comes later is closed. */
function ask(
  to: (connection: ForwardedConnection) => Asked | Promise<Asked>,
  connection: ForwardedConnection,
  { connectMs, clock }: CarryOptions,
): Promise<Asked> {
  const bounds: Bounds = {
    timeoutMs: connectMs,
    signal: connection.signal,
    clock,
    late: () => lateError(connectMs),
    aborted: givenUpError,
  }
  return bounded(bounds, (resolve, reject) => {
    let over = false
    let giveUp = () => {}
    // Inside a promise, so that throwing counts as rejecting.
    Promise.resolve()
      .then(() => to(connection))
      .then((given) => {
        if (over && isDuplex(given)) given.on('error', () => {}).destroy()
        if (!over && isConnecting(given)) giveUp = whenConnected(given, resolve, reject)
        else resolve(given)
      }, reject)
    return () => {
      over = true
      giveUp()
    }
  })
}

/** Only what is connected is carried: until then its peer can be told that there is nothing. @returns gives up the wait, and what is not connected. */
function whenConnected(stream: Duplex, resolve: (stream: Duplex) => void, reject: (error: Error) => void): () => void {
  const onConnect = () => resolve(stream)
  const onClose = () => reject(closedError())
  stream.once('connect', onConnect).once('error', reject).once('close', onClose)
  return () => {
    const connecting = isConnecting(stream)
    if (connecting) stream.on('error', () => {}).destroy()
    stream.off('connect', onConnect).off('error', reject).off('close', onClose)
  }
}

function isConnecting(given: Asked): given is Duplex {
  return isDuplex(given) && (given as { connecting?: unknown }).connecting === true
}

function isDuplex(given: Asked): given is Duplex {
  return typeof given === 'object' && given !== null && 'pipe' in given
}

/** A VsockSocket says what its transport can; other streams end each direction by itself. */
function halfCloseOf(stream: Duplex & { halfClose?: unknown }): boolean {
  return stream.halfClose !== false
}

function lateError(ms: number): VsockError {
  return new VsockError({
    code: 'ETIMEDOUT',
    op: 'forward',
    what: `the function of the caller gave no stream within ${Math.round(ms)} ms`,
    next: 'Allow more time with timeoutMs.',
  })
}

function closedError(): VsockError {
  return new VsockError({
    code: 'ECONNRESET',
    op: 'forward',
    what: 'the stream of the caller was destroyed before it was connected',
    next: 'Destroy it with an error to say why.',
  })
}

function givenUpError(reason: unknown): VsockError {
  return new VsockError({
    code: 'ABORTED',
    op: 'forward',
    what: 'given up before there was a stream for it',
    next: 'The cause says whether its peer has left or the forwarder was closed.',
    cause: reason,
  })
}

function leftError(what: string, reason: unknown): VsockError {
  return new VsockError({
    code: 'ABORTED',
    op: 'forward',
    what: `the peer closed before ${what} was connected`,
    next: 'Nothing was sent.',
    cause: reason,
  })
}

function cutError(reason: unknown): VsockError {
  return new VsockError({
    code: 'ABORTED',
    op: 'forward',
    what: 'the forwarder was closed',
    next: 'What was on its way may be lost.',
    cause: reason,
  })
}

/** A signal that follows some others until it is released. */
export function follow(...signals: AbortSignal[]): { readonly signal: AbortSignal; release(): void } {
  const own = new AbortController()
  const stops = signals.map((signal) => onAbort(signal, (reason) => own.abort(reason)))
  const aborted = signals.find((signal) => signal.aborted)
  if (aborted) own.abort(aborted.reason)
  return {
    signal: own.signal,
    release() {
      for (const stop of stops) stop()
    },
  }
}
