// vmm-shim with its page, as people run it: a process, with the process of a simulated guest.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'

const MAIN = fileURLToPath(new URL('../../apps/vmm-shim/dist/main.js', import.meta.url))
const START_MS = 20_000

/** Runs `act` with a shim of its own. */
export async function withShim(folder, name, args, act) {
  const shim = await startShim(folder, name, ...args)
  try {
    return await act(shim)
  } finally {
    await shim.stop()
  }
}

export async function startShim(folder, name, ...args) {
  const uds = join(folder, `${name}.sock`)
  const argv = [MAIN, 'run', '--uds', uds, '--arch', 'x86_64', '--hardware', 'plugged', '--ui', '127.0.0.1:0', ...args]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'close')
  const output = []
  const url = new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream }).on('line', (line) => {
        output.push(line)
        const found = /http:\/\/127\.0\.0\.1:\d+\/[\w-]+\//.exec(line)
        if (found) resolve(found[0])
      })
  })
  const shim = {
    url: undefined,
    target: `hvsock://${uds}:219`,
    /** The guest's process. */
    get guestPid() {
      const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')
      return Number(children.at(-1))
    },
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      const late = delay(10_000, 'late', { ref: false })
      if ((await Promise.race([ended, late])) !== 'late') return
      child.kill('SIGKILL')
      await ended
    },
  }
  const failed = ended.then(([status]) => `ended with ${status}`)
  const late = delay(START_MS, `printed no address within ${START_MS} ms`, { ref: false })
  const first = await Promise.race([url.then((text) => ({ text })), failed, late])
  if (typeof first === 'string') {
    await shim.stop()
    throw new Error(`vmm-shim ${first}:\n${output.join('\n')}`)
  }
  shim.url = first.text
  return shim
}

/** Another client of the same guest, of which the VMM does not know. */
export async function asAnotherClient(target, act) {
  const manager = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(target, { signal }), remote: target })
  try {
    return await act(manager)
  } finally {
    await manager.close()
  }
}
