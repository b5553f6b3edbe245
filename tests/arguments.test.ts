import { PassThrough } from 'node:stream'
import { UpcallClient } from '@upcall/client'
import { DeviceManager, deviceManagerProtocol } from '@upcall/device-manager'
import { linuxGuest, onlineMemory } from '@upcall/device-manager/guest'
import {
  bootGuest,
  buildGuestImage,
  buildKernelModule,
  connectQmp,
  GuestConsole,
  makeExt4,
  QmpClient,
  runInGuest,
} from '@upcall/qemu'
import { UpcallServer } from '@upcall/server'
import {
  dialSequence,
  duplexPair,
  FakeConnection,
  fakeGuest,
  faultyDial,
  ManualClock,
  memoryTransport,
  simulatedDial,
  transportCompliance,
  withoutLeaks,
} from '@upcall/testkit'
import { createVsockDevice, VhostUserVsock } from '@upcall/vhost-user'
import { connect, listen, listenHybrid } from '@upcall/vsock'
import { describe, expect, onTestFinished, test } from 'vitest'

// A function that returns a promise rejects: its caller has one place where errors come out. A constructor throws.
// Each row: a public function that returns a promise, a call that is wrong, and what the error has to name.

const nothing = undefined as never
const never = null as never
const bad = (value: unknown) => value as never
const noSignal = bad({ signal: { aborted: 'no' } })

const dial = () => new Promise<never>(() => {})
function closing<T extends { close(): unknown }>(value: T): T {
  onTestFinished(() => void value.close())
  return value
}
const client = () =>
  closing(new UpcallClient({ dial, service: deviceManagerProtocol({ arch: 'x86_64' }), timeouts: { dialMs: 1 } }))
const manager = () => closing(new DeviceManager({ dial, arch: 'x86_64', timeouts: { dialMs: 1 } }))
const device = () => new VhostUserVsock({ socketPath: '/nowhere/vm.sock', guestCid: 3 })
const connection = () => new FakeConnection(duplexPair()[0], 1, 'x86_64')
const resize = { present: [0], max: 4, start() {}, stop() {} }

/** A QMP client that has greeted, over a stream in memory. */
async function qmp(): Promise<QmpClient> {
  const [near, far] = duplexPair()
  far.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().trim().split('\n'))
      far.write(`${JSON.stringify({ return: {}, id: JSON.parse(line).id })}\n`)
  })
  far.write('{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}}}\n')
  return closing(await QmpClient.over(near))
}

type Row = [name: string, call: () => unknown, names: RegExp]

