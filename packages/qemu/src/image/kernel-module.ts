import { createHash } from 'node:crypto'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { checkObject, checkOneOf, checkOptionalFunction, checkSignal, checkString, wrongValue } from '@upcall/foundation/check'
import { type GuestArch, HOST } from '../arch.js'
import { QemuError } from '../errors.js'
import { findProgram } from '../process.js'
import { place } from './cache.js'
import {
  type AptOptions,
  type DebianPackage,
  type DownloadAmount,
  fetchPackages,
  packageDependencies,
  resolvePackages,
  unpackPackages,
} from './debian.js'
import { foreignApt } from './foreign-apt.js'
import type { ImageOptions } from './image.js'
import { exists } from './root.js'
import { runTool } from './tools.js'

export interface KernelModuleOptions {
  /** The module's folder: sources, and a Makefile that works with `KDIR=`. */
  sourceDir: string
  /** The kernel it is for: a guest image's `release`. */
  release: string
  /** The kernel's architecture; default `x86_64`, this machine's. */
  arch?: GuestArch | undefined
  /** Where packages and results are kept; may be the guest images' folder. */
  cacheDir: string
  signal?: AbortSignal | undefined
  /** As that of `buildGuestImage`. */
  onProgress?: ImageOptions['onProgress']
}

const COMPILERS = { x86_64: 'gcc', aarch64: 'aarch64-linux-gnu-gcc' } as const

/**
 * Builds a kernel module for a Debian kernel against its headers (downloaded and unpacked, not installed), or finds it in the cache, and
 * resolves with the .ko file's path. Needs apt-get, dpkg-deb, make and gcc (for another architecture
 * a cross compiler), no rights. Rejects with QemuError, or with a TypeError or RangeError for a wrong option.
 */
export async function buildKernelModule(options: KernelModuleOptions): Promise<string> {
  checkObject('options', options)
  const { sourceDir, release, arch = HOST, cacheDir, signal, onProgress } = options
  for (const [name, value] of Object.entries({ sourceDir, release, cacheDir })) {
    checkString(name, value)
    if (value === '') wrongValue(name, 'a string that is not empty', value)
  }
  checkOneOf('arch', arch, Object.keys(COMPILERS))
  checkOptionalFunction('onProgress', onProgress)
  checkSignal(signal)
  await mkdir(cacheDir, { recursive: true })
  const work = await mkdtemp(join(cacheDir, 'build-'))
  try {
    const { packages, tools, apt } = await headerPackages(options, work)
    const sources = await readSources(sourceDir)
    const compiler = (await runTool(COMPILERS[arch], ['--version'], { signal })).toString()
    const hash = createHash('sha256').update(JSON.stringify([[...packages, ...tools], sources, compiler]))
    const result = join(cacheDir, `module-${hash.digest('hex').slice(0, 16)}`)
    const file = join(result, `${objectName(sources, sourceDir)}.ko`)
    if (await exists(file)) return file

    const packageCache = join(cacheDir, 'packages')
    const onDownload = (amount: DownloadAmount) => onProgress?.('downloading kernel headers', amount)
    await fetchPackages(packages, packageCache, apt, onDownload)
    await fetchPackages(tools, packageCache, { signal }, onDownload)
    onProgress?.('unpacking kernel headers')
    const root = join(work, 'headers')
    await mkdir(root)
    await unpackPackages(packages, packageCache, root, apt)
    await unpackPackages(tools, packageCache, root, { signal })
    const kernelDir = await relocate(root, release)
    onProgress?.('building the kernel module')
    const build = join(work, 'module')
    await mkdir(build)
    for (const name of Object.keys(sources)) await cp(join(sourceDir, name), join(build, name))
    const cross = arch === HOST ? [] : [`CROSS_COMPILE=${COMPILERS[arch].replace(/gcc$/, '')}`]
    await runTool('make', ['-C', build, `KDIR=${kernelDir}`, ...cross, `CC=${await compilerFor(kernelDir, arch)}`], { signal })
    await mkdir(join(work, 'result'))
    await cp(join(build, basename(file)), join(work, 'result', basename(file)))
    await place(join(work, 'result'), result, () => exists(file))
    return file
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

interface HeaderPackages {
  /** The headers, and the part of them that all flavours share; of this machine's architecture the build tools too. */
  packages: DebianPackage[]
  /** The kernel's own build tools where they are of another architecture than the headers: they run here. */
  tools: DebianPackage[]
  apt: AptOptions
}

/** All that a module is built with, except the compiler. */
async function headerPackages(options: KernelModuleOptions, work: string): Promise<HeaderPackages> {
  const { release, arch = HOST, cacheDir, signal } = options
  const apt: AptOptions = arch === HOST ? { signal } : { signal, configuration: await foreignApt(arch, cacheDir, signal) }
  const headers = `linux-headers-${release}`
  const needed = (await packageDependencies(headers, apt)).filter((name) => name.startsWith('linux-'))
  const runHere = arch === HOST ? [] : needed.filter((name) => name.startsWith('linux-kbuild-'))
  const empty = join(work, 'empty')
  await mkdir(empty)
  const names = [headers, ...needed.filter((name) => !runHere.includes(name))]
  const packages = await resolvePackages(names, empty, apt)
  return { packages, tools: await resolvePackages(runHere, empty, { signal }), apt }
}

async function readSources(sourceDir: string): Promise<Record<string, string>> {
  const names = (await readdir(sourceDir)).filter((name) => /^Makefile$|\.[ch]$/.test(name)).sort()
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await readFile(join(sourceDir, name), 'utf8')])))
}

/** What the module's Makefile calls its result. */
function objectName(sources: Readonly<Record<string, string>>, sourceDir: string): string {
  const name = /^obj-m\s*[:+]?=\s*(\S+)\.o$/m.exec(sources.Makefile ?? '')?.[1]
  if (name === undefined)
    throw new QemuError({
      ...{ code: 'INVALID_OPTION', op: 'module option sourceDir', subject: sourceDir },
      what: 'its Makefile has no line obj-m := <name>.o',
    })
  return name
}

/** Debian's headers name each other by where they would be installed. */
async function relocate(root: string, release: string): Promise<string> {
  const kernelDir = join(root, 'usr/src', `linux-headers-${release}`)
  const makefile = join(kernelDir, 'Makefile')
  const text = await readFile(makefile, 'utf8')
  await writeFile(makefile, text.replaceAll(/(?<=\s)\/usr\/src\//g, `${root}/usr/src/`))
  return kernelDir
}

/** The compiler of the kernel's own version where there is one, else any gcc. */
async function compilerFor(kernelDir: string, arch: GuestArch): Promise<string> {
  const any = COMPILERS[arch]
  const version = /gcc(-\d+)/.exec(await readFile(join(kernelDir, '.kernelvariables'), 'utf8').catch(() => ''))?.[1]
  try {
    return version === undefined ? any : findProgram(`${any}${version}`, '')
  } catch {
    return any
  }
}
