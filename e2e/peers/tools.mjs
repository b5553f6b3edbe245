// Programs that others wrote are built here, with small ones of ours around them: found tools, kept results, nothing in the sources' folders.
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, delimiter, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Everything that is built or downloaded for the suite `peers`: kept until its sources change. */
export const CACHE = fileURLToPath(new URL('../../.cache/peers', import.meta.url))

/** The tools, where else than in PATH they are usually found, and how to get them. */
const TOOLS = {
  cargo: { folders: [join(homedir(), '.cargo/bin')], next: 'Install Rust 1.85 or later, as https://rustup.rs says' },
  go: { folders: ['/usr/local/go/bin'], next: 'Install Go 1.26 or later, as https://go.dev/doc/install says' },
  cc: { folders: [], next: 'On Debian: apt-get install gcc libc6-dev' },
  rustc: { folders: [join(homedir(), '.cargo/bin')], next: 'Install Rust 1.85 or later, as https://rustup.rs says' },
  'aarch64-linux-gnu-gcc': { folders: [], next: 'On Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross' },
  'qemu-aarch64': { folders: [], next: 'On Debian: apt-get install qemu-user' },
  make: { folders: [], next: 'On Debian: apt-get install make' },
  perl: { folders: [], next: 'On Debian: apt-get install perl' },
}

/** The path of a tool; undefined if it is not installed. */
export function findTool(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...TOOLS[name].folders]
  return folders.map((folder) => join(folder, name)).find(isExecutable)
}

/** What is missing of these tools and how to get it, in one or two sentences; undefined if nothing is missing. */
export function missingPeerTools(...names) {
  const missing = names.filter((name) => findTool(name) === undefined)
  if (missing.length === 0) return undefined
  return `${missing.join(', ')}: not found. ${missing.map((name) => TOOLS[name].next).join('. ')}.`
}

/**
 * The folder with what `build` made. It is made once for each state of the sources: the contents of `sources` (files and folders),
 * `salt`, and what `tool --version` says are the key. Older results of the same name are removed.
 *
 * @param options - `name`, `sources`, `tool` (of TOOLS), `salt`: what else the result depends on, such as flags.
 * `build({ output, work })` fills the folder `output`; `work` is a folder that stays between builds, for the tool's own cache.
 */
export async function built({ name, sources, tool, salt = '', build }) {
  const output = join(CACHE, `${name}-${keyOf(sources, tool, salt)}`)
  if (existsSync(output)) return output
  const work = join(CACHE, 'work', name)
  const unfinished = `${output}.${process.pid}`
  for (const folder of [work, unfinished]) mkdirSync(folder, { recursive: true })
  const started = performance.now()
  try {
    await build({ output: unfinished, work })
    renameSync(unfinished, output)
  } finally {
    rmSync(unfinished, { recursive: true, force: true })
  }
  console.log(`# ${name}: built in ${((performance.now() - started) / 1000).toFixed(0)} s`)
  for (const entry of readdirSync(CACHE)) {
    if (entry !== basename(output) && new RegExp(`^${name}-[0-9a-f]{16}$`).test(entry))
      rmSync(join(CACHE, entry), { recursive: true })
  }
  return output
}

function keyOf(sources, tool, salt) {
  const hash = createHash('sha256').update(`${salt}\n`)
  // `go` knows only the word without the dashes.
  if (tool) hash.update(execFileSync(findTool(tool), [tool === 'go' ? 'version' : '--version']))
  for (const source of sources)
    for (const file of filesOf(source)) hash.update(`${relative(source, file)}\n`).update(readFileSync(file))
  return hash.digest('hex').slice(0, 16)
}

function filesOf(path) {
  try {
    const entries = readdirSync(path, { withFileTypes: true })
    return entries.flatMap(({ name }) => filesOf(join(path, name))).sort()
  } catch (error) {
    if (error.code === 'ENOTDIR') return [path]
    throw error
  }
}

/** These programs are not debugged, so they are built without information for debuggers. */
const CARGO = { CARGO_PROFILE_DEV_DEBUG: '0', CARGO_INCREMENTAL: '0' }

/** Runs a tool of TOOLS to its end; rejects with the last lines that it wrote, if it fails. */
export async function runTool(name, args, { cwd, env, timeoutMs = 1_500_000 } = {}) {
  const child = spawn(findTool(name), args, {
    ...{ cwd, env: { ...process.env, ...(name === 'cargo' && CARGO), ...env }, timeout: timeoutMs },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [stdout, tail] = ['', '']
  child.stdout.on('data', (chunk) => (stdout += chunk))
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (tail = `${tail}${chunk}`.slice(-4000)))
  const [status, signal] = await once(child, 'close')
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ended with ${status ?? signal}\n${tail}`)
  return stdout
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
