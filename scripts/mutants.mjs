// Do the tests notice damage? Puts one fault at a time into the sources (in memory, while vitest loads them) and runs the tests
// that run the faulty line. A fault that no test notices is a hole.
//
//   npm run mutants                    all faults
//   npm run mutants -- fact-7          those whose name contains that; several words narrow it down
//   npm run mutants -- --sample        the first fault of each source file
//   npm run mutants -- --sample --part=1/3  those of every third package; 2/3 and 3/3: of the others
//   npm run mutants -- --json=<file>   writes a report there
//   npm run mutants -- --stale         only looks whether each line is still there
//
// Faults that carry a fact's number break what a numbered fact of the protocol asks for (docs/protocol.md).
//
// The first run is without faults. It tells which test files run which fault's line, and how long they take. That gives the time
// of a fault's run. A run that needs more is cut off. A test that does not end fails by its own limit (testTimeout), so a run that
// is cut off proves nothing, except where a fault blocks the whole process: such a fault says `hangs: true`.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { runTests, traceTests } from './mutant-run.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/** All of scripts/faults, a file for each package. */
const faults = []
for (const file of readdirSync(new URL('faults/', import.meta.url)).sort()) {
  if (file !== 'faults-in.mjs') faults.push(...(await import(`./faults/${file}`)).default)
}

const args = process.argv.slice(2)
const unknown = args.find((arg) => arg.startsWith('--') && !/^--(sample|stale|part=[1-9]\/[1-9]|json=.+)$/.test(arg))
if (unknown !== undefined) {
  console.error(`mutants: unknown option ${unknown}; there are --sample, --part=1/3 (and so on), --stale and --json=<file>`)
  process.exit(2)
}
const json = args.find((arg) => arg.startsWith('--json='))?.slice('--json='.length)
const wanted = args.filter((arg) => !arg.startsWith('--'))
const named = faults.filter(({ name }) => wanted.every((word) => name.includes(word)))
const isFirstOfFile = ({ file }, index) => named.findIndex((fault) => fault.file === file) === index
const sample = args.includes('--sample') ? named.filter(isFirstOfFile) : named
const part = args.find((arg) => arg.startsWith('--part='))?.slice('--part='.length)
const chosen = part === undefined ? sample : partOf(sample, ...part.split('/').map(Number))
const broken = chosen.filter(
  ({ file, find }) => !existsSync(`${root}${file}`) || readFileSync(`${root}${file}`, 'utf8').split(find).length < 2,
)
for (const { name, file } of broken) console.log(`STALE    ${name}: its line is no longer in ${file}`)

if (chosen.length === 0) {
  const words = wanted.map((word) => JSON.stringify(word)).join(' and ')
  console.error(words === '' ? `mutants: --part=${part} has no faults` : `mutants: no fault's name contains ${words}`)
  process.exit(2)
}
if (args.includes('--stale')) process.exit(broken.length === 0 ? 0 : 1)

/**
 * Faults for which the same tests are needed stay together: the first run is of those alone. Their groups are dealt out, the largest first,
 * so that the parts are of about one size.
 */
function partOf(all, turn, parts) {
  const names = [...new Set(all.map(({ projects }) => projects.at(-1)))]
  const groups = names.map((name) => all.filter(({ projects }) => projects.at(-1) === name))
  const dealt = Array.from({ length: parts }, () => [])
  for (const group of groups.sort((a, b) => b.length - a.length))
    dealt.reduce((least, one) => (one.length < least.length ? one : least)).push(...group)
  return dealt[turn - 1] ?? []
}

let [noticed, alive, cutOff] = [0, broken.length, 0]
const started = performance.now()
const faulty = chosen.filter((fault) => !broken.includes(fault))
const projects = [...new Set(faulty.flatMap((fault) => fault.projects))]
const without = faulty.length === 0 ? undefined : await traceTests(projects, faulty)
if (without?.green === false) {
  console.error(`mutants: the tests of ${projects.join(', ')} fail without any fault; run npm test first`)
  for (const failure of without.failures) console.error(`  ${failure}`)
  process.exit(1)
}
if (without !== undefined) console.log(`mutants: without faults ${without.files.size} test files pass, after ${seconds()}`)

/** Puts one fault in and says what its tests make of it. */
async function judge({ name, projects, hangs, ...mutant }, tests) {
  const { failed, cutOff: late } =
    tests.length === 0 ? { failed: 0, cutOff: false } : await runTests(projects, mutant, tests, without)
  if (failed > 0) {
    noticed++
    console.log(`noticed  ${name}`)
  } else if (late && hangs) {
    noticed++
    console.log(`noticed  ${name} (hangs)`)
  } else if (late) {
    cutOff++
    console.log(`CUT OFF  ${name}: no test failed in time`)
  } else {
    alive++
    console.log(`SURVIVED ${name}${tests.length === 0 ? ': no test runs its line' : ''}`)
  }
}

const turns = faulty.entries()
async function takeTurns() {
  for (const [id, fault] of turns) await judge(fault, without.testsOf(id))
}
await Promise.all(Array.from({ length: availableParallelism() }, takeTurns))

function seconds() {
  return `${Math.round((performance.now() - started) / 1000)} s`
}

console.log(`mutants: ${noticed} noticed, ${alive} alive, ${cutOff} cut off, in ${seconds()}`)
if (json !== undefined) writeFileSync(json, JSON.stringify({ numPassedTests: noticed, numFailedTests: alive + cutOff }))
process.exitCode = alive + cutOff === 0 ? 0 : 1
