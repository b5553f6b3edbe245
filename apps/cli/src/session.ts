import { DeviceManager, describeRequest, formatOperation, parseOperation } from '@upcall/device-manager'
import { type Address, connect, formatAddress } from '@upcall/vsock'
import type { Arch, Request } from '@upcall/wire'
import type { Context } from './context.js'
import { failed, type Report, succeeded } from './report.js'

/** The time for one dial, without `--timeout`. */
export const DIAL_MS = 5_000

export interface Connecting {
  target: Address
  arch: Arch
  /** The time of `--timeout`. It replaces every default, also those for replies. */
  timeoutMs: number | undefined
}

/**
 * The session of a command. It does not reconnect by itself: a person at a shell wants to know at once that there is no listener, and has
 * `upcall wait` for waiting.
 */
export function openManager({ target, arch, timeoutMs }: Connecting): DeviceManager<Arch> {
  return new DeviceManager<Arch>({
    dial: ({ signal }) => connect(target, { signal, timeoutMs: timeoutMs ?? DIAL_MS }),
    arch,
    remote: formatAddress(target),
    reconnect: false,
    timeouts: { dialMs: timeoutMs ?? DIAL_MS, greetingMs: timeoutMs },
    replyTimeouts: { cpuMs: timeoutMs, otherMs: timeoutMs },
  })
}

export interface PerformOptions {
  /** Where the manager connects to. */
  target: Address
  signal: AbortSignal
  timeoutMs: number | undefined
  /** The vCPUs that are present, for refusing what would harm the guest. */
  present?: readonly number[] | number | undefined
}

/** One operation, and its report, however it ends. */
export async function perform(manager: DeviceManager<Arch>, request: Request, options: PerformOptions): Promise<Report> {
  const { op } = formatOperation(request)
  const { target, signal, timeoutMs, present } = options
  const started = performance.now()
  try {
    const reply = await manager.request(request, { signal, timeoutMs, present })
    return succeeded(op, reply, performance.now() - started)
  } catch (error) {
    return failed(op, describeRequest(request), error, { target, durationMs: performance.now() - started })
  }
}

/** The whole of a command that is one operation: parse, connect, ask, report, close. */
export async function operate(
  context: Context,
  operation: { op: string; [key: string]: unknown },
  present?: PerformOptions['present'],
): Promise<void> {
  const { io, output, timeoutMs } = context
  const { target, arch } = context
  let request: Request
  try {
    request = parseOperation(operation, arch)
  } catch (error) {
    await context.report(failed(operation.op, operation.op, error), operation.op)
    return
  }
  const subject = describeRequest(request)
  const manager = openManager({ target, arch, timeoutMs })
  let report: Report
  try {
    using _progress = output.progress(`${subject} ${formatAddress(target)}`)
    report = await perform(manager, request, { target, signal: io.signal, timeoutMs, present })
  } finally {
    await manager.close()
  }
  await context.report(report, subject)
}
