import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FieldError, textOf } from '../error.js'

// Finds the addon of a package. Each package that has an addon puts this file into its bundle, and a user's bundler may put it into
// a program: then the package is not around it, and its addon is beside the program or nowhere.

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

/** The machines that packages bring their addon for. */
const PREBUILT: readonly string[] = ['linux-x64', 'linux-arm64']

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
  /** The file that asks: of the package, in its src/native or in dist, or of a program that the package was bundled into. */
  readonly file: string
  /** The name in a folder's package.json, if it has one. */
  readonly packageIn: (folder: string) => string | undefined
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

function howToGetIt(addon: Addon, host: Place): string {
  const { npmPackage, file, variable } = addon
  if (host.env[variable]) return `Set ${variable} to the path of ${file}, or unset it.`
  const compile = 'install a C compiler and run "npm run build"'
  if (!PREBUILT.includes(`${host.platform}-${host.arch}`))
    return (
      `${npmPackage} brings the addon for ${PREBUILT.join(' and ')}. For this machine, in a checkout, ${compile}, ` +
      `and set ${variable} to the path of that ${file}.`
    )
  const prebuild = prebuildOf(addon, host)
  const root = packageRoot(addon, host)
  if (root !== undefined)
    return (
      `Reinstall ${npmPackage}. If a tool copied it without its addon, copy the package's ${prebuild} ` +
      `to ${join(root, prebuild)}. In a checkout, ${compile}.`
    )
  return (
    `This is a bundle, which needs the addon of ${npmPackage} beside it: copy node_modules/${npmPackage}/${prebuild} ` +
    `to ${join(dirname(host.file), prebuild)}, or set ${variable} to its path.`
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

function candidates(addon: Addon, host: Place): string[] {
  const chosen = host.env[addon.variable]
  if (chosen) return [chosen]
  const root = packageRoot(addon, host)
  const prebuild = prebuildOf(addon, host)
  if (root !== undefined) return [join(root, 'build/Release', addon.file), join(root, prebuild)]
  // A bundler puts chunks of a program into a folder of their own.
  const folder = dirname(host.file)
  return [join(folder, prebuild), join(folder, '..', prebuild)]
}

/** Where a package's published files have the addon, and so beside a bundle. */
function prebuildOf({ file }: Addon, { platform, arch }: Place): string {
  return join('prebuilds', `${platform}-${arch}`, file)
}

/** The folder of the package, unless the file that asks is another program's bundle. */
function packageRoot({ npmPackage }: Addon, { file, packageIn }: Place): string | undefined {
  const folder = dirname(file)
  const root = basename(folder) === 'native' ? join(folder, '../..') : join(folder, '..')
  return packageIn(root) === npmPackage ? root : undefined
}

/** What dlopen said, which has no code, without the path that it starts with. */
function dlopenReason(path: string, error: unknown): string {
  const text = textOf(error)
  if (text.includes('No such file or directory')) return 'no such file'
  return text.startsWith(`${path}: `) ? text.slice(path.length + 2) : text
}

/**
 * The machine that this process runs on. `place` is the path or the `file:` URL of the file that asks. A bundler may leave none, or
 * one of the machine that it ran on: then it is the program that was started.
 */
export function thisHost(place: string | undefined): Host {
  const { platform, arch, versions, env, argv, execPath } = process
  const asks = place?.startsWith('file:') ? fileURLToPath(place) : place
  const file = asks !== undefined && existsSync(asks) ? asks : (argv[1] ?? execPath)
  const dlopen = (module: { exports: unknown }, path: string) => process.dlopen(module, path)
  return { platform, arch, versions, env, file, packageIn, dlopen }
}

function packageIn(folder: string): string | undefined {
  try {
    const { name } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: string }
    return name
  } catch {
    return
  }
}
