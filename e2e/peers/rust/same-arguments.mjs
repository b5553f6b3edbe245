// The arguments and the file of vhost-device-vsock, given to it and to `upcall vsock device`: both take them, or both refuse them.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { UPCALL } from '../../upcall.mjs'
import { until } from '../../vhost-user/scene.mjs'

/** `<dir>` stands for a folder. `paths`: what appears there; without it, the arguments are refused. */
const CASES = [
  { args: ['--guest-cid=4', '--socket=<dir>/s', '--uds-path=<dir>/u'], paths: ['s', 'u'] },
  { args: ['--socket', '<dir>/s', '--uds-path', '<dir>/u', '--queue-size', '256', '--groups', 'a+b'], paths: ['s', 'u'] },
  { args: ['--vm', 'socket=<dir>/s,uds-path=<dir>/u,tx_buffer_size=65536,queue_size=1024'], paths: ['s', 'u'] },
  {
    args: ['--vm', 'guest-cid=3,socket=<dir>/s,uds-path=<dir>/u', '--vm', 'guest-cid=4,socket=<dir>/t,uds-path=<dir>/v'],
    paths: ['s', 'u', 't', 'v'],
  },
  {
    file: 'vms:\n  - guest_cid: 3\n    socket: <dir>/s\n    uds_path: <dir>/u\n    groups: a+b\n  - {guest_cid: 4, socket: <dir>/t, uds_path: <dir>/v, queue_size: 64}\n',
    paths: ['s', 'u', 't', 'v'],
  },
  { args: [] },
  { args: ['--guest-cid', '4'] },
  { args: ['--socket=<dir>/s'] },
  { args: ['--socket=<dir>/s', '--uds-path=<dir>/u', '--forward-cid=1'] },
  { args: ['--socket=<dir>/s', '--uds-path=<dir>/u', '--queue-size=1000'] },
  { args: ['--socket=<dir>/s', '--uds-path=<dir>/u', '--guest-cid=three'] },
  { args: ['--vm', 'socket=<dir>/s'] },
  { args: ['--vm', 'uds-path=<dir>/u'] },
  { args: ['--vm', 'socket=<dir>/s,uds-path=<dir>/u,color=red'] },
  { args: ['--vm', 'socket=<dir>/s,uds-path=<dir>/u', '--guest-cid=4'] },
  { args: ['--vm', 'socket=<dir>/s,uds-path=<dir>/u', '--vm', 'socket=<dir>/t,uds-path=<dir>/v'] },
  { file: 'vms: []\n' },
  { file: 'vms:\n  - guest_cid: 3\n    socket: <dir>/s\n' },
  { file: 'vms:\n  - guest_cid: three\n    socket: <dir>/s\n    uds_path: <dir>/u\n' },
  { file: 'vms:\n  - socket: [\n' },
]

export async function sameArguments(checks, program, folder) {
  await checks.check(
    `vhost-device-vsock: ${CASES.length} command lines and files mean the same to upcall vsock device`,
    async () => {
      for (const { args, file, paths } of CASES) {
        const about = JSON.stringify(args ?? file)
        const outcome = async (name, command, before = []) => {
          const dir = join(folder, name)
          mkdirSync(dir)
          writeFileSync(join(dir, 'vms.yaml'), (file ?? '').replaceAll('<dir>', dir))
          const words = (args ?? ['--config', '<dir>/vms.yaml']).map((word) => word.replaceAll('<dir>', dir))
          const told = await outcomeOf(
            command,
            [...before, ...words],
            (paths ?? ['s']).map((path) => join(dir, path)),
          )
          rmSync(dir, { recursive: true })
          return told
        }
        const outcomes = await Promise.all([
          outcome('theirs', program),
          outcome('ours', process.execPath, [UPCALL, 'vsock', 'device']),
        ])
        const expected = paths === undefined ? 'refuses' : 'listens'
        assert.deepEqual(outcomes, [expected, expected], about)
      }
    },
  )
}

/** `listens` when all paths are there, `refuses` when the program ends before. */
async function outcomeOf(command, args, paths) {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  let over = false
  child.stderr.on('data', (chunk) => (stderr = `${stderr}${chunk}`.slice(-500)))
  const ended = once(child, 'close').then(() => (over = true))
  try {
    // A path that is there for a moment, before a device fails, does not count.
    const there = () => paths.every(existsSync)
    await until(`${command} ${args.join(' ')}: ${stderr}`, () => over || there())
    if (!over) await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 200))])
    return over ? 'refuses' : 'listens'
  } finally {
    child.kill('SIGKILL')
    await ended
  }
}
