// The jobs of .ci/run. Each runs to its end even if one before it failed, so that one run shows all that is wrong.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findTool } from '../e2e/peers/tools.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const floors = JSON.parse(readFileSync(new URL('floors.json', import.meta.url), 'utf8'))

/** Unit tests run on each of these; the first is the oldest that `engines` allows. */
const NODES = ['20', '22', '24', '26']
/**
 * On these only the tests of what lies on Node's streams: all of them on each would take too long. State machines, whose tests are `left`, have
 * nothing of Node's. What a consumer gets is tried with the oldest Node and the newest. The globs are matched inside of a project.
 */
const PART = { nodes: ['22', '24', '26'], projects: ['vsock', 'tests', 'vhost-user', 'client', 'server', 'cli'] }
const LEFT = ['machine', 'completion', 'doctor', 'man'].map((folder) => `**/src/${folder}/**`)
const LEFT_BETWEEN = ['packages/**']

/** Debian packages, by what they are needed for. */
const COMPILE = ['gcc', 'libc6-dev']
/**
 * Real peers of the unit tests: systemd-socket-activate, a receiver for NOTIFY_SOCKET, Wireshark, promtool and Prometheus, the shells
 * that complete, and a reader of manual pages. Without them those tests are left out.
 */
const PEERS = ['systemd', 'python3-minimal', 'tshark', 'prometheus', 'bash-completion', 'zsh', 'fish', 'bsdutils', 'mandoc']
const FORMAT = ['clang-format']
const RELEASE = ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross', 'qemu-user', 'valgrind', 'libc6-dbg']
const MUSL = ['python3-pip']
const GUESTS = [
  'qemu-system-x86',
  'qemu-system-arm',
  'e2fsprogs',
  'xz-utils',
  'make',
  'libelf1',
  'socat',
  'chromium',
  'tshark',
  'fonts-dejavu-core',
]

/**
 * `run` gets a file for its report, in the shape of vitest's JSON reporter, and the arguments of the command line. `counts` says
 * that the job writes this report: its floor holds when the job runs without arguments.
 */
const jobs = {
  unit: { needs: [...COMPILE, ...PEERS], counts: true, run: (report, node) => unit(report, node) },
  demo: { needs: COMPILE, run: () => npm('demo', '--fast') },
  lint: { needs: [...COMPILE, ...FORMAT], run: () => npm('lint') },
  typecheck: { needs: [], run: () => npm('typecheck') },
  docs: { needs: COMPILE, run: () => npm('docs') },
  addon: { needs: [...COMPILE, ...RELEASE, ...MUSL], run: () => addon() },
  runtimes: { needs: [], run: () => runtimes() },
  e2e: { needs: [...COMPILE, ...RELEASE, ...GUESTS], counts: true, run: (report, ...suites) => e2e(report, suites) },
  mutants: { needs: COMPILE, counts: true, run: (report, ...words) => mutants(report, words) },
}

async function unit(report, node) {
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  if (process.versions.node.startsWith(`${node}.`)) return npm('test', ...reporters)
  // The build is the same for all: only the tests and the programs run on that Node.
  await npm('build')
  const on = (...argv) => run('npx', '-y', '-p', `node@${node}`, '--', 'node', ...argv)
  await on('--version')
  const projects = PART.nodes.includes(node) ? PART.projects.map((name) => `--project=${name}`) : []
  // The demo itself runs below.
  const left = [...(projects.length > 0 ? LEFT : []), ...(node === NODES.at(-1) ? [] : LEFT_BETWEEN), '**/demo/demo.test.ts']
  await on('node_modules/vitest/vitest.mjs', 'run', ...projects, ...left.map((glob) => `--exclude=${glob}`), ...reporters)
  await on('apps/vmm-shim/dist/main.js', 'demo', '--fast')
}

async function addon() {
  await npm('setup')
  await run('node', 'scripts/build-addons.mjs', '--release')
  await run('node', 'scripts/valgrind-addon.mjs')
  await npm('build', '--filter=@upcall/vsock')
  await run('node', 'scripts/musl-addon.mjs')
}

/** Bun and Deno. */
async function runtimes() {
  await npm('build', '--filter=@upcall/vsock')
  await run('node', 'tests/runtimes/main.mjs')
}

async function e2e(report, suites) {
  // Guest images are made of packages that apt downloads, by these lists. With images in the cache it does without.
  if (isRoot()) await run('apt-get', 'update', '-q').catch((error) => console.log(error.message))
  await npm('e2e', ...suites, `--json=${report}`)
}

/**
 * One fault of each source file of a third of the packages: all of them take longer than everything else together. The number of commits
 * says which third, so that the others have their turn. `npm run mutants` runs all.
 */
async function mutants(report, words) {
  await npm('mutants', ...(words.length > 0 ? words : ['--sample', `--part=${1 + (commits() % 3)}/3`]), `--json=${report}`)
}

/** What has its turn is chosen by the number of commits. */
const commits = () => Number(spawnSync('git', ['rev-list', '--count', 'HEAD'], { cwd: root, encoding: 'utf8' }).stdout)

const npm = (task, ...args) => run('npm', 'run', task, '--', ...args)

let child
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => {
    child?.kill(signal)
    process.exit(1)
  })

