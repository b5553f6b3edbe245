// What is not about CPUs, and the files of a real directory.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { getEventListeners } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { GuestConnection } from '@upcall/server'
import { decodeReply, encodeRequest, type Request } from '@upcall/wire'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { EACCES, FakeLinux, JumpingClock } from '../../../testing/fake-linux.js'
import { deviceManagerGuest } from '../service.js'
import { cpuList, filesBelow } from './files.js'
import { LinuxGuest, linuxGuest } from './guest.js'
import { onlineBlocks, onlineMemory } from './memory.js'

const connection: GuestConnection = { id: 1, remote: '', delay: () => Promise.resolve() }
const MEMORY = '/sys/devices/system/memory'
const never = new Promise<number>(() => {})

describe('PCI', () => {
  const device = '/sys/bus/pci/devices/0000:01:05.3'
  const slot = { bus: 1, devfn: (5 << 3) | 3 }
  const rescan = '/sys/class/pci_bus/0000:01/rescan'

  function setUp(scan: (linux: FakeLinux, clock: JumpingClock) => number | undefined, there = false) {
    const linux = new FakeLinux()
    const clock = new JumpingClock()
    linux.fixed.set(rescan, '')
    const plug = () => linux.fixed.set(`${device}/remove`, '')
    if (there) plug()
    linux.onWrite = (path) => {
      if (path === rescan) return scan(linux, clock)
      if (path !== `${device}/remove`) return undefined
      return 0
    }
    const guest = new LinuxGuest({ arch: 'x86_64', clock }, linux)
    const add = () => guest.pci.add({ type: 'ADD_PCI', ...slot }, connection)
    const remove = () => guest.pci.remove({ type: 'DEL_PCI', ...slot }, connection)
    return { linux, clock, guest, plug, add, remove }
  }

  test('a function that one scan finds', async () => {
    const { linux, add } = setUp((linux) => {
      linux.fixed.set(`${device}/remove`, '')
      return 0
    })
    expect(await add()).toBe(0)
    expect(linux.written).toEqual([`${rescan} 1`])
  })

  test('a present function is scanned for too: another program may be adding it', async () => {
    const { linux, add } = setUp(() => 0, true)
    expect([await add(), linux.written]).toEqual([0, [`${rescan} 1`]])
  })

  test('a function that appears between two scans gets one more', async () => {
    const { linux, clock, plug, add } = setUp(() => 0)
    clock.setTimer(300, plug)
    expect(await add()).toBe(0)
    expect(linux.written).toHaveLength(3)
    expect(clock.now()).toBeLessThan(500)
  })

  test('scans again for a slot that powers up, for 2 s', async () => {
    let scans = 0
    const { clock, add } = setUp((linux) => {
      scans += 1
      if (scans === 3) linux.fixed.set(`${device}/remove`, '')
      return 0
    })
    expect([await add(), scans]).toEqual([0, 3])
    const absent = setUp(() => 0)
    expect(await absent.add()).toBe(-19)
    expect(absent.clock.now()).toBe(2000)
    expect(clock.now()).toBeLessThan(2000)
  })

  test('a bus that does not exist, a function that is not there: −19 at once', async () => {
    const { linux, clock, guest, remove } = setUp(() => 0)
    expect(await guest.pci.add({ type: 'ADD_PCI', bus: 2, devfn: 0 }, connection)).toBe(-19)
    expect(await remove()).toBe(-19)
    expect([linux.written, clock.now()]).toEqual([[], 0])
  })

  test('a bus that goes away between two scans: −19', async () => {
    let scans = 0
    const { linux, add } = setUp(() => (++scans === 1 ? 0 : undefined))
    expect([await add(), linux.written.length]).toEqual([-19, 1])
  })

  test('a function whose removal by another program is under way is waited for', async () => {
    const { linux, clock, remove } = setUp(() => 0, true)
    // The kernel takes a device's files away before the device.
    linux.onWrite = () => undefined
    clock.setTimer(400, () => linux.fixed.delete(`${device}/remove`))
    expect(await remove()).toBe(0)
    expect(clock.now()).toBeGreaterThanOrEqual(400)
  })

  test('a function that is there is a success, although the scan is refused', async () => {
    expect(await setUp(() => -16, true).add()).toBe(0)
  })

  test('what the kernel refuses is the answer', async () => {
    expect(await setUp(() => EACCES).add()).toBe(EACCES)
    const { linux, remove } = setUp(() => 0, true)
    linux.onWrite = () => EACCES
    expect(await remove()).toBe(EACCES)
  })

  test('removal waits until the device is gone', async () => {
    const { linux, clock, remove } = setUp(() => 0, true)
    clock.setTimer(400, () => linux.fixed.delete(`${device}/remove`))
    expect(await remove()).toBe(0)
    expect(clock.now()).toBeGreaterThanOrEqual(400)
  })

  test('a removal that does not come to an end has no answer', async () => {
    await expect(setUp(() => 0, true).remove()).rejects.toThrow(
      'linuxGuest DEL_PCI 0000:01:05.3: the function is still there 2000 ms after its removal',
    )
  })
})

