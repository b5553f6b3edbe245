import type { Duplex } from 'node:stream'
import { errnoOf, textOf } from '@upcall/foundation/error'
import {
  type Broken,
  type ForwardEnd,
  type ForwardedConnection,
  isVsockError,
  type RelayEnd,
  type Relayed,
  relay,
  socketEnd,
  type VsockError,
} from '@upcall/vsock'
import type { Context } from '../../context.js'
import { type ErrorReport, errorReport, UsageError } from '../../errors.js'
import { Exit, type ExitStatus } from '../../exit.js'
import { type Io, Output, type Paint } from '../../output.js'
import { failed, reportText, rounded } from '../../report.js'
import { ExecError, startProgram } from '../../streams/child.js'
import { explainStreamError, isStreamError } from '../../streams/error.js'
import { isTerminal, StdioError, stdioEnd } from '../../streams/stdio.js'
import { checkGlobals } from './options.js'

/** How a stream ended, as `--json` prints it. */
export interface StreamReport {
  outcome: 'ok' | 'not-sent' | 'indeterminate'
  /** Bytes to the peer. */
  sent?: number
  /** Bytes from the peer. */
  received?: number
  /** The exit status of `--exec`'s program. */
  status?: number
  error?: ErrorReport
  durationMs?: number
}

/** Where `connect` and `listen` report: stdout belongs to the stream. */
export function notes({ io, options }: Context): Output {
  const { stderr, env, signal } = io
  return new Output({ stdout: stderr, stderr, env, signal }, options.json === true, options.verbose)
}

/** A command whose stdout belongs to the stream: wrong usage is reported on stderr, as everything else is. */
export function sayingOnStderr<Options, Args extends unknown[]>(
  op: string,
  command: (context: Context, options: Options, ...args: Args) => Promise<void>,
): typeof command {
  return async (context, options, ...args) => {
    try {
      checkGlobals(context)
      await command(context, options, ...args)
    } catch (error) {
      if (!(error instanceof UsageError)) throw error
      context.exit.add(Exit.invalid)
      const report = failed(op, op, error)
      await notes(context).failure(report, (paint) => reportText(report, op, paint))
    }
  }
}

export interface Conversation {
  socket: Duplex
  halfClose: boolean
  /** The peer, as `upcall` writes addresses. */
  peer: string
  /** The program that talks to the peer; undefined for stdin and stdout. */
  program: readonly string[] | undefined
  receiveOnly?: boolean
  lingerMs: number | undefined
}

/** Carries a connection to its end. Owns it, and the program. */
export async function converse(io: Io, conversation: Conversation): Promise<StreamReport> {
  const { socket, peer, program, receiveOnly = false, lingerMs } = conversation
  const started = performance.now()
  // A person at a terminal cannot be asked for EOF because the peer has gone.
  const halfClose = conversation.halfClose && !receiveOnly && !(program === undefined && isTerminal(io.stdin))
  const remote = socketEnd(socket, { halfClose })
  let local: RelayEnd
  let status: Promise<number> | undefined
  if (program === undefined) {
    local = stdioEnd(io, { receiveOnly, silenceMs: lingerMs })
  } else {
    try {
      const child = await startProgram(program, io, { UPCALL_PEER: peer })
      local = child.end
      status = child.status
    } catch (error) {
      await remote.destroy()
      if (!(error instanceof ExecError)) throw error
      return { outcome: 'not-sent', status: error.status, error: errorReport(error) }
    }
  }
  const relayed = await relay(local, remote, {
    signal: io.signal,
    // A socket without half-close bounds the silence itself, and fails: its peer has not been told of the end.
    lingerMs: conversation.halfClose ? lingerMs : undefined,
    stallMs: lingerMs,
  })
  const exited = status && { status: await status }
  const durationMs = performance.now() - started
  return { ...relayReport(relayed, { durationMs, peer, reason: io.signal.reason, near: undefined }), ...exited }
}

interface RelayContext {
  durationMs: number
  /** The far end, as `upcall` writes addresses. */
  peer: string
  /** The near end; undefined for stdin and stdout, or a program. */
  near: string | undefined
  /** Why it was cut off, if it was. */
  reason: unknown
}

