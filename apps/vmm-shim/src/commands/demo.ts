import { accessSync, constants, existsSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { errnoOf, messageFor } from '@upcall/foundation/error'
import { type DemoOptions, runDemo } from '../demo/demo.js'
import { runRealDemo } from '../demo/real.js'
import { type RecordedLine, toSvg } from '../demo/recording.js'
import { type Line, toAnsi } from '../demo/text.js'
import { nextSignal } from './signals.js'
import { UsageError } from './usage-error.js'

const STATUS: Readonly<Record<string, number>> = { SIGINT: 130, EPIPE: 141, SIGTERM: 143 }

/** The options of a test. */
export type Overrides = Pick<DemoOptions, 'sabotage' | 'patienceMs' | 'silenceMs' | 'bootMs' | 'guestEntry' | 'clock'>

export interface DemoFlags {
  qemu?: true
  cacheDir?: string
  fast?: true
  record?: string
}

export interface DemoStreams {
  stdout: {
    write(text: string): unknown
    isTTY?: boolean | undefined
    on?(event: 'error', listener: (error: NodeJS.ErrnoException) => void): unknown
  }
  stderr: { write(text: string): unknown }
}

/**
 * Plays the demo on stdout. Resolves with the exit status: 0; 1 if a step fails; as in a shell, 130 after SIGINT, 143 after SIGTERM,
 * and 141 if stdout has no reader any more.
 */
export async function demo(
  { qemu, cacheDir, fast, record }: DemoFlags,
  { stdout, stderr }: DemoStreams = process,
  overrides: Overrides = {},
): Promise<number> {
  // A file that cannot be written is told before the demo, not after it.
  if (record !== undefined) checkRecord(record)
  const colour = stdout.isTTY === true && (process.env.NO_COLOR ?? '') === ''
  const recording: RecordedLine[] = []
  const started = performance.now()
  using stop = nextSignal()
  const interrupted = new AbortController()
  void stop.signalled.then((signal) => interrupted.abort(signal))
  stdout.on?.('error', ({ code }) => interrupted.abort(code))
  try {
    const show = (line: Line) => {
      recording.push({ at: performance.now() - started, line })
      stdout.write(`${toAnsi(line, colour)}\n`)
    }
    const real = () => runRealDemo({ show, cacheDir, signal: interrupted.signal })
    const simulated = () =>
      runDemo({
        show,
        ...(fast && { sleep: async () => {}, bootMs: 200 }),
        signal: interrupted.signal,
        ...overrides,
      })
    const { failed } = await (qemu ? real() : simulated())
    if (failed) {
      stderr.write(`vmm-shim demo: step "${failed.step}" failed: ${messageFor(failed.error)}\n`)
      return 1
    }
    if (record !== undefined) writeFileSync(record, toSvg(recording, qemu ? 'npm run demo -- --qemu' : 'npm run demo'))
    return 0
  } catch (error) {
    if (interrupted.signal.aborted) return STATUS[interrupted.signal.reason as string] ?? 1
    throw error
  }
}

function checkRecord(path: string): void {
  try {
    accessSync(existsSync(path) ? path : dirname(path), constants.W_OK)
  } catch (error) {
    throw new UsageError(`--record ${path}: cannot be written (${errnoOf(error)}). Give a file that can be written.`)
  }
}
