import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { API_VERSION, type Binding } from './binding.js'

/** Names an addon file to load instead of the two usual places: for bundlers, and for builds with a sanitizer. `none` is off. */
const ADDON_VARIABLE = 'UPCALL_VSOCK_ADDON'

const ADDON = 'upcall_vsock.node'
const OTHER_WAYS = 'use hvsock://<path>:<port> through the VMM’s Unix socket, or unix:<path>'

/** One file that was tried, and why it did not do. */
export interface Attempt {
  readonly path: string
  readonly reason: string
}

/** Why there is no AF_VSOCK here. The message reads `<what>; <next>`. */
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
  /** The file this code runs from, in src/native or in dist. */
  readonly file: string
  readonly dlopen: (module: { exports: unknown }, path: string) => void
}

let loaded: Binding | undefined

/**
 * The addon, loaded on first use: a local build if there is one, else the prebuilt one for this platform.
 *
 * @throws {AddonError} where there is none, or none can be.
 */
export function loadBinding(): Binding {
  loaded ??= findBinding(thisHost())
  return loaded
}

export function findBinding(host: Host): Binding {
  refuseWhatCannotWork(host)
  const tried: Attempt[] = []
  for (const path of candidates(host)) {
    const module: { exports: unknown } = { exports: {} }
    try {
      host.dlopen(module, path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ERR_DLOPEN_DISABLED') throw addonsDisabled(error)
      tried.push({ path, reason: dlopenReason(path, error) })
      continue
    }
    const { API_VERSION: version } = module.exports as Partial<Binding>
    if (version === API_VERSION) return module.exports as Binding
    tried.push({ path, reason: `has API version ${version}, this package needs ${API_VERSION}` })
  }
  throw new AddonError(
    [
      `the native AF_VSOCK addon for ${host.platform}-${host.arch} did not load; tried`,
      ...tried.map(({ path, reason }) => `  ${path}: ${reason}`),
    ].join('\n'),
    'reinstall @upcall/vsock (its package brings the addon for linux-x64 and linux-arm64), or in a checkout install a C compiler ' +
      `and run "npm run build", or set ${ADDON_VARIABLE}; without it ${OTHER_WAYS}`,
    tried,
  )
}

/**
 * Comes before any dlopen: neither Bun nor Deno runs on libuv, on whose event loop the addon watches descriptors, and what stands in for
 * it there (functions that abort, shims for single addons) may take the process along.
 */
function refuseWhatCannotWork({ platform, versions: { bun, deno }, env }: Host): void {
  if (env[ADDON_VARIABLE] === 'none') {
    throw new AddonError(`native AF_VSOCK is switched off by ${ADDON_VARIABLE}=none`, `unset it, or ${OTHER_WAYS}`)
  }
  const runtime = bun ? 'Bun' : deno ? 'Deno' : undefined
  if (runtime) {
    throw new AddonError(
      `native AF_VSOCK does not work under ${runtime}, which does not run on libuv’s event loop`,
      `run it with Node, or ${OTHER_WAYS}`,
    )
  }
  if (platform !== 'linux') {
    const system = { darwin: 'macOS', win32: 'Windows' }[platform] ?? platform
    throw new AddonError(`${system} has no AF_VSOCK, which is Linux only`, OTHER_WAYS)
  }
}

function addonsDisabled(cause: unknown): AddonError {
  return new AddonError(
    'native AF_VSOCK needs an addon, and this process may not load any (permission model or --no-addons)',
    `start Node with --allow-addons, without --no-addons, or ${OTHER_WAYS}`,
    [],
    cause,
  )
}

function candidates({ platform, arch, env, file }: Host): string[] {
  const chosen = env[ADDON_VARIABLE]
  if (chosen) return [chosen]
  const folder = dirname(file)
  const root = folder.endsWith('native') ? join(folder, '../..') : join(folder, '..')
  return [join(root, 'build/Release', ADDON), join(root, 'prebuilds', `${platform}-${arch}`, ADDON)]
}

/** What dlopen said, without the path it starts with. */
function dlopenReason(path: string, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  if (message.includes('No such file or directory')) return 'no such file'
  return message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message
}

function thisHost(): Host {
  const { platform, arch, versions, env } = process
  return { platform, arch, versions, env, file: thisFile(), dlopen: (module, path) => process.dlopen(module, path) }
}

/** CommonJS has `__filename` and, once bundled, no `import.meta.url`; in a module it is the other way round. */
function thisFile(): string {
  return typeof __filename === 'string' ? __filename : fileURLToPath(import.meta.url)
}
