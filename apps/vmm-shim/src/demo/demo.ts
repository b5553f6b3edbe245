import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Clock, systemClock } from '@upcall/client'
import type { Fault } from '@upcall/vmm/simulated'
import { startShim } from '../guest/shim.js'
import { type DemoResult, Stage } from './stage.js'
import { STEPS } from './steps.js'
import type { Line } from './text.js'

export interface DemoOptions {
  show(line: Line): void
  /** Resolves `ms` later. Default: the platform's timers. Tests pass a function that does not wait. */
  sleep?: ((ms: number) => Promise<void>) | undefined
  /** How long the guest boots, in milliseconds. Default 1200. */
  bootMs?: number | undefined
  /** How long one wait may take before its step fails, in milliseconds. Default 10,000. */
  patienceMs?: number | undefined
  /** How long the guest has to be silent before it counts as busy with a request, in milliseconds. Default 150. */
  silenceMs?: number | undefined
  guestEntry?: URL | undefined
  /** The clock of `patienceMs`. Default: the platform's. */
  clock?: Clock | undefined
  signal?: AbortSignal | undefined
  /** Breaks the guest before the step of this name, to show that the step notices. */
  sabotage?: { step: string; fault: Fault } | undefined
}

/** Plays all steps with a VMM that it starts. Leaves nothing open. */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { show, patienceMs = 10_000, silenceMs, bootMs = 1_200, clock = systemClock, sabotage, signal, guestEntry } = options
  const directory = mkdtempSync(join(tmpdir(), 'vmm-demo-'))
  const api = join(directory, 'api.sock')
  const { sleep = (ms: number) => delay(ms, undefined, { signal }) } = options
  const stage = new Stage({ api, patienceMs, silenceMs, clock, signal, show, sleep })
  try {
    await using shim = await startShim({
      ...{ uds: join(directory, 'vm.sock'), api, arch: 'x86_64', bootMs, guestEntry, clock },
      replyTimeouts: { cpuMs: patienceMs, otherMs: patienceMs },
      reconcileMs: patienceMs + bootMs,
    })
    stage.show(
      { text: ' vmm-shim demo', style: 'bold' },
      { text: ': a VMM hotplugs into a running guest over vsock, without ACPI', style: 'dim' },
    )
    return await stage.play(STEPS, { stage, shim }, async (name) => {
      if (sabotage?.step === name) await shim.machine.break(sabotage.fault)
    })
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
