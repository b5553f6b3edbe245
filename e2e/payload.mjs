// A folder for the guest: programs of e2e/guest, and behind them our packages as they would be installed.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** `packages`: folders of ours, relative to the repository; what they depend on comes along. `files`: name → path. */
export function makePayload({ packages, files = {} }) {
  const dir = mkdtempSync(join(tmpdir(), 'upcall-payload-'))
  cpSync(join(root, 'e2e/guest'), dir, { recursive: true })
  for (const [name, path] of Object.entries(files)) cpSync(path, join(dir, name))
  const placed = new Map()
  for (const each of packages) place(join(root, each), join(dir, 'node_modules'), placed)
  return { dir, [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }) }
}

function place(source, modules, placed) {
  const folder = realpathSync(source)
  const { name, dependencies = {} } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  if (placed.has(name)) {
    if (placed.get(name) !== folder) throw new Error(`two versions of ${name}: ${placed.get(name)} and ${folder}`)
    return
  }
  placed.set(name, folder)
  const ours = !folder.includes('/node_modules/')
  const parts = ours
    ? ['package.json', 'dist', 'build/Release', 'prebuilds'].filter((part) => existsSync(join(folder, part)))
    : ['']
  if (ours && !parts.includes('dist')) throw new Error(`${name} is not built; npm run build`)
  for (const part of parts) {
    const target = join(modules, name, part)
    mkdirSync(dirname(target), { recursive: true })
    cpSync(join(folder, part), target, { recursive: true, filter: (path) => !path.endsWith('.map') })
  }
  for (const dependency of Object.keys(dependencies)) place(found(dependency, folder), modules, placed)
}

/** As Node looks for it. */
function found(name, from) {
  for (let at = from; at !== dirname(at); at = dirname(at)) {
    const folder = join(at, 'node_modules', name)
    if (existsSync(folder)) return folder
  }
  throw new Error(`${name}, wanted by ${from}, is not installed`)
}