const rows: Row[] = [
  // client
  ['client.request, no options', () => client().request({ type: 'ADD_PCI', bus: 0, devfn: 8 }, never), /^options: /],
  ['client.request, nothing', () => client().request(nothing), /request/],
  ['client.request, signal', () => client().request({ type: 'ADD_PCI', bus: 0, devfn: 8 }, noSignal), /^signal: /],
  [
    'client.request, time',
    () => client().request({ type: 'ADD_PCI', bus: 0, devfn: 8 }, { timeoutMs: bad('5') }),
    /^timeoutMs: /,
  ],
  ['client.ready, no options', () => client().ready(never), /^options: /],
  ['client.ready, signal', () => client().ready(noSignal), /^signal: /],
  // device-manager
  ['manager.ready', () => manager().ready(noSignal), /^signal: /],
  ['manager.addCpus, nothing', () => manager().addCpus(nothing), /apicIds/],
  ['manager.addCpus, ids', () => manager().addCpus({ apicIds: bad([1n, 2n]) }), /^apicIds\[0\]: /],
  ['manager.addCpus, present', () => manager().addCpus({ apicIds: [1] }, { present: bad({}) }), /^present: /],
  ['manager.addCpus, ids present', () => manager().addCpus({ apicIds: [1] }, { present: bad(['0']) }), /^present\[0\]: /],
  ['manager.addCpus, signal', () => manager().addCpus({ apicIds: [1] }, noSignal), /^signal: /],
  ['manager.removeCpus, present', () => manager().removeCpus({ apicIds: [1] }, { present: bad('01') }), /^present: /],
  ['manager.addMmio, nothing', () => manager().addMmio(nothing), /base/],
  ['manager.removeMmio, number', () => manager().removeMmio({ base: bad(5), size: 1n, irq: 5 }), /^base: /],
  ['manager.addPci, number', () => manager().addPci(bad(5)), /bus/],
  ['manager.removePci, text', () => manager().removePci('5'), /bdf/],
  ['manager.request, null', () => manager().request(never), /^type: /],
  ['manager.request, options', () => manager().request({ type: 'ADD_PCI', bus: 0, devfn: 8 }, never), /^options: /],
  ['manager.resizeCpus, nothing', () => manager().resizeCpus(2, nothing), /^options: must be an object, got undefined/],
  ['manager.resizeCpus, null', () => manager().resizeCpus(2, never), /^options: /],
  ['manager.resizeCpus, start', () => manager().resizeCpus(2, { ...resize, start: nothing }), /^start: must be a function/],
  ['manager.resizeCpus, stop', () => manager().resizeCpus(2, { ...resize, stop: bad(5) }), /^stop: must be a function, got 5/],
  ['manager.resizeCpus, signal', () => manager().resizeCpus(2, { ...resize, signal: bad({}) }), /^signal: /],
  ['manager.resizeCpus, oneByOne', () => manager().resizeCpus(2, { ...resize, oneByOne: bad('no') }), /^oneByOne: /],
  ['manager.resizeCpus, target', () => manager().resizeCpus(bad('2'), resize), /^target: /],
  ['onlineMemory, null', () => onlineMemory(never), /^options: /],
  ['onlineMemory, root', () => onlineMemory({ root: bad(5) }), /^root: /],
  ['onlineMemory, policy', () => onlineMemory({ root: '/nowhere', policy: bad('offline') }), /^policy: /],
  ['onlineMemory, bytes', () => onlineMemory({ root: '/nowhere', bytes: bad(5) }), /^bytes: /],
  ['onlineMemory, time', () => onlineMemory({ root: '/nowhere', timeoutMs: Number.NaN }), /^timeoutMs: /],
  ['onlineMemory, signal', () => onlineMemory(bad({ root: '/nowhere', signal: {} })), /^signal: /],
  ['onlineMemory, clock', () => onlineMemory({ root: '/nowhere', clock: bad({}) }), /^clock/],
  // vsock
  ['connect, nothing', () => connect(nothing), /address/],
  ['connect, null', () => connect('unix:/nowhere', never), /options/],
  ['connect, signal', () => connect('unix:/nowhere', noSignal), /^signal: must be an AbortSignal, got /],
  ['listen, nothing', () => listen(nothing), /address/],
  ['listen, null', () => listen('unix:/nowhere/x', never), /options/],
  ['listen, signal', () => listen('unix:/nowhere/x', noSignal), /^signal: must be an AbortSignal, got /],
  ['listenHybrid, nothing', () => listenHybrid(nothing), /./],
  ['listenHybrid, no path', () => listenHybrid(bad({})), /./],
  // vhost-user
  ['createVsockDevice, nothing', () => createVsockDevice(nothing), /^options: /],
  [
    'createVsockDevice, cid',
    () => createVsockDevice({ socketPath: '/nowhere/vm.sock', guestCid: 2 }),
    /^guestCid: must be an integer from 3 to 4294967294, got 2/,
  ],
  ['createVsockDevice, null', () => createVsockDevice(never), /^options: /],
  ['device.connect, port', () => device().connect(bad('5')), /^port: /],
  ['device.connect, null', () => device().connect(5, never), /./],
  ['device.ready, null', () => device().ready(never), /./],
  // qemu
  ['bootGuest', () => bootGuest(nothing), /./],
  ['runInGuest', () => runInGuest(nothing), /./],
  ['buildGuestImage', () => buildGuestImage(nothing), /./],
  ['buildKernelModule', () => buildKernelModule(nothing), /./],
  ['makeExt4', () => makeExt4(nothing, nothing), /./],
  ['connectQmp, nothing', () => connectQmp(nothing), /./],
  ['connectQmp, null', () => connectQmp('/nowhere/qmp.sock', never), /./],
  ['console.waitFor, nothing', () => new GuestConsole(new ManualClock()).waitFor('x', nothing), /./],
  ['console.waitFor, pattern', () => new GuestConsole(new ManualClock()).waitFor(nothing, { timeoutMs: 1 }), /./],
  // testkit
  ['connection.reply, nothing', () => connection().reply(nothing), /./],
  ['connection.write, nothing', () => connection().write(nothing), /./],
  ['connection.read, number', () => connection().read(bad('1')), /^length: /],
  ['clock.drive, nothing', () => new ManualClock().drive(nothing), /^ManualClock\.drive: promise: /],
  ['withoutLeaks, nothing', () => withoutLeaks(nothing), /^fn: /],
  ['withoutLeaks, options', () => withoutLeaks(async () => {}, null as never), /^options: must be an object/],
  ['withoutLeaks, time', () => withoutLeaks(async () => {}, { timeoutMs: Number.NaN }), /^timeoutMs: /],
  ['memory transport, connect', () => memoryTransport().connect(1, nothing), /./],
  ['memory transport, listen', () => memoryTransport().listen(nothing), /./],
  ['fakeGuest dial', () => fakeGuest(() => {}).dial(nothing), /./],
  ['simulatedDial', () => simulatedDial({ byte: 1, open: bad(() => {}) })(nothing), /./],
  ['dialSequence', () => dialSequence('silence')(nothing), /./],
  ['faultyDial', () => faultyDial(async () => nothing, {})(nothing), /stream/],
]

