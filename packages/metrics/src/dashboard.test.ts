import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { binding, cleanups, folder } from '../../vhost-user/testing/scene.js'
import { dashboard, readsOf, sent, targets } from '../testing/dashboard.js'
import { DASHBOARD } from '../testing/dashboard-schema.js'
import { hasPrometheus, Prometheus } from '../testing/prometheus.js'
import { hasPromtool, needsPromtool, promtool, promtoolSays } from '../testing/promtool.js'
import { realRun } from '../testing/real-run.js'
import { violations } from '../testing/schema.js'
import { CATALOG } from './catalog.js'
import { serveMetrics } from './prometheus.js'

const scrapes = binding !== undefined && hasPrometheus
let prometheus: Prometheus | undefined
beforeAll(async () => {
  if (scrapes) prometheus = await Prometheus.begin()
})
afterAll(() => prometheus?.close())

test("the dashboard is one by Grafana's schema", () => {
  expect(violations(DASHBOARD, dashboard)).toEqual([])
})

test.each([
  [
    { panels: [{ ...dashboard.panels[1], gridPos: { h: 4, w: 25, x: 0, y: 0 } }] },
    '$.panels[0].gridPos.w: must be from 1 to 24, got 25',
  ],
  [{ panels: [{ ...dashboard.panels[1], type: 'graph' }] }, /^\$\.panels\[0\]: is of no known type/],
  [{ panels: [] }, '$.panels: must have 1 items, got []'],
  [{ uid: 'short' }, '$.uid: must match ^[a-zA-Z0-9_-]{8,40}$, got "short"'],
  [{ graphTooltip: 3 }, '$.graphTooltip: must be one of 0, 1, 2, got 3'],
  [{ time: { from: 'now-1h' } }, '$.time: to is missing'],
  [{ editable: 'yes' }, '$.editable: must be of type boolean, got "yes"'],
])('the schema finds a fault: %#', (fault, found) => {
  expect(violations(DASHBOARD, { ...dashboard, ...fault })).toEqual([
    typeof found === 'string' ? found : expect.stringMatching(found),
  ])
})

test('panels have ids of their own, and none lies over another', () => {
  const { panels } = dashboard
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
  )
  expect(new Set(cells).size).toBe(cells.length)
  expect(Math.max(...panels.map(({ gridPos: { x, w } }) => x + w))).toBe(24)
})

test('every expression asks for the job and the instance that were chosen', () => {
  for (const { expr } of targets) {
    const selectors = [...expr.matchAll(/[a-z_:]+\{([^}]*)\}/g)].map(([, selector]) => selector)
    expect(selectors).not.toEqual([])
    for (const selector of selectors) expect(selector).toMatch(/^job=~"\$job", instance=~"\$instance"(, |$)/)
  }
})

test('every metric is on the dashboard', () => {
  const shown = new Set(targets.flatMap((target) => [...readsOf(target).keys()].map((name) => name.replace(/_bucket$/, ''))))
  expect([...shown].sort()).toEqual(
    Object.values(CATALOG)
      .map(({ name }) => name)
      .sort(),
  )
})

describe.runIf(binding !== undefined)('a real run', () => {
  test('has every metric and every label that the dashboard asks for', async () => {
    const exposed = await (await realRun()).register.metrics()
    for (const target of targets)
      for (const [name, labels] of readsOf(target)) {
        if (name === 'vsock_device_recoveries_total') continue
        const samples = exposed.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
        expect(samples, `${target.title}: ${name}`).not.toEqual([])
        for (const label of labels)
          if (label !== 'job' && label !== 'instance')
            for (const sample of samples) expect(sample, target.title).toMatch(new RegExp(`[{,]${label}="`))
      }
  })

  test.runIf(hasPromtool)(`promtool has nothing against it${needsPromtool}`, async () => {
    expect(promtoolSays(await (await realRun()).register.metrics())).toEqual([])
    expect(promtoolSays('# HELP x_total x\n# TYPE x_total gauge\nx_total 1\n')).not.toEqual([])
  })
})

test.runIf(hasPromtool)(`promtool reads every expression of the dashboard${needsPromtool}`, () => {
  const check = (exprs: readonly string[]) => {
    const rules = exprs.map((expr, i) => ({ record: `panel:${i}`, expr }))
    const path = join(folder, 'rules.yaml')
    writeFileSync(path, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
    return promtool(['check', 'rules', path])
  }
  expect(check(targets.map(({ expr }) => sent(expr)))).toMatchObject({
    status: 0,
    said: expect.stringContaining(`SUCCESS: ${targets.length} rules found`),
  })
  expect(check(['sum(rate(x[1m])'])).toMatchObject({ status: 1 })
})

// The last one: Prometheus needs a while to begin.
test.runIf(scrapes)(
  'Prometheus (skipped without it) scrapes a real run and answers every expression of the dashboard',
  async () => {
    const { target, query } = { target: prometheus!.target, query: (expr: string) => prometheus!.query(expr) }
    const { register } = await realRun()
    const server = await serveMetrics({ register, port: target })
    cleanups.push(() => server.close())
    const value = async (expr: string) => (await query(expr).catch(() => undefined))?.data?.result[0]?.value[1]
    await expect.poll(() => value('sum(count_over_time(upcall_requests_total[1m]) > bool 1)'), { timeout: 20_000 }).toBe('8')
    expect(await value('up{job="upcall"}')).toBe('1')
    expect(await value('upcall_requests_total{op="mmio.remove",outcome="guest-error"}')).toBe('1')
    expect(await value('upcall_request_failures_total{code="ENODEV"}')).toBe('1')
    expect(await value('sum(upcall_state)')).toBe('1')
    expect(await value('vsock_handshake_failures_total{reason="no-route"}')).toBe('1')
    for (const { title, expr } of targets) {
      const { status, error, data } = await query(sent(expr))
      expect([title, status, error]).toEqual([title, 'success', undefined])
      // Nothing had to be recovered.
      if (!expr.includes('recoveries')) expect(data!.result, `${title}: ${expr}`).not.toEqual([])
    }
  },
)
