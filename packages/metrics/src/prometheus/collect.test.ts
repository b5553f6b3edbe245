import { channel } from 'node:diagnostics_channel'
import { PassThrough } from 'node:stream'
import { type Dial, UpcallClient } from '@upcall/client'
import { DeviceManager } from '@upcall/device-manager'
import { simulatedGuest } from '@upcall/device-manager/guest'
import { collectGarbage } from '@upcall/foundation/testing/collect-garbage'
import { simulatedDial } from '@upcall/testkit'
import { Registry } from 'prom-client'
import { expect, onTestFinished, test, vi } from 'vitest'
import { answering, service } from '../../../client/testing/toy-guest.js'
import { FakeDevice } from '../../testing/fake-device.js'
import { samplesOf } from '../../testing/samples.js'
import { DURATION_BUCKETS } from '../catalog.js'
import { type CollectOptions, collectMetrics } from './collect.js'

async function collection(options: CollectOptions = {}) {
  const metrics = await collectMetrics({ register: new Registry(), ...options })
  onTestFinished(() => metrics[Symbol.dispose]())
  return { metrics, read: async () => samplesOf(await metrics.register.metrics()) }
}

async function guest(remote = 'guest') {
  const dial = simulatedDial(simulatedGuest({ kernel: '6.1', arch: 'x86_64' }))
  const manager = new DeviceManager({ arch: 'x86_64', dial, remote })
  onTestFinished(async () => {
    await manager.close()
    await dial.close()
  })
  await manager.ready()
  return manager
}

/** Without what is there before it happens. */
const happened = (samples: Record<string, number>) => Object.fromEntries(Object.entries(samples).filter(([, value]) => value > 0))

test('each request is counted by its operation and its outcome, and no label has an address', async () => {
  const { read } = await collection()
  const manager = await guest()
  await manager.addMmio({ base: 0xd000_0000n, size: 0x1000n, irq: 5 })
  await manager.addMmio({ base: 0xd000_2000n, size: 0x1000n, irq: 6 })
  // 6.1 knows no such window.
  await expect(manager.removeMmio({ base: 0xf000_0000n, size: 0x1000n, irq: 5 })).rejects.toMatchObject({
    outcome: 'guest-error',
  })
  await manager.request({ type: 'RAW', messageType: 77, load: new Uint8Array() }).catch(() => {})
  await expect(manager.addMmio({ base: -1n, size: 0x1000n, irq: 5 })).rejects.toThrow()
  const abort = new AbortController()
  const given = manager.addMmio({ base: 0xd000_4000n, size: 0x1000n, irq: 7 }, { signal: abort.signal })
  abort.abort()
  await expect(given).rejects.toMatchObject({ outcome: 'indeterminate' })
  const samples = await read()
  expect(happened(samples.of('upcall_requests_total'))).toEqual({
    'op=mmio.add,outcome=ok': 2,
    'op=mmio.add,outcome=indeterminate': 1,
    'op=mmio.remove,outcome=guest-error': 1,
    'op=request,outcome=guest-error': 1,
    'op=invalid,outcome=not-sent': 1,
  })
  expect(samples.of('upcall_request_failures_total')).toEqual({
    'code=ENODEV,op=mmio.remove': 1,
    'code=EPERM,op=request': 1,
    'code=ARGUMENT,op=invalid': 1,
    'code=ABORTED,op=mmio.add': 1,
  })
  expect(samples.of('upcall_request_duration_seconds_count')).toEqual({ 'op=mmio.add': 3, 'op=mmio.remove': 1, 'op=request': 1 })
  expect(happened(samples.of('upcall_reconnects_total'))).toEqual({ 'reason=request-aborted': 1 })
})

test('what may happen is there as zero, so that Prometheus sees the first one too', async () => {
  const { read } = await collection()
  const manager = await guest()
  // Before any request: the first reconnect may be that of a guest that boots.
  expect(Object.keys((await read()).of('upcall_reconnects_total'))).toHaveLength(8)
  await manager.addMmio({ base: 0xd000_0000n, size: 0x1000n, irq: 5 })
  const samples = await read()
  expect(samples.of('upcall_requests_total')).toEqual({
    'op=mmio.add,outcome=ok': 1,
    'op=mmio.add,outcome=guest-error': 0,
    'op=mmio.add,outcome=not-sent': 0,
    'op=mmio.add,outcome=indeterminate': 0,
  })
  expect(samples.of('upcall_reconnects_total')).toEqual({
    'reason=dial-failed': 0,
    'reason=dial-timeout': 0,
    'reason=greeting-timeout': 0,
    'reason=disconnected': 0,
    'reason=protocol': 0,
    'reason=request-timeout': 0,
    'reason=request-aborted': 0,
    'reason=clean-channel': 0,
  })
})

