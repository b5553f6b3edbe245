// The kernel's own vsock_test and vsock_perf, from the sources that Debian packs: downloaded by apt and built when they are needed.
import { execFile } from 'node:child_process'
import { cpSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { built, runTool } from '../peers/tools.mjs'

const run = promisify(execFile)
const PACKAGE = 'linux-source-6.12'
const SOURCES = ['tools/testing/vsock', 'tools/include']
const PROGRAMS = ['vsock_test', 'vsock_perf']
const UNPACK_MS = 300_000

/** The paths of the programs, static, built if Debian's package has changed; and the names of the tests, by id. */
export async function vsockTools() {
  const file = (await run('apt-get', ['download', '--print-uris', PACKAGE])).stdout.trim()
  if (!file.includes(`${PACKAGE}_`))
    throw new Error(`apt knows no ${PACKAGE}. Update the package list if it is old or missing: apt-get update`)
  // The address is the mirror's, what follows it is the file's name, size and digest.
  const folder = await built({ name: 'vsock-test', sources: [], tool: 'cc', salt: file.replace(/^'.*' /, ''), build })
  const vsockTest = join(folder, 'vsock_test')
  return { vsockTest, vsockPerf: join(folder, 'vsock_perf'), tests: await namesOf(vsockTest) }
}

async function build({ output, work }) {
  const source = join(work, 'source')
  rmSync(source, { recursive: true, force: true })
  const within = { cwd: work, timeout: UNPACK_MS }
  try {
    await run('apt-get', ['download', '-q', PACKAGE], within)
    const [deb] = readdirSync(work).filter((name) => name.endsWith('.deb'))
    await run('dpkg-deb', ['-x', deb, source], within)
    const members = SOURCES.map((path) => `${PACKAGE}/${path}`)
    await run('tar', ['-xJf', join(source, `usr/src/${PACKAGE}.tar.xz`), '-C', source, ...members], within)
    const folder = join(source, PACKAGE, SOURCES[0])
    await runTool('make', ['-C', folder, ...PROGRAMS, 'LDFLAGS=-static'])
    for (const program of PROGRAMS) cpSync(join(folder, program), join(output, program))
  } finally {
    // 150 MB, and as much again unpacked.
    rmSync(work, { recursive: true, force: true })
  }
}

/** `vsock_test --list`: it prints an id and a name on each line, and ends with 1. */
async function namesOf(vsockTest) {
  const { stdout } = await run(vsockTest, ['--list']).catch((error) => error)
  const names = [...stdout.matchAll(/^\d+\t(.+)$/gm)].map(([, name]) => name)
  if (names.length === 0) throw new Error(`vsock_test --list: ${stdout}`)
  return names
}