describe('a function that returns a promise rejects', () => {
  test.each(rows)('%s', async (_name, call, names) => {
    let promise: unknown
    expect(() => {
      promise = call()
    }).not.toThrow()
    expect(promise).toBeInstanceOf(Promise)
    await expect(promise).rejects.toThrow(names)
  })

  test.each<[string, (client: QmpClient) => unknown]>([
    ['execute, null', (client) => client.execute('query-status', undefined, never)],
    ['execute, what JSON has not', (client) => client.execute('query-status', { value: 1n })],
    ['nextEvent, nothing', (client) => client.nextEvent('RESET', nothing)],
  ])('qmp.%s', async (_name, call) => {
    const client = await qmp()
    let promise: unknown
    expect(() => {
      promise = call(client)
    }).not.toThrow()
    await expect(promise).rejects.toThrow()
    await expect(client.execute('query-status')).resolves.toEqual({})
  })

  test('a resize that was refused is not under way', async () => {
    const m = manager()
    await expect(m.resizeCpus(2, { ...resize, signal: bad({}) })).rejects.toThrow()
    await expect(m.resizeCpus(1, resize)).resolves.toMatchObject({ added: [] })
  })

  test('a signal that is not an AbortSignal leaves no timer', async () => {
    const clock = new ManualClock()
    await expect(connect('unix:/nowhere', { signal: bad({}), clock })).rejects.toThrow('signal')
    expect(clock.pending).toBe(0)
  })
})

