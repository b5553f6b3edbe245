import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { describe, expect, it } from 'vitest'
import { FakeQemu } from '../../testing/fake-qemu.js'
import { DISK, HARDWARE, start } from '../../testing/qemu-rig.js'
import type { Hardware } from './hardware.js'
import { QemuMachine } from './machine.js'
import { Slots } from './slots.js'

describe('the life of a guest', () => {
  it('is booting until its service greets, paused while stopped, and booting again after a reset', async () => {
    await using rig = await start()
    const { machine } = rig
    expect(machine.guest).toBe('booting')
    machine.serves()
    expect(machine.guest).toBe('booted')
    const { guestGone } = machine
    for (const [event, state] of [
      ['STOP', 'paused'],
      ['RESUME', 'booted'],
      ['RESET', 'booting'],
    ] as const) {
      rig.qemu().emit(event)
      await expect.poll(() => machine.guest).toBe(state)
    }
    expect(machine.resets).toBe(1)
    expect([guestGone.aborted, machine.guestGone.aborted]).toEqual([true, false])
  })

  it('ends with QEMU, and another one is booted with what was there', async () => {
    await using rig = await start()
    const { machine } = rig
    await machine.startCpus([1])
    await machine.plugPci(DISK)
    const gone = machine.guestGone
    rig.qemu().die()
    await expect.poll(() => machine.guest).toBe('dead')
    expect(gone.aborted).toBe(true)
    expect(rig.exits).toEqual(['QEMU was ended by SIGKILL'])
    await expect(machine.startCpus([2])).rejects.toMatchObject({ code: 'NOT_READY' })
    machine.boot()
    await machine.launched
    expect(machine.guest).toBe('booting')
    expect(machine.guestGone.aborted).toBe(false)
    expect(rig.booted[1]).toMatchObject({ cpus: [0, 1], pci: [DISK] })
  })

  it('is booted although its service greeted before QEMU was looked at', async () => {
    let greet = () => {}
    await using rig = await start({ 'query-status': () => greet() })
    const { machine } = rig
    rig.qemu().die()
    await expect.poll(() => machine.guest).toBe('dead')
    const seen: string[] = []
    greet = () => {
      machine.serves()
      seen.push(machine.guest)
    }
    machine.boot()
    await machine.launched
    expect([...seen, machine.guest]).toEqual(['booting', 'booted'])
  })

  it('may be paused before anybody listens to its monitor', async () => {
    await using rig = await start({ 'query-status': () => ({ running: false, status: 'paused' }) })
    expect(rig.machine.guest).toBe('paused')
  })

  it('ends with its QEMU if that cannot be looked at, and does not end the next one', async () => {
    let refuses = true
    const look = () => {
      if (refuses) throw new Error('no PCI here')
      return []
    }
    await using rig = await start({ 'query-pci': look }, {}, {}, /no PCI here/)
    const first = rig.qemu()
    expect(rig.machine.guest).toBe('dead')
    expect(rig.exits).toEqual([expect.stringContaining('no PCI here')])
    expect(first.closed).toBe(true)
    refuses = false
    rig.machine.boot()
    await rig.machine.launched
    await first.close()
    first.emit('STOP')
    await new Promise((resolve) => setImmediate(resolve))
    expect(rig.machine.guest).toBe('booting')
  })

  it('waits for a QEMU that is still on its way out, which then ends nothing', async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const refuse = () => {
      throw new Error('no PCI here')
    }
    const qemus: FakeQemu[] = []
    const machine = new QemuMachine({
      hardware: HARDWARE,
      report: () => Promise.reject(new Error('no answer')),
      async launch() {
        const qemu = await FakeQemu.start(qemus.length === 0 ? { 'query-pci': refuse } : {})
        if (qemus.length === 0) qemu.onClose = () => held
        qemus.push(qemu)
        return qemu
      },
    })
    await expect.poll(() => qemus[0]?.closed).toBe(true)
    expect(machine.guest).toBe('dead')
    machine.boot()
    await new Promise((resolve) => setImmediate(resolve))
    expect(qemus).toHaveLength(1)
    release()
    await machine.launched
    await new Promise((resolve) => setImmediate(resolve))
    expect([qemus.length, machine.guest]).toEqual([2, 'booting'])
    await machine.stop()
  })

  it('is ended by closing its QEMU, which may write out what it holds', async () => {
    const rig = await start()
    const { signal } = rig.launches[0]!
    let abortedFirst: boolean | undefined
    rig.qemu().onClose = () => {
      abortedFirst ??= signal.aborted
    }
    await rig.machine.stop()
    expect([abortedFirst, signal.aborted, rig.exits]).toEqual([false, true, []])
    expect(() => rig.machine.boot()).toThrow(expect.objectContaining({ code: 'NOT_READY' }))
  })

  it('has nothing to eject while the next QEMU is launched, and rejects nothing', async () => {
    let launch = (_qemu: FakeQemu) => {}
    const launched = new Promise<FakeQemu>((resolve) => {
      launch = resolve
    })
    const hardware: Hardware = { ...HARDWARE, accel: 'kvm', cpus: [0, 1], pci: [] }
    const report = () => Promise.reject(new Error('no answer'))
    const machine = new QemuMachine({ hardware, launch: () => launched, report, ejectTimeoutMs: 20 })
    await machine.stopCpus([1])
    await machine.unplugPci(DISK)
    const slots = new Slots()
    await machine.detachDrive({ ...DISK, ...DISK.disk!, window: slots.windows[0]! })
    expect([machine.guest, machine.spares]).toEqual(['booting', { cpus: [1], pci: [DISK.place] }])
    await expect(machine.startCpus([1])).rejects.toMatchObject({ code: 'NOT_READY' })
    launch(await FakeQemu.start())
    await machine.launched
    await machine.stop()
    expect(machine.guest).toBe('dead')
  })

  it('that is stopped while it is launched never comes up', async () => {
    const machine = new QemuMachine({
      hardware: HARDWARE,
      launch: (_hardware, signal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })),
      report: () => Promise.reject(new Error('no answer')),
      onExit: (why) => expect.unreachable(why),
    })
    await Promise.resolve()
    const { guestGone, launched } = machine
    await Promise.all([machine.stop(), machine.stop()])
    await expect(launched).rejects.toThrow('the machine is stopped')
    expect([machine.guest, guestGone.aborted]).toEqual(['dead', true])
  })

  it('that comes up although the machine was stopped is ended', async () => {
    let up = (_qemu: FakeQemu) => {}
    const launched = new Promise<FakeQemu>((resolve) => {
      up = resolve
    })
    const report = () => Promise.reject(new Error('no answer'))
    const machine = new QemuMachine({ hardware: HARDWARE, launch: () => launched, report })
    await Promise.resolve()
    const stopped = machine.stop()
    const qemu = await FakeQemu.start()
    up(qemu)
    await stopped
    await expect(machine.launched).rejects.toThrow()
    expect(qemu.closed).toBe(true)
  })

  it('that does not come up is dead, and says why', async () => {
    const exits: string[] = []
    const machine = new QemuMachine({
      hardware: HARDWARE,
      launch: () => Promise.reject(new Error('no such kernel')),
      report: () => Promise.reject(new Error('no answer')),
      onExit: (why) => exits.push(why),
    })
    await expect(machine.launched).rejects.toThrow('no such kernel')
    expect([machine.guest, exits]).toEqual(['dead', ['no such kernel']])
  })

  it('goes on when a callback throws, which is uncaught', async () => {
    using uncaught = catchUncaught()
    const broken = (what: string) => () => {
      throw what
    }
    await using rig = await start({}, {}, { onLaunch: broken('launch'), onReset: broken('reset'), onExit: broken('exit') })
    expect(await uncaught.next()).toBe('launch')
    rig.qemu().emit('RESET')
    expect(await uncaught.next()).toBe('reset')
    expect([rig.machine.guest, rig.machine.resets]).toEqual(['booting', 1])
    rig.qemu().die()
    expect(await uncaught.next()).toBe('exit')
    expect(rig.machine.guest).toBe('dead')
  })
})
