// Boots that do not come up, and the demo: vmm-shim as a program that ends by itself.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findQemu } from '@upcall/qemu'
import { MAIN, ShimProcess } from './process.mjs'

const DEMO_MS = 180_000
const SIGNAL_GRACE_MS = 30_000

/** Programs called qemu-system-x86_64 that stand before the real one: they note their process ids, and start some guests stopped. */
export class Standin {
  /** The first `silent` boots have no vCPU that runs, so that their consoles stay silent. */
  constructor(directory, { silent }) {
    this.directory = directory
    mkdirSync(directory)
    const program = join(directory, 'qemu-system-x86_64')
    const starts = join(directory, 'starts')
    const script = [
      '#!/bin/sh',
      `echo $$ >>'${starts}'`,
      `[ "$(wc -l <'${starts}')" -le ${silent} ] && exec '${findQemu()}' "$@" -S`,
      `exec '${findQemu()}' "$@"`,
    ]
    writeFileSync(program, `${script.join('\n')}\n`)
    chmodSync(program, 0o755)
  }

  /** Process ids of all QEMUs so far. */
  get pids() {
    const file = join(this.directory, 'starts')
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').map(Number) : []
  }
}

/** What becomes of a first boot that fails: each row compares the exit status, what is said, and that nothing is left. */
export async function failingBoots({ checks, table, directory, cacheDir }) {
  const row = (event, options, act, expected) => {
    // One of them runs beside the others: the table keeps the order in which they were begun.
    const told = { machine: 'q35', event, status: null, outcome: 'did not end', errno: null }
    table.push(told)
    return checks.check(`q35: ${event}`, async () => {
      const folder = join(directory, event.replaceAll(/\W+/g, '-'))
      mkdirSync(folder)
      const standin = new Standin(join(folder, 'bin'), options)
      const args = ['--cache-dir', cacheDir, ...(options.args ?? [])]
      const shim = new ShimProcess({ directory: folder, machine: 'q35', args, path: standin.directory })
      shim.launch()
      try {
        await act(shim, standin)
        const status = await shim.ended(SIGNAL_GRACE_MS + 3 * 10_000)
        told.outcome = `exit ${status}`
        assert.equal(status, expected.status)
        assert.match(shim.log.join('\n'), expected.says)
        assert.deepEqual(standin.pids.filter(isAlive), [], 'a QEMU was left behind')
        assert.deepEqual(shim.sockets.filter(existsSync), [], 'a socket was left behind')
        if (expected.starts !== undefined) assert.equal(standin.pids.length, expected.starts)
      } finally {
        await shim.stop()
      }
    })
  }
  const started = (shim, standin) => shim.until(async () => standin.pids.length > 0)
  const kernel = join(directory, 'no-kernel')
  writeFileSync(kernel, 'This is not a kernel.\n')

  const always = row('every boot stays silent for 10 s: three are tried', { silent: 99 }, async () => {}, {
    ...{ status: 1, says: /vmm-shim: boot: the console went silent in each of 3 attempts/, starts: 3 },
  })
  await row('a file that is not a kernel', { silent: 0, args: ['--kernel', kernel] }, async () => {}, {
    ...{ status: 1, says: /vmm-shim: boot: QEMU exited with status 1: qemu: invalid kernel header/, starts: 1 },
  })
  const killed = async (shim, standin) => {
    await started(shim, standin)
    process.kill(standin.pids[0], 'SIGKILL')
  }
  await row('QEMU is killed while it boots', { silent: 99 }, killed, {
    ...{ status: 1, says: /vmm-shim: boot: QEMU was killed by SIGKILL/, starts: 1 },
  })
  for (const signal of ['SIGTERM', 'SIGINT']) {
    const interrupted = async (shim, standin) => {
      await started(shim, standin)
      shim.signal(signal)
    }
    await row(`${signal} while it boots`, { silent: 99 }, interrupted, { status: 0, says: /^(?!.*vmm-shim: )/s, starts: 1 })
  }
  await always
}

/** `npm run demo -- --qemu`, as the program that it starts. */
export async function demo({ checks, directory, cacheDir }) {
  const play = (env = {}) =>
    promisify(execFile)(process.execPath, [MAIN, 'demo', '--qemu', '--cache-dir', cacheDir], {
      ...{ env: { ...process.env, ...env }, timeout: DEMO_MS },
    })
  await checks.check('demo --qemu: all of its steps hold', async () => {
    const { stdout } = await play()
    assert.match(stdout, /✔ all 7 steps hold/)
    for (const said of ['console ', 'api ', 'guest ', 'stream '])
      assert.ok(stdout.includes(`\n    ${said}`), `nothing by ${said}`)
  })
  await checks.check('demo --qemu without QEMU says what to install', async () => {
    await assert.rejects(play({ PATH: withoutQemu(join(directory, 'no-qemu')) }), ({ code, stderr }) => {
      assert.equal(code, 1)
      assert.match(stderr, /qemu-system-x86_64 is not installed. On Debian: apt-get install qemu-system-x86/)
      return true
    })
  })
}

/** A folder with Debian's tools for images and without QEMU. On most hosts one folder has both. */
function withoutQemu(folder) {
  mkdirSync(folder)
  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb', 'ldd', 'mkfs.ext4', 'xz']) {
    const place = [...process.env.PATH.split(':'), '/usr/sbin', '/sbin'].find((each) => existsSync(join(each, tool)))
    symlinkSync(join(place, tool), join(folder, tool))
  }
  return folder
}

export function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