describe('a constructor, or a function that makes something at once, throws', () => {
  test.each<[string, () => unknown, RegExp]>([
    ['UpcallClient', () => new UpcallClient(nothing), /^options: must be an object, got undefined/],
    ['DeviceManager', () => new DeviceManager(nothing), /^options: must be an object, got undefined/],
    ['DeviceManager, arch', () => new DeviceManager({ dial, arch: bad('arm') }), /^arch: /],
    ['DeviceManager, dial', () => new DeviceManager({ dial: nothing, arch: 'x86_64' }), /^dial: must be a function/],
    [
      'DeviceManager, reply timeouts',
      () => new DeviceManager({ dial, arch: 'x86_64', replyTimeouts: { cpuMs: Number.NaN } }),
      /^replyTimeouts\.cpuMs: must be a finite number of milliseconds above 0, got NaN/,
    ],
    [
      'DeviceManager, reply timeouts without end',
      () => new DeviceManager({ dial, arch: 'x86_64', replyTimeouts: { otherMs: Number.POSITIVE_INFINITY } }),
      /^replyTimeouts\.otherMs: /,
    ],
    [
      'DeviceManager, reply timeouts as a number',
      () => new DeviceManager({ dial, arch: 'x86_64', replyTimeouts: bad(5) }),
      /^replyTimeouts: /,
    ],
    ['deviceManagerProtocol', () => deviceManagerProtocol(nothing), /^options: /],
    ['UpcallServer', () => new UpcallServer(nothing), /^options: /],
    ['linuxGuest, null', () => linuxGuest(never), /^options: /],
    ['linuxGuest, arch', () => linuxGuest({ arch: bad('arm64') }), /^arch: must be 'x86_64' or 'aarch64', got "arm64"/],
    ['linuxGuest, root', () => linuxGuest({ arch: 'x86_64', root: bad(5) }), /^root: /],
    ['linuxGuest, time', () => linuxGuest({ arch: 'x86_64', operationTimeoutMs: 2 ** 31 }), /^operationTimeoutMs: /],
    ['linuxGuest, CPU time', () => linuxGuest({ arch: 'x86_64', cpuTimeoutMs: -1 }), /^cpuTimeoutMs: /],
    ['linuxGuest, PCI time', () => linuxGuest({ arch: 'x86_64', pciTimeoutMs: Number.NaN }), /^pciTimeoutMs: /],
    ['linuxGuest, signal', () => linuxGuest({ arch: 'x86_64', signal: bad({}) }), /^signal: /],
    ['linuxGuest, clock', () => linuxGuest({ arch: 'x86_64', clock: bad({}) }), /^clock/],
    ['linuxGuest, roll back', () => linuxGuest({ arch: 'x86_64', rollBack: bad('no') }), /^rollBack: /],
    ['dialSequence, nothing', () => dialSequence(), /at least one/],
    ['dialSequence, a word', () => dialSequence(bad('silent')), /^dialSequence: attempts\[0\]: .*got "silent"/],
    ['faultyDial, dial', () => faultyDial(nothing, {}), /^faultyDial: dial: must be a function/],
    ['faultyDial, plan', () => faultyDial(dial, nothing), /^fault plan: must be an object/],
    ['fakeGuest', () => fakeGuest(nothing), /^fakeGuest: script: /],
    ['fakeGuest, one of them', () => fakeGuest([() => {}, bad(5)]), /^fakeGuest: script\[1\]: /],
    ['fakeGuest, arch', () => fakeGuest(() => {}, { arch: bad('x86') }), /^fakeGuest: arch: /],
    ['simulatedDial', () => simulatedDial(nothing), /^simulatedDial: guest: /],
    ['duplexPair', () => duplexPair(never), /^duplexPair: options: /],
    ['duplexPair, mark', () => duplexPair({ highWaterMark: -1 }), /^duplexPair: highWaterMark: /],
    ['ManualClock, options', () => new ManualClock(null as never), /^ManualClock: options: must be an object/],
    ['ManualClock, start', () => new ManualClock({ start: Number.NaN }), /^ManualClock: start: /],
    ['ManualClock, limit', () => new ManualClock({ limit: 0 }), /^ManualClock: limit: /],
    ['clock.advance', () => new ManualClock().advance(Number.NaN), /^ManualClock\.advance: ms: /],
    ['clock.setTimer', () => new ManualClock().setTimer(Number.NaN, () => {}), /^ManualClock\.setTimer: ms: /],
    ['clock.setTimer, fn', () => new ManualClock().setTimer(1, nothing), /^ManualClock\.setTimer: fn: /],
    ['transportCompliance', () => transportCompliance(nothing), /^transport: /],
    ['transportCompliance, time', () => transportCompliance(memoryTransport(), { timeoutMs: 0 }), /^timeoutMs: /],
    ['FakeConnection', () => new FakeConnection(bad(new PassThrough().pipe), 1, 'x86_64'), /^FakeConnection: stream: /],
  ])('%s', (_name, make, names) => {
    expect(make).toThrow(names)
  })
})
