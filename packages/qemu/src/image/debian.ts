import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { QemuError } from '../errors.js'
import { runTool } from './tools.js'

/** One package file as apt would fetch it. */
export interface DebianPackage {
  name: string
  /** The file's name in apt's own spelling. */
  file: string
  /** Bytes. */
  size: number
  sha256: string
}

/** How far a download is, in bytes. */
export interface DownloadAmount {
  readonly done: number
  readonly total: number
}

/** Hears of a download: as it begins, and each second. What it throws ends the download. */
export type OnDownload = (amount: DownloadAmount) => void

/** How apt is run. */
export interface AptOptions {
  /** Arguments in front of all others: for packages of another architecture, from `foreignApt`. Default: this machine's own apt. */
  configuration?: readonly string[] | undefined
  signal?: AbortSignal | undefined
  /** For the progress of downloads. Default: the platform's. */
  clock?: Clock | undefined
}

const UPDATE_HINT = 'Update the package list if it is old or missing: apt-get update'

/** `linux-image-cloud-amd64` → the package that holds the kernel. */
export async function kernelPackage(metaPackage: string, apt: AptOptions = {}): Promise<string> {
  const text = (await askApt('apt-cache', ['depends', '--important'], [metaPackage], apt)).toString()
  const name = /Depends: (linux-image-\S+)/.exec(text)?.[1]
  if (name !== undefined) return name
  // linux-image-6.12-cloud-amd64 is a meta package, linux-image-6.1.0-56-cloud-amd64 a kernel: only what they depend on tells.
  if (/^linux-image-\d/.test(metaPackage)) return metaPackage
  throw new QemuError({
    ...{ code: 'IMAGE', op: 'apt-cache', subject: metaPackage },
    ...{ what: 'it does not depend on a kernel', next: UPDATE_HINT },
  })
}

/** What the package itself depends on. */
export async function packageDependencies(name: string, apt: AptOptions = {}): Promise<string[]> {
  const text = (await askApt('apt-cache', ['depends', '--important'], [name], apt)).toString()
  return [...text.matchAll(/^ +(?:Pre)?Depends: ([^\s<>]+)$/gm)].map(([, dependency]) => dependency!)
}

/** The packages and all they depend on. */
export async function withDependencies(names: readonly string[], apt: AptOptions = {}): Promise<string[]> {
  const without = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'].map((kind) => `--no-${kind}`)
  const text = (await askApt('apt-cache', ['depends', '--recurse', '--important', ...without], names, apt)).toString()
  const found = packageNames(text)
  // Of several names, apt-cache passes over those that it does not know.
  if (!names.every((name) => found.includes(name))) await refuseUnknown(names, apt)
  return found
}

/** In what `apt-cache depends` prints, package names stand at the start of a line; what is indented or in <> is a relation or virtual. */
export function packageNames(text: string): string[] {
  return [...new Set([...text.matchAll(/^([a-z0-9][a-z0-9+.:-]*)$/gm)].map(([, name]) => name!))].sort()
}

/** What `apt-get download` would fetch for each package, by content. `emptyDir`: apt leaves out what lies there already. */
export async function resolvePackages(
  names: readonly string[],
  emptyDir: string,
  apt: AptOptions = {},
): Promise<DebianPackage[]> {
  if (names.length === 0) return []
  const text = (await askApt('apt-get', ['download', '--print-uris'], names, apt, { cwd: emptyDir })).toString()
  const packages = packageFiles(text)
  const missing = names.filter((name) => !packages.some((found) => found.name === name))
  if (missing.length > 0)
    throw new QemuError({
      ...{ code: 'IMAGE', op: 'apt-get', subject: missing.join(', ') },
      ...{ what: 'apt knows no file for it', next: UPDATE_HINT },
    })
  return packages
}

/** Lines of `apt-get --print-uris`: `'<uri>' <name>_<version>_<arch>.deb <size> SHA256:<digest>`. */
export function packageFiles(text: string): DebianPackage[] {
  const lines = text.matchAll(/^'.*' (?<file>(?<name>[^\s_]+)_\S+\.deb) (?<size>\d+) SHA256:(?<sha256>[0-9a-f]{64})$/gm)
  return [...lines].map(({ groups }) => {
    const { name, file, size, sha256 } = groups as Record<keyof DebianPackage, string>
    return { name, file, size: Number(size), sha256 }
  })
}

/** Downloads what the cache lacks, and checks every file against its SHA-256. */
export async function fetchPackages(
  packages: readonly DebianPackage[],
  cacheDir: string,
  apt: AptOptions = {},
  onDownload?: OnDownload,
): Promise<void> {
  await mkdir(cacheDir, { recursive: true })
  const lacking: DebianPackage[] = []
  for (const wanted of packages) if (!(await holds(join(cacheDir, wanted.file), wanted.sha256))) lacking.push(wanted)
  if (lacking.length > 0) await download(lacking, cacheDir, apt, onDownload)
}

