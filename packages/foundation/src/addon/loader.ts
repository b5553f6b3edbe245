import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { FieldError, textOf } from '../error.js'

// Finds the addon of a package. Each package that has an addon puts this file into its bundle.

/** A package's addon, and what an error says where there is none. */
export interface Addon {
  readonly npmPackage: string
  /** Its file's name. */
  readonly file: string
  readonly apiVersion: number
  /**
   * Environment variable that names a file to load instead of the two usual places: for bundlers, and for builds with a sanitizer.
   * `none` switches the addon off.
   */
  readonly variable: string
  /** What it is there for, e.g. `native AF_VSOCK`. */
  readonly purpose: string
  /** What only Linux has, e.g. `AF_VSOCK`. */
  readonly needs: string
  /** What else the reader can do: a clause such as `use unix:<path>`. */
  readonly otherWays?: string
}

/** A file that was tried, and why it is of no use. */
export interface Attempt {
  readonly path: string
  readonly reason: string
}

/** Why there is no addon here. */
export class AddonError extends FieldError<'ERR_ADDON_UNAVAILABLE'> {
  override readonly name = 'AddonError'
  declare readonly next: string
  /** In the order of trying; empty where the platform rules the addon out. */
  readonly tried: readonly Attempt[]

  constructor(npmPackage: string, what: string, next: string, tried: readonly Attempt[] = [], cause?: unknown) {
    super({ code: 'ERR_ADDON_UNAVAILABLE', subject: npmPackage, what, next, cause })
    this.tried = tried
  }
}

/** What the loader looks at; tests pass their own. */
export interface Host {
  readonly platform: string
  readonly arch: string
  readonly versions: Readonly<Record<string, string | undefined>>
  readonly env: Readonly<Record<string, string | undefined>>
  /** The file of the package that asks, in its src/native or in dist. */
  readonly file: string
  readonly dlopen: (module: { exports: unknown }, path: string) => void
}

/** What says where the addon is. */
export type Place = Omit<Host, 'dlopen'>

/**
 * Loads the addon: a local build if there is one, else the prebuilt one for this platform.
 *
 * @throws {AddonError} where there is none, or none can be.
 */
export function findAddon<Binding extends { readonly API_VERSION: number }>(addon: Addon, host: Host): Binding {
  const { npmPackage, apiVersion, purpose, otherWays } = addon
  refuseWhatCannotWork(addon, host)
  const tried: Attempt[] = []
  for (const path of candidates(addon, host)) {
    const module: { exports: unknown } = { exports: {} }
    try {
      host.dlopen(module, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_DLOPEN_DISABLED') throw addonsDisabled(addon, error)
      tried.push({ path, reason: dlopenReason(path, error) })
      continue
    }
    const { API_VERSION: version } = module.exports as Partial<Binding>
    if (version === apiVersion) return module.exports as Binding
    tried.push({ path, reason: `has API version ${version}, this package needs ${apiVersion}` })
  }
  const reasons = tried.map(({ path, reason }) => `${path}: ${reason}`).join('; ')
  throw new AddonError(
    npmPackage,
    `the ${purpose} addon for ${host.platform}-${host.arch} did not load (tried ${reasons})`,
    howToGetIt(addon, host) + (otherWays === undefined ? '' : ` Without it, ${otherWays}.`),
    tried,
  )
}

/**
 * Where the file of the addon is, for programs that copy it, into a guest for one. The addon is not loaded.
 *
 * @throws {AddonError} where there is no file.
 */
export function locateAddon(addon: Addon, host: Place): string {
  refuseWhatCannotWork(addon, host)
  const paths = candidates(addon, host)
  const found = paths.find((path) => existsSync(path))
  if (found !== undefined) return found
  const tried = paths.map((path) => ({ path, reason: 'no such file' }))
  const what = `there is no ${addon.purpose} addon for ${host.platform}-${host.arch} (tried ${paths.join(', ')})`
  throw new AddonError(addon.npmPackage, what, howToGetIt(addon, host), tried)
}

function howToGetIt({ npmPackage, file, variable }: Addon, host: Place): string {
  if (host.env[variable]) return `Set ${variable} to the path of ${file}, or unset it.`
  const { isBundle, prebuilds } = places(host)
  const bring = `copy the package's prebuilds/ to ${prebuilds}, or set ${variable} to the path of ${file}.`
  if (isBundle) return `This is a bundle, without the addon of ${npmPackage}: ${bring}`
  return (
    `Reinstall ${npmPackage} (its package brings the addon for linux-x64 and linux-arm64), or in a checkout install a C compiler ` +
    `and run "npm run build". In a bundle, ${bring}`
  )
}

/**
 * Comes before any dlopen. Neither Bun nor Deno runs on libuv, on whose event loop the addon watches descriptors, and their
 * substitutes (functions that abort, shims for single addons) may kill the process.
 */
function refuseWhatCannotWork(addon: Addon, { platform, versions: { bun, deno }, env }: Place): void {
  const { npmPackage, variable, purpose, needs } = addon
  if (env[variable] === 'none')
    throw new AddonError(npmPackage, `${purpose} is switched off by ${variable}=none`, orElse(addon, 'Unset it'))
  const runtime = bun ? 'Bun' : deno ? 'Deno' : undefined
  if (runtime) {
    const what = `${purpose} does not work under ${runtime}, which does not run on libuv's event loop`
    throw new AddonError(npmPackage, what, orElse(addon, 'Run it with Node'))
  }
  if (platform !== 'linux') {
    const system = { darwin: 'macOS', win32: 'Windows' }[platform] ?? platform
    throw new AddonError(npmPackage, `${system} has no ${needs}`, orElse(addon, 'Run it on Linux'))
  }
}

function addonsDisabled(addon: Addon, cause: unknown): AddonError {
  const what = `${addon.purpose} needs an addon, and this process may not load any (permission model or --no-addons)`
  const next = orElse(addon, 'Start Node with --allow-addons and without --no-addons')
  return new AddonError(addon.npmPackage, what, next, [], cause)
}

const orElse = ({ otherWays }: Addon, next: string): string =>
  otherWays === undefined ? `${next}.` : `${next}, or ${otherWays}.`

function candidates({ file: name, variable }: Addon, host: Place): string[] {
  const chosen = host.env[variable]
  if (chosen) return [chosen]
  const { root, prebuilds } = places(host)
  return [join(root, 'build/Release', name), join(prebuilds, `${host.platform}-${host.arch}`, name)]
}

/** A package's own files are in its dist or src/native. Another program's bundle may be in a dist, too: then the folder is beside that. */
function places({ file }: Place): { isBundle: boolean; root: string; prebuilds: string } {
  const folder = dirname(file)
  const root = folder.endsWith('native') ? join(folder, '../..') : basename(folder) === 'dist' ? join(folder, '..') : folder
  return { isBundle: root === folder, root, prebuilds: join(root, 'prebuilds') }
}

/** What dlopen said, which has no code, without the path that it starts with. */
function dlopenReason(path: string, error: unknown): string {
  const text = textOf(error)
  if (text.includes('No such file or directory')) return 'no such file'
  return text.startsWith(`${path}: `) ? text.slice(path.length + 2) : text
}

/** The machine that this process runs on. */
export function thisHost(file: string): Host {
  const { platform, arch, versions, env } = process
  return { platform, arch, versions, env, file, dlopen: (module, path) => process.dlopen(module, path) }
}