describe('virtio-mmio', () => {
  const window = { base: 0xffff_ffff_d000_0000n, size: 0x2000n, irq: 5 }
  const parameters = '/sys/module/upcall_mmio/parameters'

  test('goes to the kernel module, whose errno is the answer', async () => {
    const linux = new FakeLinux()
    for (const name of ['add', 'remove']) linux.fixed.set(`${parameters}/${name}`, '')
    linux.onWrite = (path) => (path.endsWith('/add') ? 0 : -19)
    const { mmio } = new LinuxGuest({ arch: 'x86_64' }, linux)
    expect(await mmio.add({ type: 'ADD_MMIO', ...window }, connection)).toBe(0)
    expect(await mmio.remove({ type: 'DEL_MMIO', ...window }, connection)).toBe(-19)
    expect(linux.written).toEqual(['add', 'remove'].map((name) => `${parameters}/${name} 0x2000@0xffffffffd0000000:5`))
  })

  test('that is unloaded in this moment: −1', async () => {
    const linux = new FakeLinux()
    linux.fixed.set(`${parameters}/add`, '')
    linux.onWrite = () => undefined
    const { mmio } = new LinuxGuest({ arch: 'x86_64' }, linux)
    expect(await mmio.add({ type: 'ADD_MMIO', ...window }, connection)).toBe(-1)
  })

  test('without it: −1', async () => {
    const { mmio } = new LinuxGuest({ arch: 'aarch64' }, new FakeLinux())
    expect(await mmio.add({ type: 'ADD_MMIO', ...window }, connection)).toBe(-1)
    expect(await mmio.remove({ type: 'DEL_MMIO', ...window }, connection)).toBe(-1)
  })
})

