// Runs every addon's exercise under valgrind and fails on an invalid access or a definite leak that the addon has a part in.
//
//   node scripts/valgrind-addon.mjs
//
// Node itself makes noise under valgrind (V8 scans stacks, libuv leaves things at exit). So it runs with --jitless, and a report that is
// read instead of an exit status: an error counts if the addon is in one of its stacks. With uninitialised values that is not
// enough, since all JavaScript that the addon calls back runs on top of its frames: there it must be at the top.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { addons, buildLocal } from './build-addons.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Frames of valgrind's own wrappers (malloc, memcpy) and of N-API that may lie above the addon's. */
const NEAR_TOP = 3
const DEADLINE_MS = 600_000

function check(addon) {
  const folder = join(root, addon.package, 'build/valgrind')
  const file = buildLocal(addon, ['-g', '-O1', '-fno-omit-frame-pointer'], join(folder, `${addon.name}.node`))
  mkdirSync(folder, { recursive: true })
  const report = join(folder, 'report.xml')
  const options = ['--xml=yes', `--xml-file=${report}`, '--leak-check=full', '--show-leak-kinds=definite', '--keep-debuginfo=yes']
  const program = [process.execPath, '--jitless', join(root, addon.exercise), file]
  const { status, signal, error, stdout, stderr } = spawnSync(
    'valgrind',
    [...options, '--num-callers=30', '--error-limit=no', '--quiet', ...program],
    { encoding: 'utf8', timeout: DEADLINE_MS },
  )
  if (error) throw error.code === 'ENOENT' ? new Error('no valgrind on the PATH; on Debian: apt-get install valgrind') : error
  if (status !== 0) throw new Error(`${addon.name} ended with ${signal ?? `status ${status}`} under valgrind\n${stdout}${stderr}`)

  const errors = readFileSync(report, 'utf8').match(/<error>[\s\S]*?<\/error>/g) ?? []
  const ours = errors.filter((text) => concerns(text, `${addon.name}.node`))
  for (const text of ours) console.error(`${describe(text)}\n`)
  console.log(
    `valgrind: ${addon.name} ${stdout.trim().split('\n').at(-1)}; ${errors.length - ours.length} errors of Node's own, ${ours.length} of the addon`,
  )
  return ours.length
}

function concerns(text, name) {
  if (/Leak_(?!DefinitelyLost)/.test(field(text, 'kind'))) return false
  const stacks = (text.match(/<stack>[\s\S]*?<\/stack>/g) ?? []).map((stack) => stack.match(/<frame>[\s\S]*?<\/frame>/g) ?? [])
  const inAddon = (frame) => field(frame, 'obj').endsWith(name)
  if (field(text, 'kind').startsWith('Uninit')) return (stacks[0] ?? []).slice(0, NEAR_TOP).some(inAddon)
  return stacks.some((frames) => frames.some(inAddon))
}

function describe(text) {
  const lines = (text.match(/<(what|text|auxwhat|frame)>[\s\S]*?<\/\1>/g) ?? []).map((part) => {
    if (!part.startsWith('<frame>')) return part.replace(/<[^>]+>/g, '')
    const place = field(part, 'file') ? `${field(part, 'file')}:${field(part, 'line')}` : relative(root, field(part, 'obj'))
    return `    ${field(part, 'fn') || '???'} (${place})`
  })
  return `${field(text, 'kind')}: ${lines.join('\n')}`
}

function field(text, name) {
  return text.match(new RegExp(`<${name}>([^<]*)</${name}>`))?.[1] ?? ''
}

let found = 0
for (const addon of addons) found += check(addon)
process.exitCode = found > 0 ? 1 : 0
