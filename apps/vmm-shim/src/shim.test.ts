import { once } from 'node:events'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { join } from 'node:path'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'
import { afterEach, describe, expect, inject, it, vi } from 'vitest'
import { temporaryDirectory } from '../../../packages/vmm/testing/rig.js'
import { isAlive } from '../testing/is-alive.js'
import { type SimulatedShimOptions, startShim } from './guest/shim.js'
import { openShim } from './shim.js'

const guestEntry = new URL(inject('programs').guest)
const DISK = { pathOnHost: '/srv/data.img', isReadOnly: false }

function start(directory: string, options: Partial<SimulatedShimOptions> = {}) {
  return startShim({ uds: join(directory, 'vm.sock'), arch: 'x86_64', bootMs: 20, guestEntry, hardware: 'plugged', ...options })
}

afterEach(() => void vi.unstubAllEnvs())

it('that cannot be started tells why, and what could not be closed besides', async () => {
  using directory = temporaryDirectory()
  const opened = openShim(
    { uds: join(directory.path, 'vm.sock'), arch: 'x86_64' },
    {
      start({ closers }) {
        closers.push(() => Promise.reject(new Error('it does not close')))
        throw new Error('no kernel')
      },
      route: () => undefined,
    },
  )
  await expect(opened).rejects.toThrow(/no kernel; close: it does not close/)
  expect(readdirSync(directory.path)).toEqual([])
})

it.each([
  [undefined, true],
  ['firecracker', false],
] as const)('takes a command in pieces (vsockProfile %s: %s)', async (vsockProfile, taken) => {
  using directory = temporaryDirectory()
  const refusals: object[] = []
  const nothing = () => {}
  const debug = (fields: object, message: string) => {
    if (message === 'vsock connection refused') refusals.push(fields)
  }
  const log = { debug, info: nothing, warn: nothing, error: nothing }
  await using shim = await start(directory.path, { vsockProfile, log })
  const answer = async (...pieces: string[]) => {
    const socket = netConnect(join(directory.path, 'vm.sock')).on('error', nothing)
    const answered = new Promise<string>((resolve) => {
      socket.once('data', (chunk) => resolve(String(chunk).slice(0, 3))).once('close', () => resolve(''))
    })
    await once(socket, 'connect')
    for (const piece of pieces) {
      if (socket.writable) socket.write(piece)
      // The VMM is in this process: it reads in the turns between.
      for (let i = 0; i < 10; i++) await new Promise(setImmediate)
    }
    const text = await answered
    socket.destroy()
    return text
  }
  // A guest that boots refuses everything, and so proves nothing.
  await shim.manager.ready({ timeoutMs: 10_000 })
  await expect.poll(() => answer('CONNECT 219\n'), { timeout: 10_000 }).toBe('OK ')
  refusals.length = 0
  expect(await answer('CONN', 'ECT ', '219\n')).toBe(taken ? 'OK ' : '')
  expect(refusals).toEqual(taken ? [] : [{ port: undefined, reason: 'bad-command' }])
})