describe('time', () => {
  test.each(['cpuTimeoutMs', 'pciTimeoutMs', 'operationTimeoutMs'])('%s is a time that a timer can wait', (name) => {
    for (const ms of [Number.NaN, -1, Number.POSITIVE_INFINITY, 2 ** 31])
      expect(() => linuxGuest({ arch: 'x86_64', [name]: ms })).toThrow(
        `${name}: must be a number of milliseconds from ${name === 'operationTimeoutMs' ? 1 : 0} to 2147483647, got ${ms}`,
      )
    expect(() => linuxGuest({ arch: 'x86_64', [name]: 2 ** 31 - 1 })).not.toThrow()
  })

  test('an operation that is stuck in the kernel ends its connection, keeps its turn, and lets PCI pass', async () => {
    const linux = new FakeLinux()
    linux.fixed.set('/sys/module/upcall_mmio/parameters/add', '')
    linux.onWrite = () => never
    const clock = new JumpingClock()
    const guest = new LinuxGuest({ arch: 'x86_64', clock, operationTimeoutMs: 9000 }, linux)
    const add = () => guest.mmio.add({ type: 'ADD_MMIO', base: 0n, size: 1n, irq: 5 }, connection)
    const first = add()
    const second = guest.cpu.remove({ type: 'DEL_CPU', apicIds: [1] }, connection)
    await expect(first).rejects.toThrow('linuxGuest ADD_MMIO: it takes longer than 9000 ms')
    await expect(second).rejects.toThrow('linuxGuest DEL_CPU: it takes longer than 9000 ms')
    expect(linux.written).toEqual([])
    expect(await guest.pci.remove({ type: 'DEL_PCI', bus: 0, devfn: 8 }, connection)).toBe(-19)
  })

  test('what gets its turn too late is not done any more', async () => {
    const linux = new FakeLinux()
    let release = (_result: number) => {}
    linux.fixed.set('/sys/module/upcall_mmio/parameters/add', '')
    linux.onWrite = () =>
      new Promise<number>((resolve) => {
        release = resolve
      })
    const guest = new LinuxGuest({ arch: 'x86_64', clock: new JumpingClock(), operationTimeoutMs: 1000 }, linux)
    const add = (base: bigint) => guest.mmio.add({ type: 'ADD_MMIO', base, size: 1n, irq: 5 }, connection)
    const both = [add(0n), add(0x1000n)]
    for (const each of both) await expect(each).rejects.toThrow('ADD_MMIO')
    release(0)
    linux.onWrite = () => 0
    expect(await add(0x2000n)).toBe(0)
    expect(linux.written.map((line) => line.split('@')[1])).toEqual(['0x0:5', '0x2000:5'])
  })

  test('an abort ends all waiting with ABORTED and its reason', async () => {
    const controller = new AbortController()
    const reason = new Error('shut down')
    const clock = new JumpingClock()
    const linux = new FakeLinux([{ number: 0, apicId: 0, online: true }])
    const guest = new LinuxGuest({ arch: 'x86_64', clock, signal: controller.signal }, linux)
    clock.setTimer(50, () => controller.abort(reason))
    await expect(guest.cpu.add({ type: 'ADD_CPU', apicIds: [1] }, connection)).rejects.toMatchObject({
      name: 'LinuxGuestError',
      code: 'ABORTED',
      cause: reason,
    })
    await expect(guest.cpu.add({ type: 'ADD_CPU', apicIds: [1] }, connection)).rejects.toMatchObject({
      name: 'LinuxGuestError',
      code: 'ABORTED',
      cause: reason,
    })
    expect(clock.now()).toBe(50)
  })

  test('an abort leaves undone what has not begun', async () => {
    const controller = new AbortController()
    const linux = new FakeLinux()
    let release = (_result: number) => {}
    linux.onWrite = () =>
      new Promise<number>((resolve) => {
        release = resolve
      })
    const guest = new LinuxGuest({ arch: 'x86_64', signal: controller.signal }, linux)
    const add = (base: bigint) => guest.mmio.add({ type: 'ADD_MMIO', base, size: 1n, irq: 5 }, connection)
    const asked = [add(0n), add(0x1000n)]
    await new Promise((resolve) => setImmediate(resolve))
    controller.abort('shut down')
    asked.push(add(0x2000n))
    expect((await Promise.allSettled(asked)).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    linux.onWrite = () => 0
    release(0)
    await new Promise((resolve) => setImmediate(resolve))
    expect(linux.written).toHaveLength(1)
  })

  test('each operation and its outcome is published', async () => {
    const published: unknown[] = []
    const note = (message: unknown) => void published.push(message)
    subscribe('upcall:device-manager', note)
    try {
      const controller = new AbortController()
      const guest = new LinuxGuest({ arch: 'x86_64', signal: controller.signal }, new FakeLinux())
      await guest.pci.remove({ type: 'DEL_PCI', bus: 0, devfn: 8 }, connection)
      controller.abort()
      await expect(guest.pci.add({ type: 'ADD_PCI', bus: 0, devfn: 8 }, connection)).rejects.toThrow()
      expect(published).toMatchObject([
        { type: 'operation', request: 'DEL_PCI', result: -19 },
        { type: 'failure', request: 'ADD_PCI', error: { code: 'ABORTED' } },
      ])
    } finally {
      unsubscribe('upcall:device-manager', note)
    }
  })

  test('many operations that wait listen to the signal once, and an abort reaches all of them', async () => {
    const controller = new AbortController()
    const { signal } = controller
    const linux = new FakeLinux([{ number: 0, apicId: 0, online: true }])
    const clock = { now: () => 0, setTimer: () => () => {} }
    const guest = new LinuxGuest({ arch: 'x86_64', clock, signal }, linux)
    const waiting = Array.from({ length: 12 }, () => guest.cpu.add({ type: 'ADD_CPU', apicIds: [1] }, connection))
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    controller.abort('shut down')
    const reason = expect.objectContaining({ code: 'ABORTED', cause: 'shut down' })
    expect(await Promise.allSettled(waiting)).toEqual(waiting.map(() => ({ status: 'rejected', reason })))
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  })
})

describe('memory', () => {
  function setUp(offline: Record<number, number>) {
    const linux = new FakeLinux()
    linux.fixed.set('/sys/devices/system/memory/block_size_bytes', '8000000\n')
    linux.fixed.set('/sys/devices/system/memory/auto_online_blocks', 'offline\n')
    const state = (block: number) => `/sys/devices/system/memory/memory${block}/state`
    const plug = (block: number) => linux.fixed.set(state(block), 'offline\n')
    const online = (block: number) => linux.fixed.set(state(block), 'online\n')
    linux.fixed.set(state(0), 'online\n')
    for (const block of Object.keys(offline)) plug(Number(block))
    linux.onWrite = (path) => {
      const result = offline[Number(/memory(\d+)/.exec(path)![1])] ?? 0
      if (result === 0) linux.fixed.set(path, 'online\n')
      return result
    }
    return { linux, plug, online, clock: new JumpingClock() }
  }

  test('brings what is offline online, and tells what the kernel refused', async () => {
    const { linux, clock } = setUp({ 10: 0, 9: 0, 32: -16 })
    expect(await onlineBlocks(linux, { clock })).toEqual({
      blockSize: 128n << 20n,
      onlined: [9, 10],
      refused: [{ block: 32, errno: -16 }],
      online: 384n << 20n,
    })
    expect(linux.written[0]).toBe('/sys/devices/system/memory/memory9/state online_movable')
    expect(clock.now()).toBe(0)
  })

  test('does not count a block that is gone again among those that were refused', async () => {
    const { linux, clock } = setUp({ 9: 0, 10: 0 })
    linux.onWrite = (path) => (path.includes('memory9') ? undefined : 0)
    expect(await onlineBlocks(linux, { clock })).toMatchObject({ onlined: [10], refused: [] })
  })

  test('looks through no list of blocks once for each block', async () => {
    const { linux, online, clock } = setUp(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [i + 1001, -16])))
    for (let block = 1; block <= 1000; block++) online(block)
    let looked = 0
    const original = Array.prototype.includes
    const spy = vi.spyOn(Array.prototype, 'includes').mockImplementation(function (this: unknown[], ...args: [unknown]) {
      looked += this.length
      return original.apply(this, args)
    })
    try {
      const { refused } = await onlineBlocks(linux, { clock, bytes: 128n << 20n, timeoutMs: 300 })
      expect(refused).toHaveLength(100)
    } finally {
      spy.mockRestore()
    }
    expect(looked).toBeLessThan(1000)
  })

  test('waits for as many bytes as were plugged in', async () => {
    const { linux, plug, clock } = setUp({ 9: 0 })
    clock.setTimer(200, () => plug(10))
    const { onlined } = await onlineBlocks(linux, { clock, bytes: 256n << 20n, policy: 'online' })
    expect(onlined).toEqual([9, 10])
    expect(linux.written[1]).toBe('/sys/devices/system/memory/memory10/state online')
  })

  test('and gives up at its deadline', async () => {
    const { linux, clock } = setUp({ 9: 0 })
    const { onlined } = await onlineBlocks(linux, { clock, bytes: 256n << 20n, timeoutMs: 300 })
    expect([onlined, clock.now()]).toEqual([[9], 300])
  })

  test('a block that another program brings online first is not refused, and counts', async () => {
    const { linux, clock } = setUp({ 9: 0, 10: 0 })
    linux.onWrite = (path) => {
      linux.fixed.set(path, 'online\n')
      // The kernel's answer to a state that a block has already.
      return path.includes('memory9') ? -22 : 0
    }
    expect(await onlineBlocks(linux, { clock, bytes: 256n << 20n })).toMatchObject({ onlined: [9, 10], refused: [] })
    expect(clock.now()).toBe(0)
  })

  test('a block that was refused and is online in the end is not refused', async () => {
    const { linux, clock, online } = setUp({ 9: -16 })
    clock.setTimer(200, () => online(9))
    expect(await onlineBlocks(linux, { clock, bytes: 128n << 20n })).toMatchObject({ onlined: [9], refused: [] })
    expect(clock.now()).toBeLessThan(400)
  })

  test('blocks that come online by themselves count, and nothing is waited for beyond them', async () => {
    const { linux, clock, online } = setUp({})
    clock.setTimer(100, () => online(9))
    clock.setTimer(200, () => online(10))
    expect(await onlineBlocks(linux, { clock, bytes: 256n << 20n })).toMatchObject({ onlined: [9, 10], online: 384n << 20n })
    expect(clock.now()).toBeLessThan(400)
    expect(linux.written).toEqual([])
  })

  test('a block that goes offline again does not count', async () => {
    const { linux, clock, online } = setUp({})
    clock.setTimer(100, () => online(9))
    clock.setTimer(200, () => linux.fixed.delete(`${MEMORY}/memory9/state`))
    clock.setTimer(300, () => online(10))
    const { onlined } = await onlineBlocks(linux, { clock, bytes: 256n << 20n, timeoutMs: 1000 })
    expect([onlined, clock.now()]).toEqual([[10], 1000])
  })

  test('a total is waited for, whenever its blocks came online', async () => {
    const { linux, clock, online } = setUp({})
    online(9)
    expect(await onlineBlocks(linux, { clock, online: 256n << 20n })).toMatchObject({ onlined: [], online: 256n << 20n })
    expect(clock.now()).toBe(0)
    clock.setTimer(300, () => online(10))
    expect(await onlineBlocks(linux, { clock, online: 384n << 20n })).toMatchObject({ onlined: [10] })
    expect(clock.now()).toBeLessThan(500)
  })

  test.each(['online', 'online_kernel', 'online_movable', undefined])(
    'bytes that were online before the call, where the kernel brings memory online itself (%s): once nothing more comes for a second',
    async (policy) => {
      const { linux, clock, online } = setUp({})
      if (policy === undefined) linux.fixed.delete(`${MEMORY}/auto_online_blocks`)
      else linux.fixed.set(`${MEMORY}/auto_online_blocks`, `${policy}\n`)
      online(9)
      expect(await onlineBlocks(linux, { clock, bytes: 256n << 20n })).toMatchObject({ onlined: [], online: 256n << 20n })
      expect(clock.now()).toBeGreaterThanOrEqual(1000)
      expect(clock.now()).toBeLessThan(1200)
      const late = clock.now()
      clock.setTimer(800, () => online(10))
      expect(await onlineBlocks(linux, { clock, bytes: 128n << 20n })).toMatchObject({ onlined: [10] })
      expect(clock.now() - late).toBeLessThan(1000)
      expect(await onlineBlocks(linux, { clock, bytes: 512n << 20n, timeoutMs: 2000 })).toMatchObject({ onlined: [] })
    },
  )

  test.each([
    [
      "a DIMM's",
      (linux: FakeLinux) => [9, 10].map((block) => linux.fixed.set(`${MEMORY}/memory${block}/firmware_node/path`, '')),
    ],
    [
      "a virtio-mem device's",
      (linux: FakeLinux) =>
        linux.fixed.set(
          '/proc/iomem',
          '00000000-07ffffff : System RAM\n48000000-57ffffff : virtio0\n  48000000-57ffffff : System RAM (virtio_mem)\n',
        ),
    ],
  ])(
    'bytes that a udev rule brought online before the call: %s count once nothing more comes for a second',
    async (_what, mark) => {
      const { linux, clock, online } = setUp({})
      online(9)
      online(10)
      mark(linux)
      expect(await onlineBlocks(linux, { clock, bytes: 256n << 20n })).toMatchObject({ onlined: [], online: 384n << 20n })
      expect(clock.now()).toBeGreaterThanOrEqual(1000)
      expect(clock.now()).toBeLessThan(1200)
      const late = clock.now()
      clock.setTimer(800, () => online(11))
      clock.setTimer(1600, () => online(12))
      expect(await onlineBlocks(linux, { clock, bytes: 256n << 20n })).toMatchObject({ onlined: [11, 12] })
      expect(clock.now() - late).toBeLessThan(1800)
    },
  )

  test('memory of the boot does not stand for memory that is to come', async () => {
    const { linux, clock, online } = setUp({})
    online(1)
    expect(await onlineBlocks(linux, { clock, bytes: 256n << 20n })).toMatchObject({ onlined: [] })
    expect(clock.now()).toBe(5000)
  })

  test.each([
    ['bytes: must be a bigint of at least 0, got -1n', { bytes: -1n }],
    ['bytes: must be a bigint of at least 0, got 5', { bytes: 5 as never }],
    ['online: must be a bigint of at least 0, got -1n', { online: -1n }],
    ['timeoutMs: must be a number of milliseconds from 0 to 2147483647, got NaN', { timeoutMs: Number.NaN }],
    ['timeoutMs: must be a number of milliseconds from 0 to 2147483647, got -1', { timeoutMs: -1 }],
    ['timeoutMs: must be a number of milliseconds from 0 to 2147483647, got Infinity', { timeoutMs: Number.POSITIVE_INFINITY }],
    ['policy: must be one of online, online_movable, online_kernel, got "offline"', { policy: 'offline' as never }],
  ])('before anything is done: %s', async (message, options) => {
    const { linux, clock } = setUp({ 9: 0 })
    await expect(onlineBlocks(linux, { clock, ...options })).rejects.toThrow(message)
    expect(linux.written).toEqual([])
  })

  test('a kernel without memory blocks is an error', async () => {
    await expect(onlineBlocks(new FakeLinux(), {})).rejects.toThrow(/cannot hotplug memory/)
  })
})

