import { cpSync, existsSync, mkdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))

/** What a package of ours publishes. */
const PUBLISHED = ['package.json', 'dist', 'prebuilds', 'native']
/** The native addon as built for this machine, which the loader prefers. */
const LOCAL_BUILD = 'build/Release'

/**
 * Puts programs and all they import into `folder`, as `npm install` would lay it out: the programs at the top, packages flat in
 * node_modules. Ours go in as built, not as sources; a package that was not built is an error.
 *
 * @param programs - Files and folders, relative to this one: files, and what is in the folders, go to the top.
 * @param packages - Dependencies of @upcall/e2e that the programs need.
 * @param prebuilt - The addons as published, for a guest that is of another architecture than this machine; else as built here.
 */
export function fillPayload(folder, { programs, packages, prebuilt = false }) {
  for (const path of programs.map((program) => resolve(here, program))) {
    cpSync(path, statSync(path).isDirectory() ? folder : join(folder, basename(path)), { recursive: true })
  }
  const parts = prebuilt ? PUBLISHED : [...PUBLISHED, LOCAL_BUILD]
  const layout = { target: join(folder, 'node_modules'), parts, versions: new Map() }
  for (const name of packages) addPackage(layout, name, here)
  // The exercises of the addons import it by its place in the repository.
  const shared = 'native/exercise.mjs'
  cpSync(resolve(here, '..', shared), join(folder, 'node_modules', shared))
}

function addPackage(layout, name, from) {
  const { target, parts, versions } = layout
  const source = findPackage(name, from)
  const { version, dependencies = {} } = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8'))
  const known = versions.get(name)
  if (known === version) return
  if (known !== undefined) throw new Error(`payload: ${name} is needed in the versions ${known} and ${version}; only one fits in`)
  versions.set(name, version)

  const destination = join(target, name)
  const isOurs = !source.includes('/node_modules/')
  if (isOurs && !existsSync(join(source, 'dist'))) throw new Error(`payload: ${name} is not built; npm run build does it`)
  if (isOurs) {
    for (const part of parts.filter((part) => existsSync(join(source, part)))) copy(join(source, part), join(destination, part))
  } else copy(source, destination)
  for (const dependency of Object.keys(dependencies)) addPackage(layout, dependency, source)
}

function copy(source, destination) {
  mkdirSync(dirname(destination), { recursive: true })
  cpSync(source, destination, { recursive: true, filter: (path) => !/\/node_modules$|\.map$|\.d\.c?ts$/.test(path) })
}

/** As Node looks for it, without its `exports`: they need not show package.json. */
function findPackage(name, from) {
  for (let folder = from; ; folder = dirname(folder)) {
    const candidate = join(folder, 'node_modules', name)
    if (existsSync(join(candidate, 'package.json'))) return realpathSync(candidate)
    if (folder === dirname(folder))
      throw new Error(`payload: ${name}, needed in ${from}, is not installed; npm run setup does it`)
  }
}