describe('a guest in a process of its own', () => {
  it.each(['x86_64', 'aarch64'] as const)('%s: is resized, given devices, and leaves nothing behind', async (arch) => {
    using directory = temporaryDirectory()
    vi.stubEnv('TMPDIR', directory.path)
    const api = join(directory.path, 'api.sock')
    const shim = await start(directory.path, { arch, api })
    const { vm, machine, manager } = shim
    const pid = machine.pid!
    expect(statSync(api).mode & 0o777).toBe(0o600)
    expect(pid).not.toBe(process.pid)
    expect(isAlive(pid)).toBe(true)
    await manager.ready({ timeoutMs: 10_000 })
    await machine.booted()
    expect(vm.state).toBe('running')
    await vm.resize(4)
    await vm.resize(2)
    const { window } = await vm.addDrive('vdb', DISK)
    await vm.addPci('net1', { bdf: '00:05.0' })
    expect((await vm.view()).guest).toMatchObject({
      cpus: { online: [0, 1] },
      mmio: [window],
      pci: [{ bus: 0, devfn: 5 << 3 }],
    })
    await shim.close()
    await shim.close()
    expect(isAlive(pid)).toBe(false)
    expect(readdirSync(directory.path)).toEqual([])
  })

  it('finds only the hardware that was plugged in', async () => {
    using directory = temporaryDirectory()
    await using shim = await start(directory.path, { kernel: '6.12' })
    await shim.manager.ready({ timeoutMs: 10_000 })
    await expect(shim.manager.addCpus({ apicIds: [1] })).rejects.toMatchObject({ errno: -22 })
    await expect(shim.manager.addPci('00:05.0')).rejects.toMatchObject({ errno: -19 })
  })

  it('finds all that fits if told so, for clients without an API', async () => {
    using directory = temporaryDirectory()
    await using shim = await start(directory.path, { kernel: '6.12', maxCpus: 2, hardware: undefined })
    await shim.manager.ready({ timeoutMs: 10_000 })
    await shim.manager.addCpus({ apicIds: [1] })
    await shim.manager.addPci('00:05.0')
    await expect(shim.manager.addPci('01:05.0')).rejects.toMatchObject({ errno: -19 })
    await expect(shim.manager.addCpus({ apicIds: [2] })).rejects.toMatchObject({ errno: -22 })
  })

  it('serves other clients over the same socket, and shows what they did as a difference', async () => {
    using directory = temporaryDirectory()
    await using shim = await start(directory.path)
    await using other = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(shim.address, { signal }) })
    await other.addMmio({ base: 0xe000_0000n, size: 0x1000n, irq: 20 }, { timeoutMs: 10_000 })
    await shim.machine.booted()
    expect(await shim.vm.reconcile()).toEqual({
      restarted: false,
      settled: [],
      differences: [{ kind: 'mmio', id: '0xe0000000', only: 'guest' }],
    })
  })

  it('is noticed when it dies, and replaced by a reconcile', async () => {
    using directory = temporaryDirectory()
    const exits: string[] = []
    const nothing = () => {}
    const log = { debug: nothing, info: nothing, warn: nothing, error: (_: object, message: string) => void exits.push(message) }
    await using shim = await start(directory.path, { log })
    const { vm, machine, manager } = shim
    await manager.ready({ timeoutMs: 10_000 })
    await machine.booted()
    await vm.resize(3)
    await vm.addDrive('vda', DISK)
    const pid = machine.pid!
    await machine.pause(true)
    const change = vm.resize(4)
    change.catch(() => {})
    await expect.poll(() => manager.state).toBe('ServiceBusy')
    await machine.kill()
    await expect(change).rejects.toMatchObject({ outcome: 'indeterminate' })
    expect(exits).toEqual(["the guest's process ended by SIGKILL"])
    expect(isAlive(pid)).toBe(false)
    expect(await vm.view()).toMatchObject({
      state: 'dead',
      guest: undefined,
      believed: { cpus: { present: [0, 1, 2], unknown: [3] } },
    })
    await expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ code: 'NOT_READY' })
    expect(await vm.reconcile()).toEqual({ restarted: true, settled: [{ kind: 'cpu', id: '3', now: 'absent' }], differences: [] })
    expect(machine.pid).not.toBe(pid)
    expect(await vm.resize(4)).toMatchObject({ added: [3] })
  })

  it('is not controlled any more when it is stopped', async () => {
    using directory = temporaryDirectory()
    const api = join(directory.path, 'api.sock')
    const { machine, close } = await start(directory.path, { api })
    const stop = vi.spyOn(machine, 'stop').mockImplementationOnce(async () => {
      expect(existsSync(api)).toBe(false)
      stop.mockRestore()
      await machine.stop()
    })
    expect(existsSync(api)).toBe(true)
    await close()
  })

  it('is not started where one of the sockets cannot be had', async () => {
    using directory = temporaryDirectory()
    vi.stubEnv('TMPDIR', directory.path)
    const api = join(directory.path, 'api.sock')
    await expect(start(directory.path, { api: join(directory.path, 'missing', 'api.sock') })).rejects.toMatchObject({
      code: 'ENOENT',
    })
    await expect(start(join(directory.path, 'missing'), { api })).rejects.toMatchObject({ code: 'ENOENT' })
    expect(readdirSync(directory.path)).toEqual([])
  })

  it('is not started where another VMM has the socket', async () => {
    using directory = temporaryDirectory()
    await using first = await start(directory.path)
    await expect(start(directory.path)).rejects.toMatchObject({ code: 'EADDRINUSE' })
    await first.manager.ready({ timeoutMs: 10_000 })
  })
})