test('a failure is counted with its code: a time that ran out, a connection that ended, a closed client', async () => {
  const { read } = await collection()
  /** Greets, and hangs up at the first request. */
  const dial = async () => {
    const stream = answering()
    const { write } = stream
    let writes = 0
    const hangUp = () => !stream.destroy()
    const first = (chunk: Uint8Array) => write.call(stream, chunk, 'utf8')
    return Object.assign(stream, { write: (chunk: Uint8Array) => (++writes === 1 ? first(chunk) : hangUp()) })
  }
  const client = new UpcallClient({ service, dial, reconnect: false })
  await client.ready()
  await expect(client.request('x')).rejects.toMatchObject({ code: 'DISCONNECTED' })
  await client.close()
  await expect(client.request('x')).rejects.toMatchObject({ code: 'CLOSED' })
  const never: Dial = ({ signal }) => new Promise((_, reject) => signal.addEventListener('abort', reject))
  const late = new UpcallClient({ service, dial: never })
  onTestFinished(() => late.close())
  await expect(late.request('x', { timeoutMs: 1 })).rejects.toMatchObject({ code: 'TIMEOUT' })
  const samples = await read()
  expect(samples.of('upcall_request_failures_total')).toEqual({
    'code=DISCONNECTED,op=request': 1,
    'code=CLOSED,op=request': 1,
    'code=TIMEOUT,op=request': 1,
  })
  expect(happened(samples.of('upcall_requests_total'))).toEqual({
    'op=request,outcome=indeterminate': 1,
    'op=request,outcome=not-sent': 2,
  })
})

test('the duration is that from the call to the end, in seconds', async () => {
  let now = 1_000
  const { read } = await collection({ now: () => now })
  // The answer takes 30 ms.
  const slow = {
    ...service,
    decode() {
      now += 30
      return 'reply'
    },
  }
  const client = new UpcallClient({ service: slow, dial: async () => answering() })
  onTestFinished(() => client.close())
  await client.request('x')
  const samples = await read()
  expect(samples.of('upcall_request_duration_seconds_sum')).toEqual({ 'op=request': expect.closeTo(0.03, 9) })
  const buckets = Object.entries(samples.of('upcall_request_duration_seconds_bucket'))
  expect(buckets.map(([, value]) => value)).toEqual([...DURATION_BUCKETS.map((bound) => (bound >= 0.03 ? 1 : 0)), 1])
})

test('a session is in one state, and in none when it is closed', async () => {
  const { read } = await collection()
  const states = async () => (await read()).of('upcall_state')
  const nothing = {
    'state=WaitingServer': 0,
    'state=WaitingService': 0,
    'state=ServiceConnected': 0,
    'state=ServiceBusy': 0,
    'state=ReconnectError': 0,
  }
  expect(await states()).toEqual(nothing)
  const [first, second] = [await guest(), await guest()]
  expect(await states()).toEqual({ ...nothing, 'state=ServiceConnected': 2 })
  const silent = new UpcallClient({ service, dial: async () => new PassThrough().resume(), reconnect: false })
  silent.ready().catch(() => {})
  await expect.poll(states).toEqual({ ...nothing, 'state=ServiceConnected': 2, 'state=WaitingService': 1 })
  await silent.close()
  await first.close()
  expect(await states()).toEqual({ ...nothing, 'state=ServiceConnected': 1 })
  await second.close()
  expect(await states()).toEqual(nothing)
})

test('with perRemote each remote has its states, which go away with the session', async () => {
  const { read } = await collection({ perRemote: true })
  const states = async () => (await read()).of('upcall_state')
  const [first] = [await guest('vm 1'), await guest('vm 2')]
  const before = await states()
  expect(Object.keys(before)).toHaveLength(10)
  expect(before).toMatchObject({ 'remote=vm 1,state=ServiceConnected': 1, 'remote=vm 2,state=WaitingServer': 0 })
  await first.close()
  const after = await states()
  expect(Object.keys(after)).toHaveLength(5)
  expect(after).toMatchObject({ 'remote=vm 2,state=ServiceConnected': 1 })
})

test('a client that is dropped is collected, and its gauge with it', async () => {
  const { read } = await collection()
  const seen = await (async () => {
    const client = new UpcallClient({ service, dial: () => Promise.reject(new Error('no')), reconnect: false })
    await client.request('x').catch(() => {})
    expect((await read()).of('upcall_state')).toMatchObject({ 'state=ReconnectError': 1 })
    return new WeakRef(client)
  })()
  await expect
    .poll(() => {
      collectGarbage()
      return seen.deref() === undefined
    })
    .toBe(true)
  expect((await read()).of('upcall_state')).toMatchObject({ 'state=ReconnectError': 0 })
})

