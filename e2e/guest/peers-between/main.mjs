// Runs in each of two guests: starts the programs that the host names.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { obey } from './commands.mjs'

obey({
  /** Runs a program to its end. */
  async finish({ command, env, timeoutMs }) {
    const child = start(command, { env, timeoutMs })
    const [stdout, stderr] = [child.stdout, child.stderr].map((stream) => {
      const chunks = []
      stream.on('data', (chunk) => chunks.push(chunk))
      return chunks
    })
    const [status, signal] = await once(child, 'close')
    return { status: status ?? signal, stdout: String(Buffer.concat(stdout)), stderr: String(Buffer.concat(stderr)) }
  },
  /** Starts a program that runs as long as the guest does. Resolves when it prints `ready`. */
  async serve({ command, ready }) {
    const child = start(command)
    child.stderr.pipe(process.stderr)
    for await (const line of createInterface({ input: child.stdout })) {
      if (!line.includes(ready)) continue
      child.stdout.resume()
      return
    }
    throw new Error(`${command.join(' ')} ended`)
  },
})

function start([program, ...args], { env = {}, timeoutMs } = {}) {
  return spawn(program, args, {
    ...{ stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' },
    env: { ...process.env, ...env },
  })
}
