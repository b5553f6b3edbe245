import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { DeviceManager, GuestError } from '@upcall/device-manager'
import { deviceManagerGuest, type KernelVersion, simulatedGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { withoutLeaks } from '@upcall/testkit'
import { connect } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { HybridVmm, managerOver, withSocketPath } from './support/hybrid.js'
import { outcomeOf } from './support/session.js'

// The whole way, with real Unix sockets and real time: DeviceManager, client, vsock, hybrid handshake, server, simulated guest.

const disk = { base: 0xd0000000n, size: 0x1000n, irq: 5 }
const kernels: KernelVersion[] = ['5.10', '6.1', '6.12', '6.18']
const steps = { max: 8, start: () => {}, stop: () => {} }

describe.each(kernels)('Linux %s', (kernel) => {
  it('x86_64: CPUs, a disk and a PCI device come and go, and nothing stays open', async () => {
    await withoutLeaks(() =>
      withSocketPath(async (path) => {
        const guest = simulatedGuest({ arch: 'x86_64', kernel })
        const vmm = new HybridVmm(guest, path)
        await vmm.start()
        const manager = managerOver(path, 'x86_64')
        expect(await manager.resizeCpus(4, { ...steps, present: [0] })).toMatchObject({ added: [1, 2, 3] })
        expect(await manager.resizeCpus(2, { ...steps, present: [0, 1, 2, 3] })).toMatchObject({ removed: [3, 2] })
        await manager.addMmio(disk)
        await expect(manager.addMmio(disk)).rejects.toMatchObject({ errnoName: 'EEXIST' })
        // A failure follows it, so this needs a connection of its own.
        await manager.addPci('00:05.0')
        expect(guest.state).toMatchObject({ cpus: { online: [0, 1] }, mmio: [disk], pci: [{ bus: 0, devfn: 40 }] })
        await manager.removePci('00:05.0')
        await manager.removeMmio(disk)
        expect(guest.state).toMatchObject({ mmio: [], pci: [], crashed: false })
        await manager.close()
        await vmm.stop()
        expect(existsSync(path)).toBe(false)
      }),
    )
  })

  it('aarch64: the same, with counts', async () => {
    await withoutLeaks(() =>
      withSocketPath(async (path) => {
        const guest = simulatedGuest({ arch: 'aarch64', kernel, maxCpus: 8 })
        const vmm = new HybridVmm(guest, path)
        await vmm.start()
        const manager = managerOver(path, 'aarch64')
        expect(await manager.resizeCpus(4, { ...steps, present: 1 })).toEqual({ added: [1, 2, 3], removed: [], present: 4 })
        expect(await manager.resizeCpus(2, { ...steps, present: 4 })).toEqual({ added: [], removed: [3, 2], present: 2 })
        await expect(manager.removeCpus({ count: 2 })).rejects.toBeInstanceOf(GuestError)
        await manager.addPci('00:05.0')
        await manager.addMmio({ ...disk, irq: 0 })
        expect(guest.state).toMatchObject({ cpus: { online: [0, 1] }, mmio: [{ ...disk, irq: 0 }] })
        await manager.close()
        await vmm.stop()
      }),
    )
  })
})

it('a client that is there before the VMM, and before the guest has booted, waits for both', async () => {
  await withSocketPath(async (path) => {
    const guest = simulatedGuest({ arch: 'x86_64', booting: true })
    const manager = managerOver(path, 'x86_64', { reconnect: { maxDelayMs: 20 } })
    const reasons: string[] = []
    manager.client.on('reconnect', ({ reason }) => reasons.push(reason))
    const adding = manager.addMmio(disk)
    await once(manager.client, 'reconnect')
    const vmm = new HybridVmm(guest, path)
    await vmm.start()
    while (reasons.at(-1) !== 'disconnected') await once(manager.client, 'reconnect')
    expect(guest.state.mmio).toEqual([])
    guest.boot()
    await adding
    expect(guest.state.mmio).toEqual([disk])
    expect(new Set(reasons)).toEqual(new Set(['dial-failed', 'disconnected']))
    await manager.close()
    await vmm.stop()
  })
})

it('a VMM that dies in the middle of a request leaves it indeterminate; the next one finds its successor', async () => {
  await withSocketPath(async (path) => {
    const guest = simulatedGuest({ arch: 'x86_64' })
    const vmm = new HybridVmm(guest, path)
    await vmm.start()
    const manager = managerOver(path, 'x86_64', { reconnect: { maxDelayMs: 20 } })
    await manager.ready()
    guest.pause()
    const under = outcomeOf(manager.addMmio(disk))
    const waiting = outcomeOf(manager.addPci('00:05.0'))
    expect(manager.state).toBe('ServiceBusy')
    await vmm.stop()
    expect(await under).toBe('indeterminate DISCONNECTED')
    const successor = new HybridVmm(simulatedGuest({ arch: 'x86_64' }), path)
    await successor.start()
    expect(await waiting).toBe('ok 0')
    await manager.close()
    await successor.stop()
  })
})

it('a caller who gives up after the guest has read the request is told that it cannot be known', async () => {
  await withSocketPath(async (path) => {
    const guest = simulatedGuest({ arch: 'x86_64', cpus: 4 })
    const vmm = new HybridVmm(guest, path)
    await vmm.start()
    const manager = managerOver(path, 'x86_64')
    const controller = new AbortController()
    // CPU 9 is absent: the guest's thread dies over it.
    const removing = outcomeOf(manager.removeCpus({ apicIds: [9] }, { signal: controller.signal }))
    while (!guest.state.crashed) await new Promise((resolve) => setImmediate(resolve))
    controller.abort()
    expect(await removing).toBe('indeterminate ABORTED')
    await manager.addPci('00:05.0')
    await manager.close()
    await vmm.stop()
  })
})

it('eight clients at once, each served by a connection of its own', async () => {
  await withSocketPath(async (path) => {
    const guest = simulatedGuest({ arch: 'x86_64' })
    const vmm = new HybridVmm(guest, path)
    await vmm.start()
    const managers = Array.from({ length: 8 }, () => managerOver(path, 'x86_64'))
    const windows = managers.map((_, i) => ({ ...disk, base: disk.base + BigInt(i) * 0x1000n }))
    await Promise.all(managers.map((manager, i) => manager.addMmio(windows[i]!)))
    expect(vmm.connections.size).toBe(8)
    expect(guest.state.mmio).toHaveLength(8)
    await Promise.all(managers.map((manager) => manager.close()))
    while (vmm.connections.size > 0) await new Promise((resolve) => setImmediate(resolve))
    await vmm.stop()
  })
})

it('a port without a server is refused, and the client gives up when its budget is spent', async () => {
  await withSocketPath(async (path) => {
    const vmm = new HybridVmm(simulatedGuest({ arch: 'x86_64' }), path)
    await vmm.start()
    const address = `hvsock://${path}:1`
    const dial = ({ signal }: { signal: AbortSignal }) => connect(address, { signal })
    const manager = new DeviceManager({ dial, arch: 'x86_64', reconnect: false })
    await expect(manager.ready()).rejects.toMatchObject({ code: 'UNREACHABLE', cause: { code: 'ECONNREFUSED', retryable: true } })
    await manager.close()
    await vmm.stop()
  })
})

it('a plain Unix socket per port serves as well', async () => {
  await withSocketPath(async (path) => {
    const guest = simulatedGuest({ arch: 'x86_64' })
    const server = new UpcallServer({ services: [deviceManagerGuest(guest)] })
    const acceptor = createServer({ allowHalfOpen: true }, (socket) => server.accept(socket))
    await new Promise<void>((resolve) => acceptor.listen(path, resolve))
    const dial = ({ signal }: { signal: AbortSignal }) => connect(`unix:${path}`, { signal })
    const manager = new DeviceManager({ dial, arch: 'x86_64' })
    await manager.addMmio(disk)
    expect(guest.state.mmio).toEqual([disk])
    await manager.close()
    await server.close()
    await new Promise((resolve) => acceptor.close(resolve))
  })
})
