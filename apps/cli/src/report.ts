import { isUpcallError, type Outcome } from '@upcall/client'
import { GuestError } from '@upcall/device-manager'
import type { Address } from '@upcall/vsock'
import { isWireError, type Reply } from '@upcall/wire'
import { explain, explainRefusal } from './advice.js'
import { UsageError } from './errors.js'
import { Exit, type Status, statusOf } from './exit.js'
import type { Colour, Paint } from './output.js'
import { replyTexts } from './text.js'

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
  error?: ErrorReport
  /** From the call to the answer, dialling included. */
  durationMs?: number
}

interface ErrorReport {
  code: string
  errno?: number
  errnoName?: string
  message: string
}

export function succeeded(op: string, reply: Reply, durationMs: number): Report {
  return { op, outcome: 'ok', ...replyFields(reply), durationMs: rounded(durationMs) }
}

interface Attempt {
  target?: Address | undefined
  durationMs?: number | undefined
}

/** @throws What is none of the errors that an operation may end with: a mistake in upcall, and not to be reported as anything else. */
export function failed(op: string | undefined, subject: string, error: unknown, { target, durationMs }: Attempt = {}): Report {
  const head = { ...(op !== undefined && { op }) }
  const tail = { ...(durationMs !== undefined && { durationMs: rounded(durationMs) }) }
  if (error instanceof GuestError) {
    const { code, errno, errnoName } = error
    return {
      ...head,
      outcome: 'guest-error',
      ...replyFields(error.reply),
      error: { code, errno, errnoName, message: explainRefusal(error) },
      ...tail,
    }
  }
  if (isUpcallError(error))
    return {
      ...head,
      outcome: error.outcome,
      error: { code: error.code, message: explain(error, subject, { target, waiting: op === 'wait' }) },
      ...tail,
    }
  if (isWireError(error))
    return { ...head, outcome: 'not-sent', error: { code: error.code, message: `${subject}: ${error.message}` } }
  if (error instanceof UsageError) return { ...head, outcome: 'not-sent', error: { code: error.code, message: error.message } }
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
    return `${paint(outcomeColours[outcome], label)}: ${error.message}`
  }
  const duration = durationMs === undefined ? '' : ` ${paint('grey', `(${durationMs} ms)`)}`
  return `${paint(outcomeColours[outcome], outcome)} ${[subject, ...replyTexts(report)].join(', ')}${duration}`
}

/** To the microsecond: what lies behind that is noise. */
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
