// Holds the C to .clang-format and to functions of at most 60 lines.
//
//   node scripts/check-c.mjs
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { addons } from './build-addons.mjs'

const MAX_LINES = 60
const root = fileURLToPath(new URL('..', import.meta.url))
const folders = [...new Set([...addons.flatMap(({ sources }) => sources), 'e2e', 'e2e/bench', 'e2e/vhost-user'])]
const files = folders
  .flatMap((folder) => readdirSync(join(root, folder)).map((file) => join(folder, file)))
  .filter((file) => /\.[ch]$/.test(file))

// Formatted C begins a function's body on an unindented line and ends it with a brace of its own.
const tooLong = files.flatMap((file) => {
  const lines = readFileSync(join(root, file), 'utf8').split('\n')
  return lines.flatMap((line, start) => {
    if (!/^\w.*\) \{$/.test(line)) return []
    const length = lines.indexOf('}', start) - start + 1
    return length > MAX_LINES ? [`${file}:${start + 1}: ${length} lines; at most ${MAX_LINES} are allowed: ${line}`] : []
  })
})
for (const message of tooLong) console.error(message)

const { status, error } = spawnSync('clang-format', ['--dry-run', '-Werror', ...files], { cwd: root, stdio: 'inherit' })
if (error?.code === 'ENOENT')
  console.log('check-c: no clang-format on the PATH, formatting not checked; on Debian: apt-get install clang-format')
else if (error) throw error
if (tooLong.length > 0 || (status !== 0 && !error)) process.exitCode = 1
else console.log(`check-c: ${files.length} files in order`)
