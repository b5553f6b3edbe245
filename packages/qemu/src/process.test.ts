import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { startQemu } from './process.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'process-'))
})
afterEach(async () => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
  await rm(dir, { recursive: true })
})

/** A folder with a setpriv of that script; each run adds its arguments to `runs` beside it. */
async function setpriv(name: string, script: string): Promise<string> {
  const folder = join(dir, name)
  await mkdir(folder)
  await writeFile(join(folder, 'setpriv'), `#!/bin/sh\necho "$*" >>${folder}/runs\n${script}\n`, { mode: 0o755 })
  return folder
}
const runs = async (folder: string) =>
  (await readFile(join(folder, 'runs'), 'utf8').catch(() => '')).split('\n').filter((line) => line !== '')

async function run(path: string[]) {
  const qemu = join(dir, 'qemu')
  await writeFile(qemu, '#!/bin/sh\necho "ran $*"\n', { mode: 0o755 })
  return startQemu(qemu, () => ['-x'], 0, path).exited
}

const BUSYBOX = 'echo "setpriv: unrecognized option \'--pdeathsig\'" >&2\necho "BusyBox v1.35.0 multi-call binary." >&2\nexit 1'
const UTIL_LINUX = '[ "$1 $2 $3" = "--pdeathsig KILL --" ] || exit 9\nshift 3\n[ "$1" = "$0" ] && exit 0\nexec "$@"'

describe('the program that ends QEMU with this process', () => {
  it('is not used if it does not know how, and that is said once', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const busybox = await setpriv('busybox', BUSYBOX)
    expect(await run([busybox])).toEqual({ code: 0, signal: null, output: 'ran -x' })
    expect(await run([busybox])).toMatchObject({ output: 'ran -x' })
    // Asked once.
    expect(await runs(busybox)).toHaveLength(1)
    expect(warn.mock.calls.map(([text]) => text)).toEqual([
      `there is no setpriv with --pdeathsig (util-linux 2.33 or later); ${busybox}/setpriv: setpriv: unrecognized option '--pdeathsig'. ` +
        'QEMU goes on if this process is killed by SIGKILL. Install util-linux.',
    ])
  })

  it('is the first one that knows how', async () => {
    const [busybox, other] = [await setpriv('first', BUSYBOX), await setpriv('second', UTIL_LINUX)]
    expect(await run([busybox, other])).toEqual({ code: 0, signal: null, output: 'ran -x' })
    expect((await runs(other)).at(-1)).toBe(`--pdeathsig KILL -- ${dir}/qemu -x`)
  })

  it('may be missing', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    expect(await run([join(dir, 'nothing')])).toMatchObject({ code: 0, output: 'ran -x' })
  })
})
