import { basename, dirname, join } from 'node:path'

// Finds the addon of a package, for all that have one: each puts this file into its bundle.

/** A package's addon, and what is said where there is none. */
export interface Addon {
  readonly npmPackage: string
  /** Its file's name. */
  readonly file: string
  readonly apiVersion: number
  /** Environment variable that names a file to load instead of the two usual places: for bundlers, and for builds with a sanitizer. `none` is off. */
  readonly variable: string
  /** What it is there for; begins a sentence. */
  readonly purpose: string
  /** What systems other than Linux do not have. */
  readonly needs: string
  /** What else the reader can do. */
  readonly otherWays?: string
}

/** One file that was tried, and why it did not do. */
export interface Attempt {
  readonly path: string
  readonly reason: string
}

/** Why there is no addon here. The message reads `<what>; <next>`. */
export class AddonError extends Error {
  override readonly name = 'AddonError'
  readonly code = 'ERR_ADDON_UNAVAILABLE'
  readonly what: string
  /** What the reader can do about it. */
  readonly next: string
  /** In the order of trying; empty where the platform rules the addon out. */
  readonly tried: readonly Attempt[]

  constructor(what: string, next: string, tried: readonly Attempt[] = [], cause?: unknown) {
    super(`${what}; ${next}`, cause === undefined ? undefined : { cause })
    this.what = what
    this.next = next
    this.tried = tried
  }
}

/** What the loader looks at; tests pass their own. */
export interface Host {
  readonly platform: string
  readonly arch: string
  readonly versions: Readonly<Record<string, string | undefined>>
  readonly env: Readonly<Record<string, string | undefined>>
  /** The package's file that asks, in its src/native or in dist. */
  readonly file: string
  readonly dlopen: (module: { exports: unknown }, path: string) => void
}

/**
 * Loads the addon: a local build if there is one, else the prebuilt one for this platform.
 *
 * @throws {AddonError} where there is none, or none can be.
 */
export function findAddon<Binding extends { readonly API_VERSION: number }>(addon: Addon, host: Host): Binding {
  const { apiVersion, purpose, otherWays } = addon
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
  throw new AddonError(
    [
      `the ${purpose} addon for ${host.platform}-${host.arch} did not load; tried`,
      ...tried.map(({ path, reason }) => `  ${path}: ${reason}`),
    ].join('\n'),
    `${howToGetIt(addon, host)}${otherWays === undefined ? '' : `; without it ${otherWays}`}`,
    tried,
  )
}

function howToGetIt({ npmPackage, file, variable }: Addon, host: Host): string {
  if (host.env[variable]) return `${variable} names it: set it to the path of ${file}, or unset it`
  const { isBundle, prebuilds } = places(host)
  const bring = `copy the package's prebuilds/ to ${prebuilds}, or set ${variable} to the path of ${file}`
  if (isBundle) return `this is a bundle, without the addon of ${npmPackage}: ${bring}`
  return (
    `reinstall ${npmPackage} (its package brings the addon for linux-x64 and linux-arm64), or in a checkout install a C compiler ` +
    `and run "npm run build"; in a bundle ${bring}`
  )
}

/**
 * Comes before any dlopen: neither Bun nor Deno runs on libuv, on whose event loop the addon watches descriptors, and what stands in for
 * it there (functions that abort, shims for single addons) may take the process along.
 */
function refuseWhatCannotWork(addon: Addon, { platform, versions: { bun, deno }, env }: Host): void {
  const { variable, purpose, needs, otherWays = 'run it on Linux' } = addon
  if (env[variable] === 'none') {
    throw new AddonError(`${purpose} is switched off by ${variable}=none`, orElse(addon, 'unset it'))
  }
  const runtime = bun ? 'Bun' : deno ? 'Deno' : undefined
  if (runtime) {
    const what = `${purpose} does not work under ${runtime}, which does not run on libuv's event loop`
    throw new AddonError(what, orElse(addon, 'run it with Node'))
  }
  if (platform !== 'linux') {
    const system = { darwin: 'macOS', win32: 'Windows' }[platform] ?? platform
    throw new AddonError(`${system} has no ${needs}`, otherWays)
  }
}

function addonsDisabled(addon: Addon, cause: unknown): AddonError {
  const what = `${addon.purpose} needs an addon, and this process may not load any (permission model or --no-addons)`
  return new AddonError(what, orElse(addon, 'start Node with --allow-addons and without --no-addons'), [], cause)
}

const orElse = ({ otherWays }: Addon, next: string): string => (otherWays === undefined ? next : `${next}, or ${otherWays}`)

function candidates({ file: name, variable }: Addon, host: Host): string[] {
  const chosen = host.env[variable]
  if (chosen) return [chosen]
  const { root, prebuilds } = places(host)
  return [join(root, 'build/Release', name), join(prebuilds, `${host.platform}-${host.arch}`, name)]
}

/** A package's own files are in its dist or src/native. The bundle of an application may be in a dist, too; its folder is beside that dist then. */
function places({ file }: Host): { isBundle: boolean; root: string; prebuilds: string } {
  const folder = dirname(file)
  const root = folder.endsWith('native') ? join(folder, '../..') : basename(folder) === 'dist' ? join(folder, '..') : folder
  return { isBundle: root === folder, root, prebuilds: join(root, 'prebuilds') }
}

/** What dlopen said, without the path it starts with. */
function dlopenReason(path: string, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  if (message.includes('No such file or directory')) return 'no such file'
  return message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message
}

/** The machine that this process runs on. */
export function thisHost(file: string): Host {
  const { platform, arch, versions, env } = process
  return { platform, arch, versions, env, file, dlopen: (module, path) => process.dlopen(module, path) }
}
