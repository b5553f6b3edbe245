// Why a guest ended, or did not come up.

import type { GuestConsole } from './console.js'
import { QemuError } from './errors.js'
import type { QemuExit } from './process.js'
import { unsupported } from './unsupported.js'

/** A boot that was given up because it had gone silent. */
export interface BootRestart {
  /** 1 for the first boot. */
  attempt: number
  afterMs: number
  lastLines: string[]
}

/** What a kernel prints when it panics. */
export const PANIC = /Kernel panic - .*/
/** How far from the console's end a panic is looked for: the kernel prints its stack after it. */
const PANIC_LINES = 200

/** QEMU is gone: EXITED, PANIC or UNSUPPORTED. */
export function exitedError({ code, signal, output }: QemuExit, guestConsole: GuestConsole): QemuError {
  const how = signal ? `was killed by ${signal}` : code === null ? 'did not start' : `exited with status ${code}`
  const end = `QEMU ${how}${output && `: ${output}`}`
  const console = guestConsole.tail()
  if (signal) return new QemuError({ code: 'EXITED', subject: '', what: end, console })
  const lacks = unsupported(output)
  if (lacks) return new QemuError({ code: 'UNSUPPORTED', subject: '', what: `${lacks.what} (${end})`, next: lacks.next, console })
  const panic = guestConsole
    .tail(PANIC_LINES)
    .flatMap((line) => PANIC.exec(line) ?? [])
    .at(-1)
  if (panic === undefined) return new QemuError({ code: 'EXITED', subject: '', what: end, console })
  return new QemuError({ code: 'PANIC', subject: '', what: `${panic}; ${end}`, console })
}

/** Why a wait for the guest ended, as the reason why the boot failed. */
export function bootError({ code, what, next, cause }: QemuError, console: readonly string[]): QemuError {
  return new QemuError({ code, op: 'boot', subject: '', what, next, cause, console })
}

export function panicError(panic: string, console: readonly string[]): QemuError {
  return new QemuError({ code: 'PANIC', op: 'boot', subject: '', what: panic, console })
}

/** No line came for `timeoutMs`. */
export function silenceError(timeoutMs: number): QemuError {
  return new QemuError({ code: 'BOOT_SILENT', op: 'boot', subject: '', what: `the console was silent for ${timeoutMs} ms` })
}

/** The console went silent in each boot. */
export function silentError(restarts: readonly BootRestart[]): QemuError {
  const times = restarts.map(({ afterMs }) => `${Math.round(afterMs)} ms`).join(', ')
  return new QemuError({
    ...{ code: 'BOOT_SILENT', op: 'boot', subject: '', retryable: true },
    what: `the console went silent in each of ${restarts.length} attempts, given up after ${times}`,
    next: 'A busy host may need a longer silenceTimeoutMs.',
    console: restarts.at(-1)!.lastLines,
  })
}
