import { AsyncLocalStorage } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import { PassThrough } from 'node:stream'
import { type Context, type ContextManager, context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { DataPointType, MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { UpcallClient } from '@upcall/client'
import { DeviceManager } from '@upcall/device-manager'
import { simulatedGuest } from '@upcall/device-manager/guest'
import { simulatedDial } from '@upcall/testkit'
import { Registry } from 'prom-client'
import { expect, onTestFinished, test, vi } from 'vitest'
import { answering, service } from '../../../client/testing/toy-guest.js'
import { FakeDevice } from '../../testing/fake-device.js'
import { CATALOG } from '../catalog.js'
import { collectMetrics } from '../prometheus/collect.js'
import { type InstrumentOptions, instrument } from './instrument.js'

/** Which span is active, across promises: what every SDK for Node brings. */
class Contexts implements ContextManager {
  readonly #storage = new AsyncLocalStorage<Context>()
  active = () => this.#storage.getStore() ?? ROOT_CONTEXT
  with: ContextManager['with'] = (of, fn, self, ...args) => this.#storage.run(of, () => fn.call(self as never, ...args))
  bind: ContextManager['bind'] = (_, target) => target
  enable = () => this
  disable = () => this
}

class Reader extends MetricReader {
  protected override async onForceFlush() {}
  protected override async onShutdown() {}
}

async function telemetry(options: InstrumentOptions = {}) {
  const exporter = new InMemorySpanExporter()
  const spans = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  const reader = new Reader()
  const meters = new MeterProvider({ readers: [reader] })
  context.setGlobalContextManager(new Contexts())
  const tracer = spans.getTracer('test')
  const instrumented = await instrument({ tracer, meter: meters.getMeter('test'), ...options })
  onTestFinished(async () => {
    instrumented[Symbol.dispose]()
    context.disable()
    await spans.shutdown()
    await meters.shutdown()
  })
  const finished = (name: string) => exporter.getFinishedSpans().filter((span) => span.name === name)
  /** Values by attributes, of all metrics. */
  const read = async () => {
    const { resourceMetrics } = await reader.collect()
    return new Map(
      resourceMetrics.scopeMetrics
        .flatMap(({ metrics }) => metrics)
        .map(({ descriptor, dataPointType, dataPoints }) => {
          const value = (point: unknown) =>
            dataPointType === DataPointType.HISTOGRAM ? (point as { count: number }).count : point
          const points = dataPoints.map((point) => [
            Object.entries(point.attributes)
              .map((pair) => pair.join('='))
              .sort()
              .join(','),
            value(point.value),
          ])
          return [descriptor.name, Object.fromEntries(points) as Record<string, number>]
        }),
    )
  }
  return { tracer, finished, read, instrumented }
}

function guest() {
  const dial = simulatedDial(simulatedGuest({ kernel: '6.1', arch: 'x86_64' }))
  const manager = new DeviceManager({ arch: 'x86_64', dial, remote: 'vm 7' })
  onTestFinished(async () => {
    await manager.close()
    await dial.close()
  })
  return manager
}

const WINDOW = { base: 0xd000_0000n, size: 0x1000n, irq: 5 }

test('a request is a span, a child of the span that is active where it is called', async () => {
  const { tracer, finished } = await telemetry()
  const manager = guest()
  const caller = tracer.startSpan('caller')
  await context.with(trace.setSpan(context.active(), caller), async () => {
    await Promise.resolve()
    await manager.addMmio(WINDOW)
  })
  await manager.removeMmio(WINDOW)
  const [added] = finished('upcall/ADD_MMIO')
  expect(added).toMatchObject({
    kind: SpanKind.CLIENT,
    parentSpanContext: { spanId: caller.spanContext().spanId },
    status: { code: SpanStatusCode.UNSET },
    attributes: {
      'rpc.system': 'upcall',
      'rpc.method': 'ADD_MMIO',
      'server.address': 'vm 7',
      'upcall.op': 'mmio.add',
      'upcall.outcome': 'ok',
    },
  })
  expect(added!.events.map(({ name }) => name)).toEqual(['written', 'reply'])
  expect(finished('upcall/DEL_MMIO')).toMatchObject([{ parentSpanContext: undefined }])
})

test('the queue time is that until the bytes are written', async () => {
  let now = 100
  const { finished } = await telemetry({ now: () => now })
  let open!: (stream: PassThrough) => void
  const client = new UpcallClient({ service, dial: () => new Promise((resolve) => (open = resolve as typeof open)) })
  onTestFinished(() => client.close())
  const request = client.request('x')
  await expect.poll(() => open).toBeDefined()
  now += 250
  open(answering() as PassThrough)
  await request
  expect(finished('upcall/request')).toMatchObject([
    {
      attributes: { 'upcall.queue_ms': 250 },
      events: [{ name: 'written', attributes: { 'upcall.queue_ms': 250 } }, { name: 'reply' }],
    },
  ])
})

test('a refusal is an error, and so is a request that was not sent', async () => {
  const { finished } = await telemetry()
  const manager = guest()
  await expect(manager.removeMmio(WINDOW)).rejects.toThrow()
  await manager.close()
  await expect(manager.addMmio(WINDOW)).rejects.toThrow()
  expect(finished('upcall/DEL_MMIO')).toMatchObject([
    {
      status: { code: SpanStatusCode.ERROR, message: 'ENODEV: the guest refused' },
      attributes: { 'error.type': 'ENODEV', 'upcall.outcome': 'guest-error', 'upcall.errno': 'ENODEV' },
      events: [{ name: 'written' }, { name: 'reply' }],
    },
  ])
  expect(finished('upcall/ADD_MMIO')).toMatchObject([
    {
      status: { code: SpanStatusCode.ERROR, message: 'CLOSED: the client is closed' },
      attributes: { 'error.type': 'CLOSED', 'upcall.outcome': 'not-sent' },
      events: [],
    },
  ])
})

test('each attempt to reach the guest is a span, of no caller', async () => {
  const { tracer, finished } = await telemetry()
  let attempts = 0
  const dial = async () => (++attempts === 1 ? Promise.reject(new Error('no guest')) : answering())
  const caller = tracer.startSpan('caller')
  await context.with(trace.setSpan(context.active(), caller), async () => {
    const client = new UpcallClient({ service, dial, remote: 'vm 8', reconnect: { minDelayMs: 1, maxDelayMs: 1 } })
    onTestFinished(() => client.close())
    await client.ready()
  })
  expect(finished('upcall/connect')).toMatchObject([
    {
      parentSpanContext: undefined,
      status: { code: SpanStatusCode.ERROR },
      attributes: { 'error.type': 'dial-failed', 'rpc.system': 'upcall', 'server.address': 'vm 8' },
    },
    { parentSpanContext: undefined, status: { code: SpanStatusCode.UNSET }, events: [{ name: 'dialed' }] },
  ])
})

test('an attempt ends when the client gives up, and when it is closed', async () => {
  const { finished } = await telemetry()
  const given = new UpcallClient({ service, dial: () => Promise.reject(new Error('no guest')), reconnect: false })
  await expect(given.ready()).rejects.toThrow()
  const closed = new UpcallClient({ service, dial: async () => new PassThrough().resume() })
  await expect.poll(() => closed.state).toBe('WaitingService')
  await closed.close()
  await given.close()
  expect(finished('upcall/connect')).toMatchObject([
    { status: { code: SpanStatusCode.ERROR, message: expect.stringContaining('no guest') } },
    { attributes: { 'error.type': 'CLOSED' } },
  ])
})

test('the metrics are those of Prometheus, with the same names and attributes', async () => {
  const { read } = await telemetry({ perRemote: true, perGuest: true })
  const prometheus = await collectMetrics({ register: new Registry(), perRemote: true, perGuest: true })
  onTestFinished(() => prometheus[Symbol.dispose]())
  const device = new FakeDevice(3)
  device.tell({ type: 'refused', refusal: { reason: 'policy-port' } })
  device.tell({ type: 'recovery', ring: 'rx' })
  device.count({ packets: 2, bytes: 9, stalls: 1 })
  channel('upcall:vsock').publish({ type: 'refused', reason: 'no-route' })
  let attempts = 0
  const dial = async () => (++attempts === 1 ? Promise.reject(new Error('no guest')) : answering())
  const client = new UpcallClient({ service, dial, reconnect: { minDelayMs: 1, maxDelayMs: 1 } })
  onTestFinished(() => client.close())
  await client.request('x')
  const closed = new UpcallClient({ service, dial })
  await closed.close()
  await closed.request('x').catch(() => {})
  const found = await read()
  expect([...found.keys()].sort()).toEqual(
    Object.values(CATALOG)
      .map(({ name }) => name)
      .sort(),
  )
  const sorted = (labels: object) =>
    Object.entries(labels)
      .map((pair) => pair.join('='))
      .sort()
      .join(',')
  for (const { name, values } of await prometheus.register.getMetricsAsJSON()) {
    const counts = (values as { labels: object; value: number; metricName?: string }[])
      .filter(({ metricName }) => metricName === undefined || metricName.endsWith('_count') || metricName === name)
      .map(({ labels, value }) => [sorted(labels), value])
    expect([name, found.get(name)]).toEqual([name, Object.fromEntries(counts)])
  }
})

test('after the disposal nothing is counted and nothing is traced', async () => {
  const { read, finished, instrumented } = await telemetry()
  instrumented[Symbol.dispose]()
  instrumented[Symbol.dispose]()
  expect(channel('upcall:client').hasSubscribers).toBe(false)
  await guest().addMmio(WINDOW)
  expect(finished('upcall/ADD_MMIO')).toEqual([])
  expect(await read()).toEqual(new Map())
})

test('either of the two can be left out', async () => {
  const { finished, read } = await telemetry({ meter: null })
  await guest().addMmio(WINDOW)
  expect([finished('upcall/ADD_MMIO').length, (await read()).size]).toEqual([1, 0])
})

test('without @opentelemetry/api the error says what to install', async () => {
  vi.doMock('@opentelemetry/api', () => {
    throw Object.assign(new Error("Cannot find package '@opentelemetry/api'"), { code: 'ERR_MODULE_NOT_FOUND' })
  })
  onTestFinished(() => void vi.doUnmock('@opentelemetry/api'))
  await expect(instrument()).rejects.toMatchObject({
    code: 'PEER_MISSING',
    message:
      'instrument @opentelemetry/api: the package cannot be loaded. It is an optional peer of @upcall/metrics: run "npm install @opentelemetry/api".',
  })
})