/** The same, and unpacks all into `root`. Nothing is installed. */
export async function unpackPackages(
  packages: readonly DebianPackage[],
  cacheDir: string,
  root: string,
  apt: AptOptions = {},
): Promise<void> {
  await fetchPackages(packages, cacheDir, apt)
  for (const { file } of packages) await runTool('dpkg-deb', ['-x', join(cacheDir, file), root], { signal: apt.signal })
}

async function download(
  packages: readonly DebianPackage[],
  cacheDir: string,
  apt: AptOptions,
  onDownload: OnDownload = () => {},
): Promise<void> {
  const dir = await mkdtemp(join(cacheDir, 'download-'))
  const total = packages.reduce((sum, { size }) => sum + size, 0)
  try {
    onDownload({ done: 0, total })
    const names = packages.map(({ name }) => name)
    await whileLooking(
      (signal) => runApt('apt-get', ['download', '-q', ...names], { ...apt, signal }, { cwd: dir, timeoutMs: 600_000 }),
      async () => onDownload({ done: Math.min(await bytesIn(dir), total), total }),
      apt,
    )
    for (const { file, sha256 } of packages) {
      if (!(await holds(join(dir, file), sha256)))
        throw new QemuError({
          ...{ code: 'IMAGE', op: 'apt-get', subject: file, what: 'the download is not what the package list says' },
          next: UPDATE_HINT,
        })
      await rename(join(dir, file), join(cacheDir, file))
    }
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

const LOOK_MS = 1000

/** Runs something that takes long, and looks at it each second. What `look` throws ends it, and is thrown. */
async function whileLooking<T>(
  run: (signal: AbortSignal) => Promise<T>,
  look: () => Promise<void>,
  { signal, clock = systemClock }: AptOptions,
): Promise<T> {
  const ending = new AbortController()
  const running = run(AbortSignal.any([ending.signal, ...(signal ? [signal] : [])]))
  let isOver = false
  const end = () => {
    isOver = true
  }
  const over = running.then(end, end)
  try {
    while (!isOver) {
      let cancel = () => {}
      const second = new Promise<void>((resolve) => {
        cancel = clock.setTimer(LOOK_MS, resolve)
      })
      await Promise.race([over, second])
      cancel()
      if (!isOver) await look()
    }
  } catch (error) {
    ending.abort(error)
    await over
    throw error
  }
  return running
}

/** A file may be renamed meanwhile. */
async function bytesIn(dir: string): Promise<number> {
  const files = await readdir(dir, { recursive: true, withFileTypes: true })
  const sizes = files.filter((each) => each.isFile()).map(({ parentPath, name }) => sizeOf(join(parentPath, name)))
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  )

/** What apt says of these packages. @throws QemuError that names those which apt does not know, and some that it does */
async function askApt(
  tool: 'apt-get' | 'apt-cache',
  args: readonly string[],
  names: readonly string[],
  apt: AptOptions,
  options: { cwd?: string } = {},
): Promise<Buffer> {
  try {
    return await runApt(tool, [...args, ...names], apt, options)
  } catch (error) {
    if (error instanceof QemuError && error.code === 'IMAGE') await refuseUnknown(names, apt)
    throw error
  }
}

/** @throws QemuError if apt knows no package of one of these names. */
async function refuseUnknown(names: readonly string[], apt: AptOptions): Promise<void> {
  for (const name of names) {
    const isKnown = await runApt('apt-cache', ['show', '--no-all-versions', name], apt).then(
      () => true,
      (error) => {
        if (error instanceof QemuError && error.code === 'IMAGE') return false
        throw error
      },
    )
    if (isKnown) continue
    const like = await namesLike(name, apt)
    const instead = like.length === 0 ? '' : `It knows ${like.join(', ')}. `
    throw new QemuError({
      ...{ code: 'IMAGE', op: 'apt', subject: name, what: 'apt knows no such package', next: `${instead}${UPDATE_HINT}` },
    })
  }
}

const NAMES_SHOWN = 8

/** Packages whose names begin as that one does, by as many of its words as there are any for. */
async function namesLike(name: string, apt: AptOptions): Promise<string[]> {
  for (let stem = name; stem.includes('-'); ) {
    stem = stem.slice(0, stem.lastIndexOf('-'))
    if (!stem.includes('-')) return []
    const text = await runApt('apt-cache', ['pkgnames', `${stem}-`], apt).catch(() => '')
    const found = text.toString().split('\n').filter(Boolean).sort()
    if (found.length > 0) return found.slice(0, NAMES_SHOWN)
  }
  return []
}

function runApt(
  tool: 'apt-get' | 'apt-cache',
  args: readonly string[],
  { configuration = [], signal }: AptOptions,
  options: { cwd?: string; timeoutMs?: number } = {},
): Promise<Buffer> {
  return runTool(tool, [...configuration, ...args], { ...options, signal })
}

async function holds(path: string, sha256: string): Promise<boolean> {
  try {
    return (
      createHash('sha256')
        .update(await readFile(path))
        .digest('hex') === sha256
    )
  } catch {
    return false
  }
}
