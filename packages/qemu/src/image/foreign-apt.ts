import { mkdir, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ARCHES, type GuestArch } from '../arch.js'
import { runTool } from './tools.js'

/** Lists older than that are fetched anew. */
const FRESH_MS = 24 * 3_600_000

/**
 * Makes apt answer for another architecture without a change to this machine, as `dpkg --add-architecture` would be one: with package lists
 * of its own below `cacheDir`, from the mirrors that apt is configured with, and a dpkg that has nothing installed. Resolves with
 * the arguments that tell apt so. No rights are needed.
 */
export async function foreignApt(arch: GuestArch, cacheDir: string, signal?: AbortSignal): Promise<string[]> {
  const state = resolve(cacheDir, `apt-${ARCHES[arch].debian}`)
  if (Date.now() - (await madeAt(state)) < FRESH_MS) return configuration(arch, state)
  // Beside it, and put in place in one step: somebody else may be reading the old lists.
  await mkdir(cacheDir, { recursive: true })
  const fresh = await mkdtemp(`${state}-`)
  try {
    await mkdir(join(fresh, 'lists/partial'), { recursive: true })
    await mkdir(join(fresh, 'cache/archives/partial'), { recursive: true })
    await writeFile(join(fresh, 'status'), '')
    await runTool('apt-get', [...configuration(arch, fresh), 'update', '-q'], { signal, timeoutMs: 300_000 })
    await rm(state, { recursive: true, force: true })
    await rename(fresh, state).catch(async (error) => {
      // Somebody else was faster.
      if ((await madeAt(state)) === 0) throw error
    })
  } finally {
    await rm(fresh, { recursive: true, force: true })
  }
  return configuration(arch, state)
}

/** 0 for what is not there. */
async function madeAt(state: string): Promise<number> {
  return stat(join(state, 'status')).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  )
}

/** Options of apt.conf(5). */
export function configuration(arch: GuestArch, state: string): string[] {
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