async function run(command, ...argv) {
  console.log(`$ ${[command, ...argv].join(' ')}`)
  const env = { ...process.env, CI: 'true', TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1', DEBIAN_FRONTEND: 'noninteractive' }
  child = spawn(command, argv, { cwd: root, stdio: 'inherit', env })
  const [status, signal] = await new Promise((resolve, reject) =>
    child.once('error', reject).once('exit', (...ended) => resolve(ended)),
  )
  child = undefined
  if (status !== 0) throw new Error(`${command} ${argv.join(' ')}: exited with ${status ?? signal}`)
}

const isRoot = () => process.getuid() === 0

async function install(packages) {
  const installed = (name) => spawnSync('dpkg', ['-s', name], { encoding: 'utf8' }).stdout?.includes('Status: install ok')
  const missing = packages.filter((name) => !installed(name))
  if (missing.length === 0) return
  if (!isRoot()) {
    console.log(`not root, so nothing is installed; missing: ${missing.join(' ')}`)
    return
  }
  await run('apt-get', 'update', '-q')
  await run('apt-get', 'install', '-qy', '--no-install-recommends', ...missing)
}

const [job, ...args] = process.argv.slice(2)
if (job !== undefined && !Object.hasOwn(jobs, job)) {
  console.error(`.ci/run: unknown job ${JSON.stringify(job)}; the jobs are ${Object.keys(jobs).join(', ')}`)
  process.exit(2)
}
if (job === 'unit' && !args.every((node) => NODES.includes(node))) {
  console.error(`.ci/run unit: must be Node ${NODES.join(', ')}, got ${args.join(' ')}`)
  process.exit(2)
}
if (args.length > 0 && !jobs[job].counts) {
  console.error(`.ci/run ${job}: takes no arguments, got ${args.join(' ')}`)
  process.exit(2)
}

/** What to run: each a job with its arguments, and whether that is the whole job. */
function plan() {
  const units = (nodes) => nodes.map((node) => ({ job: 'unit', args: [node], whole: true }))
  if (job === 'unit') return units(args.length > 0 ? args : NODES)
  if (job !== undefined) return [{ job, args, whole: args.length === 0 }]
  const [oldest, ...between] = NODES
  const newest = between.pop()
  // Of those between the oldest and the newest, each has its turn.
  const others = units([between[commits() % between.length], newest])
  const rest = Object.keys(jobs).filter((name) => name !== 'unit' && name !== 'e2e' && name !== 'mutants')
  const whole = (name) => ({ job: name, args: [], whole: true })
  // What finds most in the least time comes first.
  return [...units([oldest]), ...rest.map(whole), ...others, ...['e2e', 'mutants'].map(whole)]
}

/** The tests that a job has at least; those of programs in Rust and Go need their compilers, which no Debian package brings. */
function floorOf(job, [first]) {
  const { tests = floors[job], part, peers = {} } = floors[job] ?? {}
  if (job === 'unit') return PART.nodes.includes(first) ? part : tests
  const counted = Object.entries(peers).filter(([tool]) => findTool(tool) !== undefined)
  return counted.reduce((sum, [, tests]) => sum + tests, tests)
}

const folder = mkdtempSync(join(tmpdir(), 'upcall-ci-'))
const steps = plan()
const changes = () => spawnSync('git', ['status', '--porcelain'], { cwd: root, encoding: 'utf8' }).stdout
const changedBefore = changes()
const began = performance.now()
const seconds = (since) => Math.round((performance.now() - since) / 1000)
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`

const results = []
/** Runs one job and notes what it took and counted. */
async function record(name, counts, floor, work) {
  console.log(`\n=== ${name} (${clock(seconds(began))} since the start)`)
  const started = performance.now()
  const report = join(folder, `${name.replace(' ', '-')}.json`)
  const problems = []
  await work(report).catch((error) => problems.push(String(error.message)))
  let [passed, failed] = [0, 0]
  if (counts) {
    const counted = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : { numPassedTests: 0, numFailedTests: 0 }
    passed = counted.numPassedTests
    failed = counted.numFailedTests
    if (passed < floor) problems.push(`only ${passed} tests passed, at least ${floor} are expected`)
    rmSync(report, { force: true })
  }
  for (const problem of problems) console.log(`${name}: ${problem}`)
  // A job that fails without a failed test counts as one.
  if (problems.length > 0 && failed === 0) failed = 1
  results.push({ job: name, seconds: seconds(started), passed, failed, problems })
}

await record('debian packages', false, 0, () => install([...new Set(steps.flatMap(({ job }) => jobs[job].needs))]))
for (const { job, args, whole } of steps) {
  const name = [job, ...args].join(' ')
  await record(name, jobs[job].counts, whole ? floorOf(job, args) : 0, (report) => jobs[job].run(report, ...args))
}
await record('clean tree', false, 0, async () => {
  const changed = changes()
  if (changed !== changedBefore) throw new Error(`the run changed files of the repository:\n${changed}`)
})

const sum = (key) => results.reduce((total, result) => total + result[key], 0)
const durations = join(folder, 'durations.json')
writeFileSync(durations, `${JSON.stringify({ seconds: seconds(began), jobs: results }, undefined, 2)}\n`)
console.log('\njob              time   passed  failed')
for (const { job, seconds, passed, failed } of results)
  console.log(`${job.padEnd(16)}${clock(seconds).padStart(5)}${String(passed).padStart(9)}${String(failed).padStart(8)}`)
console.log(`\n${clock(seconds(began))} in all; the same in ${durations}`)
console.log(`${sum('passed')} passed, ${sum('failed')} failed`)
process.exitCode = sum('failed') === 0 ? 0 : 1
