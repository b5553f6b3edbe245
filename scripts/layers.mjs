// Draws the picture of the layers in docs/architecture.md from the imports of the sources, between its two comments. `--check` only says
// whether it is up to date. Which imports are allowed is said in .dependency-cruiser.cjs.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, sourceFiles } from './source-files.mjs'

const PAGE = join(root, 'docs/architecture.md')
const [BEGIN, END] = ['<!-- layers: printed by scripts/layers.mjs -->', '<!-- /layers -->']

const sources = sourceFiles().filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
const rooms = new Map()

/** Every package and app, and each entry of a package that has a folder of its own; with what it imports. */
function imports() {
  const all = new Map()
  for (const file of sources) {
    const [, kind, name, path] = /^(packages|apps)\/([^/]+)\/src\/(.*)[.]ts$/.exec(file) ?? []
    if (kind === undefined || name === 'foundation') continue
    const from = kind === 'apps' ? name : roomOf(name, path)
    if (!all.has(from)) all.set(from, new Set())
    for (const [, subpath] of readFileSync(join(root, file), 'utf8').matchAll(/\b(?:from|import)\s*\(?'@upcall\/([^']+)'/g)) {
      const to = targetOf(subpath)
      if (to !== 'foundation' && to !== from) all.get(from).add(to)
    }
  }
  return all
}

/** `vmm/qemu` for what is in packages/vmm/src/qemu, since `@upcall/vmm/qemu` is an entry. */
function roomOf(name, path) {
  const folder = path.includes('/') ? path.slice(0, path.indexOf('/')) : undefined
  return folder !== undefined && isRoom(name, folder) ? `${name}/${folder}` : name
}

function targetOf(subpath) {
  const [name, entry] = subpath.split('/')
  return entry !== undefined && name !== 'foundation' && isRoom(name, entry) ? `${name}/${entry}` : name
}

/** Whether a folder is an entry of its own, of which the rest of its package imports nothing. */
function isRoom(name, folder) {
  const key = `${name}/${folder}`
  if (!rooms.has(key)) rooms.set(key, isEntry(name, folder) && !isImported(name, folder))
  return rooms.get(key)
}

function isImported(name, folder) {
  const src = `packages/${name}/src/`
  const others = sources.filter((file) => file.startsWith(src) && !file.startsWith(`${src}${folder}/`))
  return others.some((file) => new RegExp(`from '[./]+/${folder}/`).test(readFileSync(join(root, file), 'utf8')))
}

function isEntry(name, folder) {
  const { exports } = JSON.parse(readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'))
  const source = exports[`./${folder}`]?.['@upcall/source']
  return source?.startsWith(`./src/${folder}/`) === true
}

/** What is imported by way of something else that is imported is left out: the picture is for people. */
function direct(all, from) {
  const targets = [...all.get(from)]
  return targets.filter((to) => !targets.some((other) => other !== to && reaches(all, other, to)))
}

function reaches(all, from, to) {
  return [...(all.get(from) ?? [])].some((next) => next === to || reaches(all, next, to))
}

function picture(all) {
  const id = (name) => name.replace(/\W/g, '_')
  const names = [...all.keys()].sort()
  const isApp = (name) => existsSync(join(root, 'apps', name.split('/')[0]))
  const lines = names.map((name) => `  ${id(name)}${isApp(name) ? `([apps/${name}])` : `["${name}"]`}`)
  const arrows = names.flatMap((from) =>
    direct(all, from)
      .sort()
      .map((to) => `  ${id(from)} --> ${id(to)}`),
  )
  return ['```mermaid', 'flowchart TD', ...lines, ...arrows, '```'].join('\n')
}

const LEGEND = `Left out: \`foundation\`, which every package bundles, and imports that other arrows lead to anyway.`

const drawn = `${BEGIN}\n\n${picture(imports())}\n\n${LEGEND}\n\n${END}`
const page = readFileSync(PAGE, 'utf8')
const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)]
if (from < 0 || to < from) {
  console.error(`layers: docs/architecture.md has no ${BEGIN} … ${END}; what belongs there:\n${drawn}`)
  process.exitCode = 1
} else {
  const next = page.slice(0, from) + drawn + page.slice(to + END.length)
  if (!process.argv.includes('--check')) writeFileSync(PAGE, next)
  else if (next !== page) {
    console.error('layers: the picture in docs/architecture.md differs from the imports; run node scripts/layers.mjs')
    process.exitCode = 1
  }
}
