import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { QemuError } from '../errors.js'
import { runTool } from './tools.js'

/** Kernel modules, decompressed, and the order to load them in. */
export interface ModuleSet {
  /** Name (with underscores) → the .ko file's bytes. */
  files: Map<string, Buffer>
  /** Each module asked for → what to load for it, itself last. */
  order: Record<string, string[]>
}

/**
 * Finds modules and all they depend on in a kernel's module directory. Dependencies come from each module's own `.modinfo`, so
 * neither depmod nor modules.dep is needed: Debian's package holds none. Modules built into the kernel need nothing.
 */
export async function collectModules(moduleDir: string, names: readonly string[]): Promise<ModuleSet> {
  const paths = await modulePaths(moduleDir)
  const builtin = await builtinModules(moduleDir)
  const files = new Map<string, Buffer>()
  const dependencies = new Map<string, string[]>()
  const read = async (name: string, wantedBy: string): Promise<void> => {
    if (dependencies.has(name) || builtin.has(name)) return
    const path = paths.get(name)
    if (path === undefined)
      throw new QemuError({
        ...{ code: 'IMAGE', op: 'kernel module', subject: name },
        what: `it is not in ${moduleDir}, and ${wantedBy} needs it`,
      })
    const bytes = await decompressed(path)
    const needed = moduleDependencies(bytes)
    files.set(name, bytes)
    dependencies.set(name, needed)
    for (const dependency of needed) await read(dependency, name)
  }
  for (const name of names) await read(canonical(name), 'the image')
  return { files, order: Object.fromEntries(names.map((name) => [name, loadOrder(canonical(name), dependencies)])) }
}

/** Depth first, so that each module comes after everything it needs. A module that is not in `dependencies` is built in. */
export function loadOrder(name: string, dependencies: ReadonlyMap<string, readonly string[]>): string[] {
  const order = new Set<string>()
  const visit = (module: string, path: readonly string[]): void => {
    if (path.includes(module))
      throw new QemuError({
        ...{ code: 'IMAGE', op: 'kernel module', subject: module },
        what: `it depends on itself: ${[...path, module].join(' → ')}`,
      })
    const needed = dependencies.get(module)
    if (needed === undefined || order.has(module)) return
    for (const dependency of needed) visit(dependency, [...path, module])
    order.add(module)
  }
  visit(name, [])
  return [...order]
}

/** The `depends=` entry of a module's .modinfo section, where every entry is a string that ends in NUL. */
export function moduleDependencies(module: Buffer): string[] {
  const key = Buffer.from('\0depends=')
  const start = module.indexOf(key)
  if (start < 0) throw new QemuError({ code: 'IMAGE', subject: 'kernel module', what: 'the file has no depends= entry' })
  const value = module.toString('latin1', start + key.length, module.indexOf(0, start + key.length))
  return value.split(',').filter(Boolean).map(canonical)
}

/** The kernel's names of modules have underscores; their files may have dashes. */
function canonical(name: string): string {
  return name.replaceAll('-', '_')
}

async function modulePaths(moduleDir: string): Promise<Map<string, string>> {
  const entries = await readdir(join(moduleDir, 'kernel'), { recursive: true })
  const modules = entries.flatMap((path) => {
    const name = /([^/]+)\.ko(\.(xz|zst))?$/.exec(path)?.[1]
    return name === undefined ? [] : [[canonical(name), join(moduleDir, 'kernel', path)] as const]
  })
  return new Map(modules)
}

async function builtinModules(moduleDir: string): Promise<Set<string>> {
  const list = await readFile(join(moduleDir, 'modules.builtin'), 'utf8')
  return new Set([...list.matchAll(/([^/\n]+)\.ko$/gm)].map(([, name]) => canonical(name!)))
}

async function decompressed(path: string): Promise<Buffer> {
  if (path.endsWith('.xz')) return runTool('xz', ['-dc', path])
  if (path.endsWith('.zst')) return runTool('zstd', ['-dcq', path])
  return readFile(path)
}
