import { access, copyFile, mkdir, open, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { textOf } from '@upcall/foundation/error'
import { ARCHES, type GuestArch } from '../arch.js'
import { QemuError } from '../errors.js'
import { isStatic } from './tool-text.js'
import { runTool, ToolError } from './tools.js'

const DIRECTORIES = ['dev', 'etc', 'payload', 'proc', 'root', 'run', 'sys', 'tmp', 'usr/bin', 'usr/sbin', 'var']

export interface RootParts {
  arch: GuestArch
  busybox: string
  applets: readonly string[]
  node: string
  libraries: ReadonlyMap<string, string>
}

/** Turns the packages' files into a root file system: without documentation, with more directories, with busybox and Node. */
export async function populateRoot(root: string, { arch, busybox, applets, node, libraries }: RootParts): Promise<void> {
  const libraryDir = `usr/lib/${ARCHES[arch].triplet}`
  for (const path of ['usr/share', `${libraryDir}/gconv`, 'var']) await rm(join(root, path), { recursive: true, force: true })
  for (const path of [...DIRECTORIES, libraryDir]) await mkdir(join(root, path), { recursive: true })
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) await link(`usr/${name}`, join(root, name))
  await copyFile(busybox, join(root, 'usr/bin/busybox'))
  for (const name of applets) await link('busybox', join(root, 'usr/bin', name))
  await link('/usr/bin/busybox', join(root, 'bin/sh'))
  // words: nobody
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n')
  await writeFile(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n')
  await writeFile(join(root, 'etc/hosts'), '127.0.0.1 localhost guest\n')
  await copyFile(await realpath(node), join(root, 'usr/bin/node'))
  for (const [name, path] of libraries) await addLibrary(root, libraryDir, name, path)
}

const ELF_MACHINES: Readonly<Record<number, GuestArch>> = { 62: 'x86_64', 183: 'aarch64' }
/** The first bytes of an ELF file, as far as the number of its machine. */
const ELF_HEADER = 20

/**
 * Checks that the guest can run that `node`: in the guest a wrong one would only fail without a word, and ldd says of it what it says of a
 * program that is linked to nothing. @throws QemuError INVALID_OPTION
 */
export async function checkProgram(node: string, arch: GuestArch): Promise<void> {
  const wrong = (what: string, cause?: unknown) =>
    new QemuError({
      ...{ code: 'INVALID_OPTION', op: 'image option node', subject: node, what, cause },
      next: `Give a program (ELF) for ${arch}.`,
    })
  const header = await readStart(node, ELF_HEADER).catch((error) => {
    throw wrong(textOf(error), error)
  })
  if (header.toString('latin1', 0, 2) === '#!') throw wrong('it is a script')
  if (header.length < ELF_HEADER || header.toString('latin1', 0, 4) !== '\x7fELF') throw wrong('it is not a program')
  const number = header.readUInt16LE(18)
  const machine = ELF_MACHINES[number] ?? `another machine (ELF 0x${number.toString(16)})`
  if (machine !== arch) throw wrong(`it is for ${machine}`)
}

async function readStart(path: string, length: number): Promise<Buffer> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** The shared libraries a program of this machine needs: name → path. The dynamic linker itself is not among them. */
export async function sharedLibraries(program: string, signal?: AbortSignal): Promise<Map<string, string>> {
  const libraries = new Map<string, string>()
  const text = await runTool('ldd', [program], { signal }).catch((error) => {
    if (error instanceof ToolError && isStatic(error.output)) return ''
    throw error
  })
  for (const line of text.toString().split('\n')) {
    const [, name, path] = /^\s*(\S+) => (\S+)/.exec(line) ?? []
    if (name === undefined || path === undefined) continue
    if (path === 'not')
      throw new QemuError({ code: 'IMAGE', subject: program, what: `it needs ${name}, which is not on this machine` })
    libraries.set(name, path)
  }
  return libraries
}

/** Debian's own library goes first: this machine's may be of another release than the C library in the image. */
async function addLibrary(root: string, libraryDir: string, name: string, path: string): Promise<void> {
  // Where Debian's dynamic linker looks without being told.
  const dirs = [libraryDir.replace(/^usr\//, ''), libraryDir]
  const held = await Promise.all(dirs.map((dir) => exists(join(root, dir, name))))
  if (!held.includes(true)) await copyFile(await realpath(path), join(root, libraryDir, name))
}

/** A link, unless there is something already. */
async function link(target: string, path: string): Promise<void> {
  await symlink(target, path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
