import { isUpcallError, type StateName, UpcallClient } from '@upcall/client'
import { deviceManagerProtocol } from '@upcall/device-manager'
import { textOf } from '@upcall/foundation/error'
import { connect, formatAddress } from '@upcall/vsock'
import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { hostArchOf } from '../options.js'
import type { Paint } from '../output.js'
import { failed, type Report, reportStatus, reportText, rounded } from '../report.js'
import { DIAL_MS } from '../session.js'

/** How long `wait` waits if `--timeout` does not say. */
const WAIT_MS = 30_000

interface ConnectionReport extends Report {
  /** How far the connection got. */
  state: StateName
  peer: string
  /** Connections tried (`wait`). */
  attempts?: number
  /** Of the last attempt: until connected, any CONNECT handshake included. */
  dialMs?: number
  /** Of the last attempt: from the service byte to the whole greeting. */
  greetingMs?: number
}

export function addStatusCommands(program: Command, action: Action): void {
  program
    .command('status')
    .description('connect once; print how far that got, how long it took, and the peer')
    .addHelpText(
      'after',
      `
Exit status: 0 ready, 3 not.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 status
  $ upcall --target unix:/run/guest.sock --timeout 500ms --json status`,
    )
    .action(action((context: Context) => check(context, 'status')))

  program
    .command('wait')
    .description('keep trying until the guest is ready, for 30s or the time of --timeout')
    .addHelpText(
      'after',
      `
Exit status: 0 ready, 3 not ready in time, or an error that waiting does not mend.

Examples:
  $ upcall --target hvsock:///run/vm.sock:219 wait
  $ upcall --target hvsock:///run/vm.sock --timeout 2m wait && upcall --target hvsock:///run/vm.sock cpu add 1`,
    )
    .action(action((context: Context) => check(context, 'wait')))
}

async function check(context: Context, op: 'status' | 'wait'): Promise<void> {
  const { io, output, target, timeoutMs } = context
  const peer = formatAddress(target)
  const repeat = op === 'wait'
  const limitMs = timeoutMs ?? (repeat ? WAIT_MS : undefined)
  const attemptMs = repeat ? DIAL_MS : (timeoutMs ?? DIAL_MS)
  const started = performance.now()
  let attempt = { number: 0, started, dialled: Number.NaN, greeted: Number.NaN }
  let reached = 'WaitingServer' as StateName

  const client = new UpcallClient({
    dial({ signal }) {
      attempt = { ...attempt, number: attempt.number + 1, started: performance.now() }
      return connect(target, { signal, timeoutMs: attemptMs })
    },
    // No request is sent, and the greeting is the same on both.
    service: deviceManagerProtocol({ arch: context.options.arch ?? hostArchOf() ?? 'x86_64' }),
    remote: peer,
    reconnect: repeat ? { budgetMs: limitMs } : false,
    timeouts: { dialMs: attemptMs, greetingMs: attemptMs },
  })
  using progress = output.progress(`${op} ${peer}`)
  client.on('state', ({ state }) => {
    if (state === 'WaitingService') attempt.dialled = performance.now()
    if (state === 'ServiceConnected') attempt.greeted = performance.now()
    // The last two are how it ended, not how far it got.
    if (state !== 'ReconnectError' && state !== 'Closed') reached = state
  })
  client.on('reconnect', ({ cause }) => {
    const seconds = Math.round((performance.now() - started) / 1000)
    progress.update(`${op} ${peer}: attempt ${attempt.number} failed after ${seconds} s: ${textOf(cause)}`)
  })

  let report: Report
  try {
    // The budget bounds a wait, and its error knows why the last attempt failed.
    await client.ready({ signal: io.signal, timeoutMs: repeat ? undefined : limitMs })
    report = { op, outcome: 'ok' }
  } catch (error) {
    const gaveUp = attempt.number > 1 && isUpcallError(error) && error.outcome === 'not-sent' && !io.signal.aborted
    report = failed(op, op, error, { target, attempts: gaveUp ? attempt.number : undefined })
  } finally {
    progress[Symbol.dispose]()
    await client.close()
  }
  const { error, ...head } = report
  const full: ConnectionReport = {
    ...head,
    state: reached,
    peer,
    ...(repeat && { attempts: attempt.number }),
    ...(reached !== 'WaitingServer' && { dialMs: rounded(attempt.dialled - attempt.started) }),
    ...(reached === 'ServiceConnected' && { greetingMs: rounded(attempt.greeted - attempt.dialled) }),
    ...(error && { error }),
    durationMs: rounded(performance.now() - started),
  }
  context.exit.add(reportStatus(full))
  if (error) await output.failure(full, (paint) => reportText(full, op, paint))
  else await output.result(full, (paint) => readyText(full, paint))
}

function readyText({ state, peer, attempts, dialMs, greetingMs, durationMs }: ConnectionReport, paint: Paint): string {
  const tried = attempts === undefined ? '' : ` after ${attempts} attempt${attempts === 1 ? '' : 's'}`
  const times = paint('grey', `(dial ${dialMs} ms, greeting ${greetingMs} ms, total ${durationMs} ms)`)
  return `${paint('green', state)} ${peer}${tried} ${times}`
}
