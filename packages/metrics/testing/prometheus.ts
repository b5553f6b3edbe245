import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Whether Debian's package `prometheus` is installed. In CI it has to be. */
export const hasPrometheus = process.env.CI !== undefined || spawnSync('prometheus', ['--version']).status === 0

export interface Answer {
  readonly status: string
  readonly error?: string
  readonly data?: { readonly result: readonly { readonly metric: Record<string, string>; readonly value: [number, string] }[] }
}

/** Debian's Prometheus. It scrapes one port of 127.0.0.1 five times a second. */
export class Prometheus {
  /** Where the metrics are to be served. */
  readonly target: number
  readonly #port: number
  readonly #directory = mkdtempSync(join(tmpdir(), 'prometheus-'))
  readonly #end: () => Promise<unknown>

  private constructor(target: number, port: number) {
    this.target = target
    this.#port = port
    const config = join(this.#directory, 'prometheus.yml')
    const scrape = {
      job_name: 'upcall',
      scrape_interval: '200ms',
      scrape_timeout: '200ms',
      static_configs: [{ targets: [`127.0.0.1:${target}`] }],
    }
    writeFileSync(config, JSON.stringify({ scrape_configs: [scrape] }))
    const where = [`--config.file=${config}`, `--storage.tsdb.path=${join(this.#directory, 'data')}`]
    const how = [`--web.listen-address=127.0.0.1:${port}`, '--log.level=error', '--scrape.discovery-reload-interval=100ms']
    const child = spawn('prometheus', [...where, ...how], { stdio: 'ignore' })
    const ended = once(child, 'exit')
    this.#end = () => {
      child.kill('SIGKILL')
      return ended
    }
  }

  /** It looks for its targets five seconds after it has begun, whatever its configuration says: begin early. */
  static async begin(): Promise<Prometheus> {
    return new Prometheus(await freePort(), await freePort())
  }

  async query(expr: string): Promise<Answer> {
    const answer = await fetch(`http://127.0.0.1:${this.#port}/api/v1/query?query=${encodeURIComponent(expr)}`)
    return (await answer.json()) as Answer
  }

  async close(): Promise<void> {
    await this.#end()
    rmSync(this.#directory, { recursive: true })
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}
