import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, inject } from 'vitest'
import { cleanups } from '../../../packages/vhost-user/testing/scene.js'

const addon = fileURLToPath(new URL('../../../packages/vhost-user/build/Release/upcall_vhost_user.node', import.meta.url))

export interface DeviceProgram {
  readonly child: ChildProcess
  /** Its status and signal. */
  readonly ended: Promise<unknown[]>
  /** The first line that it printed. */
  readonly first: string
}

/** `upcall --json vsock device` as a program of its own. Resolves when so many devices listen. It ends with the test at the latest. */
export async function startDeviceProgram(args: readonly string[], devices = 1): Promise<DeviceProgram> {
  const child = spawn(process.execPath, [inject('program'), '--json', 'vsock', 'device', ...args], {
    env: { ...process.env, UPCALL_VHOST_USER_ADDON: addon },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  cleanups.push(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  await expect.poll(() => said.match(/"listening"/g)?.length, { timeout: 20_000 }).toBe(devices)
  return { child, ended, first: said.split('\n')[0]! }
}
