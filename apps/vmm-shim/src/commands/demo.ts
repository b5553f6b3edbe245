import { writeFileSync } from 'node:fs'
import { runDemo } from '../demo/demo.js'
import { type RecordedLine, toSvg } from '../demo/recording.js'
import { toAnsi } from '../demo/text.js'
import { nextSignal } from './signals.js'

interface DemoFlags {
  fast?: true
  record?: string
}

/** Plays the demo on stdout. Status 1 if a step does not hold, 130 if it is interrupted. */
export async function demo({ fast, record }: DemoFlags): Promise<void> {
  const colour = process.stdout.isTTY === true && (process.env.NO_COLOR ?? '') === ''
  const recording: RecordedLine[] = []
  const started = performance.now()
  using stop = nextSignal()
  const interrupted = new AbortController()
  void stop.signalled.then((signal) => interrupted.abort(signal))
  try {
    const { failed } = await runDemo({
      show(line) {
        recording.push({ at: performance.now() - started, line })
        process.stdout.write(`${toAnsi(line, colour)}\n`)
      },
      ...(fast && { sleep: async () => {}, bootMs: 200 }),
      signal: interrupted.signal,
    })
    if (failed) {
      process.stderr.write(`vmm-shim demo: step "${failed.step}" does not hold: ${failed.error.message}\n`)
      process.exitCode = 1
    } else if (record !== undefined) {
      writeFileSync(record, toSvg(recording, 'npm run demo'))
    }
  } catch (error) {
    if (!interrupted.signal.aborted) throw error
    process.exitCode = 130
  }
}