test('a reconnect is counted with its reason', async () => {
  const { read } = await collection()
  let attempts = 0
  const dial = async () => (++attempts === 1 ? Promise.reject(new Error('no guest')) : answering())
  const client = new UpcallClient({ service, dial, reconnect: { minDelayMs: 1, maxDelayMs: 1 } })
  onTestFinished(() => client.close())
  await client.ready()
  expect(happened((await read()).of('upcall_reconnects_total'))).toEqual({ 'reason=dial-failed': 1 })
})

test('handshakes and connects that fail are counted with their reason, an abort is not', async () => {
  const { read } = await collection()
  const { publish } = channel('upcall:vsock')
  const tell = publish.bind(channel('upcall:vsock'))
  tell({ type: 'refused', path: '/s', port: 1, reason: 'no-route' })
  tell({ type: 'connect-failed', error: { code: 'ECONNREFUSED' } })
  tell({ type: 'connect-failed', error: { code: 'ECONNREFUSED' } })
  tell({ type: 'pass-failed', error: { code: 'EPROTO' } })
  tell({ type: 'connect-failed', error: { code: 'ABORTED' } })
  tell({ type: 'connect-failed', error: { code: 'a text of /some/where' } })
  tell({ type: 'connected' })
  expect((await read()).of('vsock_handshake_failures_total')).toEqual({
    'reason=no-route': 1,
    'reason=ECONNREFUSED': 2,
    'reason=EPROTO': 1,
    'reason=other': 1,
  })
})

test('a service with words of its own makes no more than a hundred operations', async () => {
  const { read } = await collection()
  const words: string[] = Array.from({ length: 130 }, (_, i) => `word${i} 0x${i}`)
  const client = new UpcallClient({ service: { ...service, describe: (word: string) => word }, dial: async () => answering() })
  onTestFinished(() => client.close())
  for (const word of [...words, '0xd0000000', '']) await client.request(word)
  const counted = happened((await read()).of('upcall_requests_total'))
  expect(Object.keys(counted)).toHaveLength(101)
  expect(counted).toMatchObject({ 'op=word99,outcome=ok': 1, 'op=other,outcome=ok': 32 })
})

test('devices are found by their channel, and their counters are read when the registry is asked', async () => {
  const { read, metrics } = await collection()
  const [first, second] = [new FakeDevice(3), new FakeDevice(4)]
  first.tell({ type: 'listening' })
  second.tell({ type: 'listening' })
  metrics.observeDevice(second)
  first.count({ packets: 2, bytes: 100, stalls: 1 })
  second.count({ packets: 5, bytes: 1 })
  second.connections = 7
  const samples = await read()
  expect(samples.of('vsock_device_packets_total')).toEqual({ 'direction=from-guest': 7, 'direction=to-guest': 14 })
  expect(samples.of('vsock_device_bytes_total')).toEqual({ 'direction=from-guest': 101, 'direction=to-guest': 202 })
  expect(samples.of('vsock_device_credit_stalls_total')).toEqual({ '': 1 })
  expect(samples.of('vsock_device_open_connections')).toEqual({ '': 7 })
  expect(samples.of('vsock_device_state')).toEqual({
    'state=waiting': 0,
    'state=attached': 0,
    'state=running': 2,
    'state=faulted': 0,
  })
})

test('a sum keeps what a closed device has counted, once', async () => {
  const { read } = await collection()
  const [first, second] = [new FakeDevice(3), new FakeDevice(3)]
  first.tell({ type: 'listening' })
  second.tell({ type: 'listening' })
  first.count({ packets: 2 })
  second.count({ packets: 3 })
  await read()
  first.count({ packets: 10 })
  first.state = 'closed'
  first.tell({ type: 'state' })
  for (const _ of [1, 2]) expect((await read()).of('vsock_device_packets_total')).toMatchObject({ 'direction=from-guest': 15 })
  expect((await read()).of('vsock_device_state')).toMatchObject({ 'state=running': 1 })
})

test('what a device counts until it closes is kept, also without a scrape meanwhile', async () => {
  const { read } = await collection()
  const seen = (() => {
    const device = new FakeDevice(3)
    device.tell({ type: 'listening' })
    device.count({ packets: 5 })
    device.state = 'closed'
    device.tell({ type: 'state', state: 'closed' })
    return new WeakRef(device)
  })()
  await expect
    .poll(() => {
      collectGarbage()
      return seen.deref() === undefined
    })
    .toBe(true)
  expect((await read()).of('vsock_device_packets_total')).toEqual({ 'direction=from-guest': 5, 'direction=to-guest': 10 })
})

