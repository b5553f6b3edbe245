// Runs program.mjs in Node, Bun and Deno.
//
//   node tests/runtimes/main.mjs     after `npm run build`
//
// npm brings the others, as packages of one program each, once.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const program = fileURLToPath(new URL('program.mjs', import.meta.url))

const packages = {
  x64: { bun: '@oven/bun-linux-x64@1.4.5', deno: '@deno/linux-x64-glibc@2.9.6' },
  arm64: { bun: '@oven/bun-linux-aarch64@1.4.5', deno: '@deno/linux-arm64-glibc@2.9.6' },
}[process.arch]
if (!packages || process.platform !== 'linux') throw new Error(`no packages are known for ${process.platform}-${process.arch}`)

run(process.execPath, program)
run(fetched(packages.bun, 'bin/bun'), program)
run(fetched(packages.deno, 'deno'), 'run', '--allow-all', program)

function fetched(npmPackage, file) {
  const folder = join(root, '.cache/runtimes', npmPackage.replaceAll('/', '-'))
  if (!existsSync(folder)) {
    const partial = `${folder}.partial`
    rmSync(partial, { recursive: true, force: true })
    mkdirSync(partial, { recursive: true })
    run('npm', 'pack', npmPackage, '--loglevel=error', '--pack-destination', partial)
    const [tarball] = readdirSync(partial)
    run('tar', '-xzf', join(partial, tarball), '-C', partial, '--strip-components=1')
    rmSync(join(partial, tarball))
    renameSync(partial, folder)
  }
  return join(folder, file)
}

function run(command, ...argv) {
  const { status, signal, error } = spawnSync(command, argv, { cwd: root, stdio: 'inherit', timeout: 300_000 })
  if (error) throw error
  if (status !== 0) throw new Error(`${[command, ...argv].join(' ')}: ended with ${signal ?? `status ${status}`}`)
}
