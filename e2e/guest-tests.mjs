import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runInGuest } from '@upcall/qemu'
import { fillPayload } from './payload.mjs'

/** Three attempts, the first two of which may go silent, on a machine with other work to do. */
const BOOT_DEADLINE_MS = 180_000
const HARNESS = ['guest/reporter.mjs', 'guest/progress.mjs']
const CONSOLE_LINES = 120
const LOGS = fileURLToPath(new URL('../.cache/e2e', import.meta.url))

/**
 * Boots a guest and runs one program of node:test in it; what its reporter (guest/reporter.mjs) sends is counted in `checks`, and so is
 * the run itself: a guest that hangs, panics or ends early is a failure of its own, which comes with the test that was running and
 * the end of the console. The whole console is in .cache/e2e/<name>.log.
 *
 * @param options - `name`, `image`, `payload` (see `fillPayload`), `program` at the top of it and its `args`, `timeoutMs` for all its tests,
 * `boot`: more options for the guest.
 */
export async function runGuestTests(checks, { name, image, payload, program, args = [], timeoutMs, boot }) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-e2e-'))
  const payloadDir = join(folder, 'payload')
  const log = consoleLog(name)
  const results = new Results(checks, name)
  await checks.check(`${name}: a guest boots, runs ${program} and powers off`, async () => {
    try {
      fillPayload(payloadDir, { ...payload, programs: [...HARNESS, ...payload.programs] })
      const { timings, exitStatus, restarts } = await runInGuest({
        ...{ image, payloadDir, timeoutMs, log, memory: '512M', cpus: 2, bootTimeoutMs: BOOT_DEADLINE_MS },
        command: [
          'node',
          '--import=./progress.mjs',
          '--test-reporter=./reporter.mjs',
          '--test-reporter-destination=stdout',
          program,
          ...args,
        ],
        onLine: (line) => results.take(line),
        onRestart: ({ attempt, afterMs }) => note(`boot ${attempt} went silent, started again after ${Math.round(afterMs)} ms`),
        ...boot,
      })
      const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`
      note(`booted in ${seconds(timings.bootMs)} (${restarts.length} silent boots), tests took ${seconds(timings.commandMs)}`)
      results.checkEnd(exitStatus)
    } catch (error) {
      if (results.running) note(`running at the end: ${results.running}`)
      printConsole(log)
      throw error
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
}

/** Where the console of a guest of that name goes. */
export function consoleLog(name) {
  mkdirSync(LOGS, { recursive: true })
  return join(LOGS, `${name}.log`)
}

class Results {
  running
  #checks
  #name
  #passed = 0
  #failed = 0

  constructor(checks, name) {
    this.#checks = checks
    this.#name = name
  }

  /** One line from the guest: the reporter's JSON, or what a test printed. */
  take(line) {
    const { event, name, ms, text } = parse(line)
    if (event === 'start') this.running = name
    else if (event === 'pass') {
      this.#passed += 1
      this.#checks.passed(`${this.#name}: ${name}`, ms)
    } else if (event === 'fail') {
      this.#failed += 1
      this.#checks.failed(`${this.#name}: ${name}`, ms, text)
    } else note(text)
  }

  /** Node's status says the same as the results, or some are missing. */
  checkEnd(exitStatus) {
    if (this.#passed + this.#failed === 0) throw new Error(`no test ran; exit status ${exitStatus}`)
    if (exitStatus !== (this.#failed === 0 ? 0 : 1)) {
      throw new Error(`exit status ${exitStatus} after ${this.#passed} passed and ${this.#failed} failed tests`)
    }
  }
}

function parse(line) {
  try {
    const value = JSON.parse(line)
    return typeof value?.event === 'string' ? value : { event: 'text', text: line }
  } catch {
    return { event: 'text', text: line }
  }
}

function note(text) {
  console.log(`  # ${text.replaceAll('\n', '\n  # ')}`)
}

export function printConsole(log) {
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n')
  note(`the last ${Math.min(CONSOLE_LINES, lines.length)} of ${lines.length} console lines (all of them: ${log}):`)
  for (const line of lines.slice(-CONSOLE_LINES)) console.log(`  | ${line.trimEnd()}`)
}