test('refusals and recoveries of a device that is closed stay in a sum, and go away with perGuest', async () => {
  const [sum, each] = [await collection(), await collection({ perGuest: true })]
  const device = new FakeDevice(3)
  device.tell({ type: 'refused', refusal: { reason: 'policy-port' } })
  device.tell({ type: 'recovery', ring: 'rx' })
  expect((await each.read()).of('vsock_device_refusals_total')).toEqual({ 'cid=3,reason=policy-port': 1 })
  device.state = 'closed'
  device.tell({ type: 'state', state: 'closed' })
  for (const _ of [1, 2]) {
    expect((await sum.read()).of('vsock_device_refusals_total')).toEqual({ 'reason=policy-port': 1 })
    expect((await sum.read()).of('vsock_device_recoveries_total')).toEqual({ 'ring=rx': 1 })
    expect((await each.read()).of('vsock_device_refusals_total')).toEqual({})
    expect((await each.read()).of('vsock_device_recoveries_total')).toEqual({})
  }
})

test('with perGuest each guest has its series, which go away with its device', async () => {
  const { read } = await collection({ perGuest: true })
  const [first, second] = [new FakeDevice(3), new FakeDevice(4)]
  first.tell({ type: 'listening' })
  second.tell({ type: 'refused', refusal: { reason: 'policy-port' } })
  second.tell({ type: 'recovery', ring: 'rx' })
  first.count({ packets: 2 })
  const samples = await read()
  expect(samples.of('vsock_device_packets_total')).toMatchObject({
    'cid=3,direction=from-guest': 2,
    'cid=4,direction=to-guest': 0,
  })
  expect(samples.of('vsock_device_refusals_total')).toEqual({ 'cid=4,reason=policy-port': 1 })
  expect(samples.of('vsock_device_recoveries_total')).toEqual({ 'cid=4,ring=rx': 1 })
  first.state = 'closed'
  expect(Object.keys((await read()).of('vsock_device_packets_total'))).toEqual([
    'cid=4,direction=from-guest',
    'cid=4,direction=to-guest',
  ])
})

test('two registries count alike; a disposed one is empty and counts no more', async () => {
  const [one, other] = [await collection(), await collection()]
  channel('upcall:vsock').publish({ type: 'refused', reason: 'timeout' })
  one.metrics[Symbol.dispose]()
  one.metrics[Symbol.dispose]()
  channel('upcall:vsock').publish({ type: 'refused', reason: 'timeout' })
  expect((await other.read()).of('vsock_handshake_failures_total')).toEqual({ 'reason=timeout': 2 })
  expect(one.metrics.register.getMetricsAsArray()).toEqual([])
  other.metrics[Symbol.dispose]()
  expect(channel('upcall:vsock').hasSubscribers).toBe(false)
  expect(channel('upcall:client').hasSubscribers).toBe(false)
  expect(channel('upcall:vhost-user').hasSubscribers).toBe(false)
})

test('a registry that has the metrics already is refused and left as it was', async () => {
  const { metrics } = await collection()
  await expect(collectMetrics({ register: metrics.register })).rejects.toMatchObject({
    code: 'ALREADY_COLLECTED',
    message:
      'collectMetrics upcall_requests_total: the registry has a metric of this name already. Dispose of the other collection first, or pass a register of your own.',
  })
  channel('upcall:vsock').publish({ type: 'refused', reason: 'timeout' })
  expect(await metrics.register.metrics()).toContain('vsock_handshake_failures_total{reason="timeout"} 1')
})

test('the metrics of the process are added once, when they are asked for', async () => {
  const register = new Registry()
  const { metrics } = await collection({ register, processMetrics: true })
  metrics[Symbol.dispose]()
  const { read } = await collection({ register, processMetrics: true })
  expect((await read()).of('process_resident_memory_bytes')).toEqual({ '': expect.any(Number) })
  expect((await (await collection()).read()).of('process_resident_memory_bytes')).toEqual({})
})

test('without prom-client the error says what to install', async () => {
  vi.doMock('prom-client', () => {
    throw Object.assign(new Error("Cannot find package 'prom-client'"), { code: 'ERR_MODULE_NOT_FOUND' })
  })
  onTestFinished(() => void vi.doUnmock('prom-client'))
  await expect(collectMetrics()).rejects.toMatchObject({
    code: 'PEER_MISSING',
    message:
      'collectMetrics prom-client: the package cannot be loaded. It is an optional peer of @upcall/metrics: run "npm install prom-client".',
  })
})
