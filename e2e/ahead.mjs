// Work for a later suite, while the others wait for their guests: a program in the background, with what the others leave of the CPUs.
import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** It ends with this process at the latest. `done` resolves when it has ended, however that was. */
export function startAhead(program) {
  // The leader of a group: what it has started ends with it.
  const child = spawn('nice', ['-n', '19', process.execPath, program], { stdio: 'ignore', detached: true })
  const done = once(child, 'close').catch(() => {})
  const stop = () => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has ended.
    }
  }
  process.once('exit', stop)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.once(signal, () => {
      stop()
      if (process.listenerCount(signal) === 0) process.kill(process.pid, signal)
    })
  return { done }
}
