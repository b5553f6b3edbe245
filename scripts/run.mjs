// The one way in: brings pnpm, installs what the lockfile says, then runs the root task named on the command line.
// npm calls it (npm run demo, npm test, …), so that a fresh machine needs Node and npm and nothing else.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

const root = new URL('..', import.meta.url)
const { packageManager } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
const [task, ...args] = process.argv.slice(2)

function pnpm(...argv) {
  const env = { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' }
  const { status, signal, error } = spawnSync('npx', ['-y', packageManager, ...argv], { cwd: root, stdio: 'inherit', env, shell: process.platform === 'win32' })
  if (error) throw error
  if (status !== 0) process.exit(signal ? 1 : status)
}

const tasks = {
  build: () => build(),
  demo: () => {
    build('--filter=@upcall/vmm-shim')
    node('apps/vmm-shim/dist/main.js', 'demo', ...args)
  },
  test: () => {
    build()
    exec('vitest', 'run', ...args)
  },
  lint: () => {
    exec('biome', 'check', ...args)
  },
  typecheck: () => exec('turbo', 'run', 'typecheck', '--output-logs=errors-only', ...args),
}

function build(...filters) {
  exec('turbo', 'run', 'build', '--output-logs=errors-only', ...filters)
}
function exec(...argv) {
  pnpm('exec', ...argv)
}
function node(...argv) {
  const { status, signal } = spawnSync(process.execPath, argv, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(signal ? 1 : status)
}

if (!Object.hasOwn(tasks, task)) {
  console.error(`run: unknown task ${JSON.stringify(task)}; one of: ${Object.keys(tasks).join(', ')}`)
  process.exit(2)
}
pnpm('install', '--frozen-lockfile', '--prefer-offline', '--reporter=append-only', '--loglevel=warn')
tasks[task]()
