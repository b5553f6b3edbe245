// One run of vitest for mutants.mjs, in a process of its own that can be cut off.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** A fault's run may take this many times as long as the same tests take without a fault. */
const PATIENCE = 4
/** And one test so many times as long as the longest of these tests takes without a fault, and a bit. */
const TEST_PATIENCE = 10
const TEST_FLOOR_MS = 5_000

/**
 * Runs the tests of these projects without a fault and finds out what each fault's run needs.
 *
 * @param faults - Which ones; a fault's id is its index.
 * @returns `green` and `failures`. If it is green, also: `files`, by path, with the time of all and of the `longest` test in ms;
 * `testsOf(id)`, the test files that run the line of this fault, the quickest first; `startMs`, from the start of the process to
 * the first test; `testMs` and `hookMs`, the limits of a test and of a hook.
 */
export async function traceTests(projects, faults) {
  const folder = scratch()
  try {
    const places = join(folder, 'places.json')
    writeFileSync(places, JSON.stringify(faults.map(({ file, find, replace }, id) => ({ id, file, find, replace }))))
    const began = Date.now()
    const env = { UPCALL_MUTANT_MARKS: places, UPCALL_MUTANT_MARKS_FOLDER: folder }
    // What is tested there are built packages, which no fault reaches.
    const { green, lines, output } = await vitest([...projects.map(project), '--exclude=packages/**'], env)
    const failures = lines.flatMap(({ failed, file, errors = [] }) =>
      failed || errors.length > 0 ? [`${failed ?? file ?? 'vitest'}: ${errors}`] : [],
    )
    if (!green) return { green, failures: failures.length > 0 ? failures : [output] }
    const seen = readdirSync(folder)
      .filter((name) => name !== 'places.json')
      .map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')))
    const files = new Map(lines.filter(({ file }) => file !== undefined).map((line) => [line.file, line]))
    const quickest = seen.map(({ file }) => file).sort((a, b) => files.get(a).ms - files.get(b).ms)
    const seenBy = new Map(seen.map(({ file, seen }) => [file, new Set(seen)]))
    return {
      green,
      failures: [],
      files,
      testsOf: (id) => quickest.filter((file) => seenBy.get(file).has(id)),
      startMs: lines.find(({ started }) => started !== undefined)?.started - began,
      testMs: lines[0]?.testMs,
      hookMs: lines[0]?.hookMs,
    }
  } finally {
    remove(folder)
  }
}

/**
 * Runs these test files with a fault, until the first test fails.
 *
 * @param without - What {@link traceTests} found out.
 * @returns How many tests and hooks failed, and whether the run was cut off before it ended by itself. A fault that only breaks the
 * loading of a file makes no test fail.
 */
export async function runTests(projects, mutant, tests, without) {
  const times = tests.map((file) => without.files.get(file))
  const ms = times.reduce((sum, { ms }) => sum + ms, without.startMs)
  const testMs = Math.min(
    without.testMs,
    Math.ceil(TEST_PATIENCE * Math.max(...times.map(({ longest }) => longest)) + TEST_FLOOR_MS),
  )
  const env = { UPCALL_MUTANT: JSON.stringify(mutant), UPCALL_MUTANT_ORDER: JSON.stringify(tests), UPCALL_MUTANT_TEST_MS: testMs }
  const argv = [...projects.map(project), '--bail=1', '--maxWorkers=1', ...tests]
  const { lines, cutOff } = await vitest(argv, env, PATIENCE * ms + 2 * (testMs + without.hookMs))
  return { failed: lines.filter(({ failed }) => failed !== undefined).length, cutOff }
}

const project = (name) => `--project=${name}`

const running = new Set()
const folders = new Set()
process.on('exit', () => {
  running.forEach(kill)
  folders.forEach(remove)
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1))

/** Ends a run with all that its tests have started. */
function kill({ pid }) {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

/** A temporary folder, which is removed at the latest when this process ends. */
function scratch() {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-mutants-'))
  folders.add(folder)
  return folder
}

function remove(folder) {
  rmSync(folder, { recursive: true, force: true })
  folders.delete(folder)
}

async function vitest(argv, env, limitMs) {
  const folder = scratch()
  const report = join(folder, 'report')
  const child = spawn(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', '--reporter=./scripts/mutant-reporter.mjs', ...argv],
    {
      cwd: root,
      env: { ...process.env, ...env, UPCALL_MUTANT_REPORT: report },
      stdio: ['ignore', 'pipe', 'pipe'],
      // The leader of a group, so that it can be ended with its workers.
      detached: true,
    },
  )
  running.add(child)
  let cutOff = false
  const timer = limitMs === undefined ? undefined : setTimeout(cut, limitMs)
  function cut() {
    cutOff = true
    kill(child)
  }
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => (output = (output + text).slice(-4000)))
  try {
    const status = await new Promise((resolve, reject) => child.once('error', reject).once('exit', resolve))
    const text = existsSync(report) ? readFileSync(report, 'utf8') : ''
    // The last line of a run that was cut off may not be whole.
    const lines = text
      .slice(0, text.lastIndexOf('\n') + 1)
      .trim()
      .split('\n')
    return { green: status === 0, lines: lines.filter((line) => line !== '').map((line) => JSON.parse(line)), output, cutOff }
  } finally {
    clearTimeout(timer)
    running.delete(child)
    // What its tests have started and not ended.
    kill(child)
    remove(folder)
  }
}
