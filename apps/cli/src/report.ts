import { isUpcallError, type Outcome } from '@upcall/client'
import { GuestError } from '@upcall/device-manager'
import { replyTexts } from '@upcall/trace'
import type { Address } from '@upcall/vsock'
import { isWireError, type Reply } from '@upcall/wire'
import { explain, explainRefusal } from './advice.js'
import { type ErrorReport, errorReport, UsageError } from './errors.js'
import { Exit, type Status, statusOf } from './exit.js'
import type { Colour, Paint } from './output.js'

/** What became of one operation, as `--json` prints it. */
export interface Report {
  /** The line of a batch that asked for it, from 1. */
  line?: number
  op?: string
  outcome: 'ok' | Outcome
  /** The guest's result, where it gave one. */
  result?: number
  /** x86_64: the number of CPUs acted on. */
  apicIdIndex?: number
  /** aarch64: the number of CPUs online afterwards. */
  cpuId?: number
  /** What a reply without a codec carried, in hexadecimal. */
  load?: string
  error?: ErrorReport & { errno?: number; errnoName?: string }
  /** From the call to the answer, dialling included. */
  durationMs?: number
}

export function succeeded(op: string, reply: Reply, durationMs: number): Report {
  return { op, outcome: 'ok', ...replyFields(reply), durationMs: rounded(durationMs) }
}

interface Attempt {
  target?: Address | undefined
  durationMs?: number | undefined
  /** How many connections were tried before it gave up. */
  attempts?: number | undefined
}

/** @throws Any other error than those that an operation may end with: it is a mistake in upcall, and must not be reported as anything else. */
export function failed(
  op: string | undefined,
  subject: string,
  error: unknown,
  { target, durationMs, attempts }: Attempt = {},
): Report {
  const head = { ...(op !== undefined && { op }) }
  const tail = { ...(durationMs !== undefined && { durationMs: rounded(durationMs) }) }
  if (error instanceof GuestError) {
    const { errno, errnoName } = error
    return {
      ...head,
      outcome: 'guest-error',
      ...replyFields(error.reply),
      error: { ...explainRefusal(error), errno, errnoName },
      ...tail,
    }
  }
  if (isUpcallError(error))
    return {
      ...head,
      outcome: error.outcome,
      error: explain(error, subject, { target, attempts, waiting: op === 'wait' }),
      ...tail,
    }
  if (isWireError(error))
    return {
      ...head,
      outcome: 'not-sent',
      error: errorReport({ code: error.code, op: subject, subject: error.subject, what: error.what }),
    }
  if (error instanceof UsageError) return { ...head, outcome: 'not-sent', error: errorReport(error) }
  throw error
}

/** The exit status that a report stands for. Invalid input is `not-sent` too, but repeating it is pointless. */
export function reportStatus({ outcome, error }: Report): Status {
  const invalid = error !== undefined && outcome === 'not-sent' && (error.code === 'ARGUMENT' || error.code === 'USAGE')
  return invalid ? Exit.invalid : statusOf(outcome)
}

const outcomeColours: Record<Report['outcome'], Colour> = {
  ok: 'green',
  'guest-error': 'red',
  'not-sent': 'yellow',
  indeterminate: 'magenta',
}

/** The report in a line for people. */
export function reportText(report: Report, subject: string, paint: Paint): string {
  const { outcome, error, durationMs } = report
  if (error !== undefined) {
    const label = reportStatus(report) === Exit.invalid ? 'invalid' : outcome
    return `${paint(outcomeColours[outcome], label)}: ${error.message}` // prints
  }
  const duration = durationMs === undefined ? '' : ` ${paint('grey', `(${durationMs} ms)`)}`
  return `${paint(outcomeColours[outcome], outcome)} ${[subject, ...replyTexts(report)].join(', ')}${duration}`
}

/** To the microsecond: the digits after that are noise. */
export function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000
}

function replyFields(reply: Reply): Pick<Report, 'result' | 'apicIdIndex' | 'cpuId' | 'load'> {
  const { result } = reply
  if (reply.type === 'RAW') return { result, ...(reply.load.length > 0 && { load: Buffer.from(reply.load).toString('hex') }) }
  if (reply.type !== 'ADD_CPU' && reply.type !== 'DEL_CPU') return { result }
  const { apicIdIndex, cpuId } = reply
  return { result, ...(apicIdIndex !== undefined && { apicIdIndex }), ...(cpuId !== undefined && { cpuId }) }
}
