import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { binding, cleanups, folder } from '../../../vhost-user/testing/scene.js'
import { sent, targets } from '../../testing/dashboard.js'
import { realRun } from '../../testing/real-run.js'
import { serveMetrics } from './serve.js'

const hasPrometheus = process.env.CI !== undefined || spawnSync('prometheus', ['--version']).status === 0

interface Answer {
  readonly status: string
  readonly error?: string
  readonly data?: { readonly result: readonly { readonly metric: Record<string, string>; readonly value: [number, string] }[] }
}

/** Debian's Prometheus, which scrapes one target several times a second. */
async function prometheus(target: string): Promise<(query: string) => Promise<Answer>> {
  const port = await freePort()
  const [config, data] = [join(folder, 'prometheus.yml'), join(folder, 'data')]
  const scrape = {
    job_name: 'upcall',
    scrape_interval: '200ms',
    scrape_timeout: '200ms',
    static_configs: [{ targets: [target] }],
  }
  writeFileSync(config, JSON.stringify({ scrape_configs: [scrape] }))
  const listen = [`--web.listen-address=127.0.0.1:${port}`, '--log.level=error']
  const child = spawn('prometheus', [`--config.file=${config}`, `--storage.tsdb.path=${data}`, ...listen], { stdio: 'ignore' })
  const ended = once(child, 'exit')
  cleanups.push(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return async (query) => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(query)}`)
    return (await answer.json()) as Answer
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

describe.runIf(binding !== undefined && hasPrometheus)('Prometheus (skipped without it)', () => {
  test('scrapes the server, counts what happened, and has an answer to every expression of the dashboard', async () => {
    const metrics = await realRun()
    const server = await serveMetrics({ register: metrics.register })
    cleanups.push(() => server.close())
    const query = await prometheus(`127.0.0.1:${server.port}`)
    const value = async (expr: string) => (await query(expr).catch(() => undefined))?.data?.result[0]?.value[1]
    await expect.poll(() => value('count(count_over_time(upcall_requests_total[1m]) > 1)'), { timeout: 20_000 }).toBe('3')
    expect(await value('up{job="upcall"}')).toBe('1')
    expect(await value('upcall_requests_total{op="mmio.remove"}')).toBe('1')
    expect(await value('sum(upcall_state)')).toBe('1')
    expect(await value('vsock_handshake_failures_total{reason="no-route"}')).toBe('1')
    for (const { title, expr } of targets) {
      const { status, error, data } = await query(sent(expr))
      expect([title, status, error]).toEqual([title, 'success', undefined])
      // Nothing had to be recovered.
      if (!expr.includes('recoveries')) expect(data!.result, `${title}: ${expr}`).not.toEqual([])
    }
  })
})
