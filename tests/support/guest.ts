import { type ChildProcess, spawn } from 'node:child_process'

/** A server in a process of its own, which can be killed. Its program has `http2` and `path`, and ends with `listening()`. */
export class ServerProcess implements AsyncDisposable {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(program: string, path: string): Promise<ServerProcess> {
    const code = `
      const [http, http2, net] = ['http', 'http2', 'net'].map((name) => require('node:' + name))
      const path = ${JSON.stringify(path)}
      require('node:fs').rmSync(path, { force: true })
      const listening = () => console.log('listening')
      process.stdin.on('end', () => process.exit()).resume()
      ${program}`
    const child = spawn(process.execPath, ['-e', code], { stdio: ['pipe', 'pipe', 'inherit'] })
    await new Promise((resolve, reject) => {
      child.stdout!.once('data', resolve)
      child.once('error', reject).once('exit', (status) => reject(new Error(`the server has ended: ${status}`)))
    })
    return new ServerProcess(child)
  }

  /** As by `kill -9`. Resolves when the process is gone. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGKILL')
    await gone
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }
}