describe('a directory', () => {
  let root = ''
  afterEach(() => rm(root, { recursive: true, force: true }))

  async function tree(files: Record<string, string>): Promise<string> {
    root = await mkdtemp(join(tmpdir(), 'upcall-linux-'))
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true })
      await writeFile(join(root, path), text)
    }
    return root
  }

  test('is read and written below its root, and no file is made by a write', async () => {
    const files = filesBelow(await tree({ '/sys/a/b': ' text\n', '/sys/a/c': '' }))
    expect(await files.read('/sys/a/b')).toBe('text')
    expect(await files.read('/sys/a/d')).toBeUndefined()
    expect(await files.bytes('/sys/a/b')).toEqual(Buffer.from(' text\n'))
    expect(await files.bytes('/sys/a/d')).toBeUndefined()
    expect(await files.list('/sys/a')).toEqual(['b', 'c'])
    expect(await files.list('/sys/x')).toEqual([])
    expect(await files.write('/sys/a/c', '1')).toBe(0)
    expect(await readFile(join(root, '/sys/a/c'), 'utf8')).toBe('1')
    expect(await files.write('/sys/a/d', '1')).toBe(-2)
    expect(await files.exists('/sys/a/d')).toBe(false)
    expect(await files.write('/sys/a', '1')).toBe(-21)
  })

  test('is a guest: the service over it, from bytes to files', async () => {
    const cpu = '/sys/devices/system/cpu'
    const backend = linuxGuest({
      arch: 'aarch64',
      root: await tree({
        [`${cpu}/online`]: '0\n',
        [`${cpu}/present`]: '0-1\n',
        [`${cpu}/possible`]: '0-1\n',
        [`${cpu}/cpu1/online`]: '0\n',
      }),
    })
    const session = deviceManagerGuest(backend).open(connection)
    const ask = async (request: Request) => {
      const [reply] = (await session.receive(encodeRequest(request, 'aarch64'), 0)) as Uint8Array[]
      return decodeReply(reply!, 'aarch64')
    }
    expect(await ask({ type: 'ADD_CPU', count: 1 })).toEqual({ type: 'ADD_CPU', result: 0, cpuId: 1 })
    expect(await readFile(join(root, cpu, 'cpu1/online'), 'utf8')).toBe('1\n')
    expect(await ask({ type: 'ADD_MMIO', base: 0n, size: 1n, irq: 5 })).toEqual({ type: 'ADD_MMIO', result: -1 })
    expect(await ask({ type: 'DEL_PCI', bus: 0, devfn: 8 })).toEqual({ type: 'DEL_PCI', result: -19 })
    expect(await ask({ type: 'RAW', messageType: 3, load: new Uint8Array(0) })).toMatchObject({ result: -1 })
  })

  test('is where memory blocks are, too', async () => {
    const memory = '/sys/devices/system/memory'
    const dir = await tree({ [`${memory}/block_size_bytes`]: '1000\n', [`${memory}/memory3/state`]: 'offline\n' })
    expect((await onlineMemory({ root: dir })).onlined).toEqual([3])
    expect(await readFile(join(dir, memory, 'memory3/state'), 'utf8')).toMatch(/^online_movable/)
  })
})

test.each([
  ['0', [0]],
  ['0-3,6', [0, 1, 2, 3, 6]],
  ['', []],
  ['0,2-3', [0, 2, 3]],
  [undefined, []],
])('a list of CPUs: %j', (text, numbers) => {
  expect(cpuList(text)).toEqual(numbers)
})
