// The one way in: brings pnpm, installs what the lockfile says, then runs the task named on the command line. npm calls it (npm run
// demo, npm test, …), so that a fresh machine needs Node and npm and nothing else.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const { packageManager } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
const [task, ...args] = process.argv.slice(2)
const sources = ['packages', 'apps', 'tests']

/** A tool has said by itself what is wrong. */
class Failure extends Error {
  constructor(status) {
    super(`exited with ${status}`)
    this.status = status
  }
}

const tasks = {
  build: () => build(...args),
  demo() {
    build('--filter=@upcall/vmm-shim')
    node('apps/vmm-shim/dist/main.js', 'demo', ...args)
  },
  test() {
    build()
    exec('vitest', 'run', ...args)
  },
  lint() {
    all(
      () => exec('biome', 'check', ...args),
      () => node('scripts/check-words.mjs'),
      () => node('scripts/check-sizes.mjs'),
      () => node('scripts/check-c.mjs'),
      () => node('scripts/machines.mjs', '--check'),
      () => node('scripts/layers.mjs', '--check'),
      () => node('scripts/mutants.mjs', '--stale'),
      () => exec('depcruise', ...sources, '--config', '.dependency-cruiser.cjs', '--output-type', 'err'),
      () => exec('knip'),
      () => exec('eslint', '.'),
      () => exec('remark', '--quiet', '--frail', '--use', 'remark-validate-links=repository:false', '.'),
    )
  },
  typecheck: () => exec('turbo', 'run', 'typecheck', '--output-logs=errors-only', ...args),
  docs() {
    build()
    exec('typedoc', ...args)
  },
  bench() {
    build()
    node('--expose-gc', 'tests/bench/main.mjs', ...args)
  },
  /** In real guests, under QEMU: `npm run e2e -- vsock` for one suite. */
  e2e() {
    build()
    node('e2e/main.mjs', ...args)
  },
  mutants() {
    // Without the addons no test would notice a fault in what needs them.
    node('scripts/build-addons.mjs')
    node('scripts/mutants.mjs', ...args)
  },
  /** Publishes each package whose version the registry does not have yet. */
  release() {
    node('scripts/build-addons.mjs', '--release')
    build()
    exec('changeset', 'publish', ...args)
  },
  /** Only what every other task does first. */
  setup: () => {},
}

function build(...filters) {
  node('scripts/build-addons.mjs')
  exec('turbo', 'run', 'build', '--output-logs=errors-only', ...filters)
}

/** Takes all steps, so that one run shows everything that is wrong, and then fails if one of them has. */
function all(...steps) {
  const failures = []
  for (const step of steps) {
    try {
      step()
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
}

/** A tool of the workspace, found by pnpm. */
function exec(...argv) {
  pnpm('exec', ...argv)
}

function pnpm(...argv) {
  const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' }
  // What an npx around this run was told to bring (npx -p node@24 npm test) is not for the npx below.
  delete env.npm_config_package
  run('npx', ['-y', packageManager, ...argv], { env, shell: process.platform === 'win32' })
}

function node(...argv) {
  run(process.execPath, argv)
}

function run(command, argv, options) {
  const { status, error } = spawnSync(command, argv, { cwd: root, stdio: 'inherit', ...options })
  if (error) throw error
  if (status !== 0) throw new Failure(status ?? 1)
}

if (!Object.hasOwn(tasks, task ?? '')) {
  console.error(`run: unknown task ${task === undefined ? '' : JSON.stringify(task)}; one of: ${Object.keys(tasks).join(', ')}`)
  process.exit(2)
}
try {
  // Warnings are left out: in a fresh clone the programs that it links are yet to be built, and it warns of each.
  pnpm('install', '--frozen-lockfile', '--prefer-offline', '--reporter=append-only', '--loglevel=error')
  tasks[task]()
} catch (error) {
  if (!(error instanceof Failure)) throw error
  process.exitCode = error.status
}
