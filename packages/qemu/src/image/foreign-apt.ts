import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ARCHES, type GuestArch } from '../arch.js'
import { QemuError } from '../errors.js'
import { discard, place } from './cache.js'
import { runTool } from './tools.js'

/** Older lists are fetched again. */
const FRESH_MS = 24 * 3_600_000

/**
 * Makes apt answer for another architecture without a change to this machine (`dpkg --add-architecture` would be one): with package lists
 * of its own below `cacheDir`, from the mirrors that apt is configured with, and a dpkg that has nothing installed. Resolves with
 * the arguments for apt. No rights are needed. Lists of an earlier day do if no new ones can be had.
 */
export async function foreignApt(arch: GuestArch, cacheDir: string, signal?: AbortSignal, now = Date.now()): Promise<string[]> {
  const state = resolve(cacheDir, `apt-${ARCHES[arch].debian}`)
  const age = now - (await madeAt(state))
  if (age >= FRESH_MS) {
    try {
      await update(arch, state, signal)
    } catch (error) {
      if (signal?.aborted || age === Number.POSITIVE_INFINITY) throw error
    }
  }
  return configuration(arch, state)
}

async function update(arch: GuestArch, state: string, signal: AbortSignal | undefined): Promise<void> {
  // Beside it, and put in place in one step: another process may be reading the old lists.
  const fresh = await mkdtemp(`${state}-`)
  try {
    await mkdir(join(fresh, 'lists/partial'), { recursive: true })
    await mkdir(join(fresh, 'cache/archives/partial'), { recursive: true })
    await writeFile(join(fresh, 'status'), '')
    await runTool('apt-get', [...configuration(arch, fresh), 'update', '-q'], { signal, timeoutMs: 300_000 })
    // To apt, a mirror that does not answer is a warning.
    const lists = await readdir(join(fresh, 'lists'))
    if (!lists.some((name) => name.includes(`binary-${ARCHES[arch].debian}_Packages`)))
      throw new QemuError({
        ...{ code: 'IMAGE', op: 'apt-get update', subject: '' },
        what: `there is no list of ${ARCHES[arch].debian} packages`,
        next: 'Check that a mirror is configured and reachable.',
      })
    await discard(state, `${fresh}-old`)
    await place(fresh, state, async () => (await madeAt(state)) !== Number.NEGATIVE_INFINITY)
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
}

/** When the lists were made; before all times if there are none. */
async function madeAt(state: string): Promise<number> {
  return stat(join(state, 'status')).then(
    ({ mtimeMs }) => mtimeMs,
    () => Number.NEGATIVE_INFINITY,
  )
}

/** Options of apt.conf(5). */
function configuration(arch: GuestArch, state: string): string[] {
  const { debian } = ARCHES[arch]
  const settings = {
    'APT::Architecture': debian,
    'APT::Architectures': debian,
    'Dir::State': state,
    'Dir::State::lists': join(state, 'lists'),
    'Dir::State::status': join(state, 'status'),
    'Dir::Cache': join(state, 'cache'),
  }
  return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`])
}
