import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { QemuError } from '../errors.js'
import { runTool } from './tools.js'

/** One package file as apt would fetch it. */
export interface DebianPackage {
  name: string
  /** The file's name in apt's own spelling. */
  file: string
  sha256: string
}

/** How apt is run. */
export interface AptOptions {
  /** Arguments in front of all others: for packages of another architecture, from `foreignApt`. Default: this machine's own apt. */
  configuration?: readonly string[] | undefined
  signal?: AbortSignal | undefined
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
  const lines = text.matchAll(/^'.*' (?<file>(?<name>[^\s_]+)_\S+\.deb) \d+ SHA256:(?<sha256>[0-9a-f]{64})$/gm)
  return [...lines].map(({ groups }) => ({ name: groups!.name!, file: groups!.file!, sha256: groups!.sha256! }))
}

/** Downloads what the cache lacks, checks every file against its SHA-256, and unpacks all into `root`. Nothing is installed. */
export async function unpackPackages(
  packages: readonly DebianPackage[],
  cacheDir: string,
  root: string,
  apt: AptOptions = {},
): Promise<void> {
  await mkdir(cacheDir, { recursive: true })
  const lacking: DebianPackage[] = []
  for (const wanted of packages) if (!(await holds(join(cacheDir, wanted.file), wanted.sha256))) lacking.push(wanted)
  if (lacking.length > 0) await download(lacking, cacheDir, apt)
  for (const { file } of packages) await runTool('dpkg-deb', ['-x', join(cacheDir, file), root], { signal: apt.signal })
}

async function download(packages: readonly DebianPackage[], cacheDir: string, apt: AptOptions): Promise<void> {
  const dir = await mkdtemp(join(cacheDir, 'download-'))
  try {
    await runApt('apt-get', ['download', '-q', ...packages.map(({ name }) => name)], apt, { cwd: dir, timeoutMs: 600_000 })
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