/** How a relay ended. */
export function relayReport(relayed: Relayed, { durationMs, peer, near, reason }: RelayContext): StreamReport {
  const { toFar, toNear, broken, aborted } = relayed
  const describe = ({ side, error }: Broken) => {
    if (side === 'far') return brokenError(error, peer, toFar)
    return near === undefined ? brokenError(error, peer, undefined) : brokenError(error, near, toNear)
  }
  return {
    outcome: broken || aborted ? 'indeterminate' : 'ok',
    sent: toFar,
    received: toNear,
    ...(broken && { error: describe(broken) }),
    ...(aborted && { error: cutError(reason, peer) }),
    durationMs: rounded(durationMs),
  }
}

const LOSS = 'What was on its way may be lost.'

/** What an end broke with. `taken`: how many bytes it took before; undefined for stdin and stdout. */
function brokenError(error: Error, peer: string, taken: number | undefined): ErrorReport {
  if (isStreamError(error) && error.op !== 'relay') return explainStreamError(error)
  const code = errnoOf(error)
  const bytes = taken === 1 ? '1 byte' : `${taken} bytes`
  if (taken !== undefined && (code === 'EPIPE' || code === 'ETIMEDOUT')) {
    const what =
      code === 'EPIPE'
        ? 'the peer closed before it had taken everything (EPIPE)'
        : 'the peer has ended its direction and takes no more'
    return errorReport({ code, subject: peer, what, next: `It took ${bytes}; the rest is lost.` })
  }
  const after = taken === undefined ? '' : ` after ${bytes}`
  const what = `the connection broke${after}: ${error instanceof StdioError ? `${error.subject}: ${error.what}` : textOf(error)}`
  return errorReport({ code, subject: peer, what, next: LOSS })
}

/** The error of a connection that an interruption cut off. */
function cutError(reason: unknown, peer: string): ErrorReport {
  return errorReport({ code: 'ABORTED', subject: peer, what: textOf(reason), next: LOSS, cause: reason })
}

/** How a connection of a forwarder to `peer` ended. @throws Any error that is not a reason for there being no connection. */
export function forwardReport(end: ForwardEnd, peer: string, { remote }: ForwardedConnection): StreamReport {
  const { outcome, sent, received, durationMs, side, error } = end
  if (outcome === 'not-sent') return isLeft(error) ? leftReport(error, remote) : notSent(error)
  const broken: Broken | undefined = side && error && { side: side === 'to' ? 'far' : 'near', error }
  const relayed: Relayed = {
    toFar: sent,
    toNear: received,
    ...(broken && { broken }),
    ...(outcome === 'indeterminate' && !broken && { aborted: true }),
  }
  return relayReport(relayed, { durationMs, peer, near: remote, reason: error?.cause })
}

/** The peer left before there was a connection for it. */
function isLeft(error: unknown): error is VsockError {
  return isVsockError(error) && error.op === 'forward'
}

function leftReport({ code, what, next }: VsockError, remote: string): StreamReport {
  return { outcome: 'not-sent', error: errorReport({ code, subject: remote, what, next }) }
}

/** Why there is no connection. @throws Any error that is not such a reason. */
export function notSent(error: unknown): StreamReport {
  if (!isStreamError(error)) throw error
  return { outcome: 'not-sent', error: explainStreamError(error) }
}

/** Reports how the one stream of a command ended, and sets the exit status. */
export async function conclude(output: Output, exit: ExitStatus, op: string, report: StreamReport): Promise<void> {
  const { outcome, status = 0, error } = report
  exit.programStatus = status
  // A program that could not be started speaks through its status.
  if (outcome === 'indeterminate') exit.add(Exit.indeterminate)
  if (outcome === 'not-sent' && status === 0) exit.add(Exit.notSent)
  const full = { op, ...report }
  // A person who reads with head(1) knows that it was cut off.
  if (error && (output.json || !output.readerLeft)) await output.failure(full, (paint) => failureText(report, paint))
  else if (output.json) await output.result(full, () => '')
}

export function failureText({ outcome, error }: StreamReport, paint: Paint): string {
  return `${paint(outcome === 'not-sent' ? 'yellow' : 'magenta', outcome)}: ${error?.message}` // prints
}
