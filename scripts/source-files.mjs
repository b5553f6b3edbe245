import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

/** All files of the repository that git does not ignore, relative to the root. */
export function sourceFiles() {
  const { stdout } = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 24,
  })
  const files = stdout.split('\n').filter((file) => file !== '' && existsSync(`${root}${file}`))
  return [...new Set(files)].sort()
}

/** Prints what a check has found, and how much of it there is in each folder. Sets the exit status. */
export function report(check, findings) {
  for (const { file, line, text } of findings) console.log(`${file}:${line}: ${text}`)
  const counts = new Map()
  for (const { file } of findings) {
    const folder = file.split('/').slice(0, 2).join('/')
    counts.set(folder, (counts.get(folder) ?? 0) + 1)
  }
  for (const [folder, count] of [...counts].sort(([, a], [, b]) => b - a)) console.log(`  ${count} in ${folder}`)
  console.log(`${check}: ${findings.length === 0 ? 'nothing' : findings.length} to mend`)
  process.exitCode = findings.length === 0 ? 0 : 1
}

/** The folders and files of the command line; a check without any looks at everything. */
export function wanted(args) {
  const chosen = args.map((arg) => arg.replace(/^[.][/]/, '').replace(/[/]$/, ''))
  return (file) => chosen.length === 0 || chosen.some((path) => file === path || file.startsWith(`${path}/`))
}
