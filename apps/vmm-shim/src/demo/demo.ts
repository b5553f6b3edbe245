import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Clock, systemClock } from '@upcall/client'
import type { Fault } from '@upcall/vmm/simulated'
import type { Arch } from '@upcall/wire'
import { startShim } from '../guest/shim.js'
import { Stage } from './stage.js'
import { STEPS } from './steps.js'
import { type Line, type Row, table } from './text.js'

export interface DemoOptions {
  show(line: Line): void
  /** Resolves `ms` later. Default: the platform's timers. A test passes one that does not wait. */
  sleep?: ((ms: number) => Promise<void>) | undefined
  /** How long the guest boots, in milliseconds. Default 1200. */
  bootMs?: number | undefined
  /** How long anything may take before a step counts as failed, in milliseconds. Default 10,000. */
  patienceMs?: number | undefined
  guestEntry?: URL | undefined
  /** What patience is measured by. Default: the platform's. */
  clock?: Clock | undefined
  signal?: AbortSignal | undefined
  /** Breaks the guest before the step of this name, to see that the step notices. */
  sabotage?: { step: string; fault: Fault } | undefined
}

export interface DemoResult {
  /** The step that did not show what it is there to show, and why. */
  failed: { step: string; error: Error } | undefined
}

/** How long a beat is: so that the whole takes about ten seconds. */
const BEAT_MS = 140
const ARCH: Arch = 'x86_64'

/** Plays all steps against a VMM of its own, and ends with a table. Stops at the first step that fails. Leaves nothing behind. */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { show, patienceMs = 10_000, bootMs = 1_200, clock = systemClock, sabotage, signal } = options
  const directory = mkdtempSync(join(tmpdir(), 'vmm-demo-'))
  const api = join(directory, 'api.sock')
  let rested = 0
  const rest = async (beats: number) => {
    const before = performance.now()
    signal?.throwIfAborted()
    await (options.sleep ?? sleepFor(signal))(beats * BEAT_MS)
    rested += performance.now() - before
  }
  try {
    await using shim = await startShim({
      uds: join(directory, 'vm.sock'),
      api,
      arch: ARCH,
      bootMs,
      guestEntry: options.guestEntry,
      replyTimeouts: { cpuMs: patienceMs, otherMs: patienceMs },
      reconcileMs: patienceMs + bootMs,
      clock,
    })
    const stage = new Stage({ shim, api, patienceMs, clock, show, rest })
    const rows: Row[] = []
    show([
      { text: ' vmm-shim demo', style: 'bold' },
      { text: ': a VMM hotplugs into a running guest over vsock, without ACPI', style: 'dim' },
    ])
    for (const [at, { name, run }] of STEPS.entries()) {
      show([])
      show([
        { text: ` ${at + 1} `, style: 'cyan' },
        { text: name, style: 'bold' },
      ])
      const started = performance.now()
      rested = 0
      try {
        if (sabotage?.step === name) await shim.machine.break(sabotage.fault)
        const what = await run(stage)
        const ms = performance.now() - started - rested
        rows.push({ cells: [name, what, `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`], style: 'green' })
      } catch (error) {
        signal?.throwIfAborted()
        show([{ text: `   ✘ ${(error as Error).message}`, style: 'red' }])
        return { failed: { step: name, error: error as Error } }
      }
      await rest(1.5)
    }
    show([])
    for (const line of table(['step', 'what happened', 'time'], rows)) show(line)
    show([{ text: ` ✔ all ${STEPS.length} steps hold`, style: 'green' }])
    return { failed: undefined }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function sleepFor(signal: AbortSignal | undefined): (ms: number) => Promise<void> {
  return (ms) =>
    new Promise((resolve, reject) => {
      const onAbort = () => {
        clearTimeout(timer)
        reject(signal?.reason)
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      }, ms)
      signal?.addEventListener('abort', onAbort, { once: true })
    })
}
