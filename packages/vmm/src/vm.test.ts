import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { makeRig, type Rig } from '../testing/rig.js'
import { VmError } from './error.js'
import type { VmSnapshot } from './snapshot.js'
import { Vm } from './vm.js'

const DISK = { pathOnHost: '/srv/data.img', isReadOnly: false }

describe('the order of things', () => {
  it('plugs before it asks, and asks before it unplugs', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await vm.resize(2)
    await vm.addDrive('vdb', DISK)
    await vm.addPci('net1', { bdf: '00:05.0' })
    expect(machine.events).toEqual(['start 1', 'ADD_CPU', 'attach vdb', 'ADD_MMIO', 'plug 00:05.0', 'ADD_PCI'])
    machine.events.length = 0
    await vm.removePci('net1')
    await vm.removeDrive('vdb')
    await vm.resize(1)
    expect(machine.events).toEqual(['DEL_PCI', 'unplug 00:05.0', 'DEL_MMIO', 'detach vdb', 'DEL_CPU', 'stop 1'])
  })

  it('grows by the lowest ids and shrinks from the top', async () => {
    await using rig = await makeRig()
    expect(await rig.vm.resize(4)).toEqual({ added: [1, 2, 3], removed: [], present: [0, 1, 2, 3] })
    expect(await rig.vm.resize(2)).toEqual({ added: [], removed: [3, 2], present: [0, 1] })
    expect(rig.machine.kernel.state.cpus.online).toEqual([0, 1])
  })

  it('resizes an aarch64 guest by count', async () => {
    await using rig = await makeRig({ arch: 'aarch64' })
    expect(await rig.vm.resize(3)).toEqual({ added: [1, 2], removed: [], present: [0, 1, 2] })
    expect(await rig.vm.resize(1)).toEqual({ added: [], removed: [2, 1], present: [0] })
  })

  it('sends nothing for what is there already', async () => {
    await using rig = await makeRig({ cpus: 2 })
    expect(await rig.vm.resize(2)).toEqual({ added: [], removed: [], present: [0, 1] })
    expect(rig.machine.events).toEqual([])
  })
})

describe('a guest where other programs are at work', () => {
  const there = { id: 1, remote: '', delay: () => Promise.resolve() }

  it('has let go of a device by itself', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await vm.addDrive('vdb', DISK)
    const { place } = await vm.addPci('net1')
    const { window } = (await vm.addDrive('vdc', DISK))!
    void machine.kernel.pci!.remove({ type: 'DEL_PCI', ...place }, there)
    void machine.kernel.mmio!.remove({ type: 'DEL_MMIO', ...window }, there)
    await vm.removePci('net1')
    await vm.removeDrive('vdc')
    const { believed } = await vm.view()
    expect([believed.pci, believed.drives.map(({ id }) => id)]).toEqual([[], ['vdb']])
    expect([machine.pci.size, [...machine.drives]]).toEqual([0, ['vdb']])
  })

  it('refuses to let go of a device that it has, or may have', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    const { window } = await vm.addDrive('vdb', DISK)
    const report = await machine.report()
    void machine.kernel.mmio!.remove({ type: 'DEL_MMIO', ...window }, there)
    for (const said of [report, undefined]) {
      machine.report = async () => said
      await expect(vm.removeDrive('vdb')).rejects.toMatchObject({ errnoName: 'ENODEV' })
    }
    expect([...machine.drives]).toEqual(['vdb'])
  })

  it('has brought a vCPU online by itself', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    // As a udev rule does, as soon as the vCPU is there.
    for (const id of [1, 2]) {
      machine.cpus.add(id)
      await machine.kernel.cpu!.add({ type: 'ADD_CPU', apicIds: [id] }, there)
      machine.cpus.delete(id)
    }
    expect(await vm.resize(4)).toEqual({ added: [1, 2, 3], removed: [], present: [0, 1, 2, 3] })
    expect((await vm.view()).believed.cpus).toEqual({ present: [0, 1, 2, 3], unknown: [], max: 8 })
    expect([...machine.cpus].sort()).toEqual([0, 1, 2, 3])
  })

  it('has taken a vCPU offline by itself', async () => {
    await using rig = await makeRig({ cpus: 4 })
    const { vm, machine } = rig
    machine.kernel.setCpuOnline(3, false)
    expect(await vm.resize(2)).toEqual({ added: [], removed: [3, 2], present: [0, 1] })
    expect((await vm.view()).believed.cpus).toEqual({ present: [0, 1], unknown: [], max: 8 })
    expect([...machine.cpus]).toEqual([0, 1])
  })

  /** vCPU 2 is online, as by a udev rule. */
  const bringOnline = async ({ machine }: Rig) => {
    machine.cpus.add(2)
    await machine.kernel.cpu!.add({ type: 'ADD_CPU', apicIds: [2] }, there)
    machine.cpus.delete(2)
  }

  it('refuses a vCPU that is online, which is not started twice', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await bringOnline(rig)
    expect(await vm.resize(4)).toMatchObject({ added: [1, 2, 3] })
    expect(machine.events).toEqual(['start 1', 'ADD_CPU', 'start 2', 'ADD_CPU', 'start 3', 'ADD_CPU'])
  })

  it('refuses a vCPU and does not say why: both are told, and the vCPUs are taken back', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await bringOnline(rig)
    const { report } = machine
    machine.report = async () => Promise.reject(new Error('no end after 5000 ms'))
    await expect(vm.resize(4)).rejects.toMatchObject({
      ...{ code: 'INCOMPLETE', op: 'vm.resize', subject: '4 vCPUs', outcome: 'guest-error' },
      errors: [{ operation: { op: 'cpu.add', apicIds: [2] } }, { message: 'no end after 5000 ms' }],
      message: expect.stringMatching(/the guest refused: .*; then no end after 5000 ms$/),
    })
    machine.report = report
    expect((await vm.view()).believed.cpus).toEqual({ present: [0], unknown: [], max: 8 })
    expect([...machine.cpus]).toEqual([0])
  })

  it('and a failure after that takes all of it back', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await bringOnline(rig)
    machine.brokenFrom = 3
    await expect(vm.resize(4)).rejects.toMatchObject({ code: 'NOT_READY', outcome: 'not-sent' })
    expect((await vm.view()).believed.cpus).toEqual({ present: [0], unknown: [], max: 8 })
  })

  it('keeps what is unknown of a vCPU until a reconcile, if it does not say what it has', async () => {
    await using rig = await makeRig({ cpus: 4 })
    const { vm, machine } = rig
    machine.kernel.setCpuOnline(2, false)
    const report = machine.report.bind(machine)
    machine.report = async () => undefined
    await expect(vm.resize(1)).rejects.toMatchObject({
      ...{ code: 'INCOMPLETE', errors: [{ errno: 1 }], next: 'Reconcile to find out about vCPU 2.' },
      what: expect.stringMatching(/; 2 vCPUs are certain$/),
    })
    expect((await vm.view()).believed.cpus).toEqual({ present: [0, 1], unknown: [2], max: 8 })
    machine.report = report
    expect(await vm.reconcile()).toMatchObject({ settled: [{ kind: 'cpu', id: '2', now: 'absent' }] })
  })
})

describe('a guest that refuses', () => {
  it('leaves no trace of what was to be added', async () => {
    await using rig = await makeRig({ onRequest: (_, { faults }) => (faults.fault = 'refuse') })
    const { vm, machine } = rig
    const before = await vm.view()
    for (const add of [() => vm.resize(2), () => vm.addDrive('vdb', DISK), () => vm.addPci('net1')]) {
      // It refuses requests, not connections, of which the PCI request needs a new one.
      machine.faults.fault = undefined
      await expect(add()).rejects.toMatchObject({ outcome: 'guest-error', errno: -5 })
    }
    expect(await vm.view()).toEqual({ ...before, state: vm.state })
    expect([machine.cpus, machine.drives, machine.pci].map((set) => set.size)).toEqual([1, 0, 0])
  })

  it('is what is told, even if what was plugged in cannot be taken out again', async () => {
    await using rig = await makeRig({ onRequest: (_, { faults }) => (faults.fault = 'refuse') })
    const { vm, machine } = rig
    machine.unplugPci = () => Promise.reject(new Error('the monitor is gone'))
    await expect(vm.addPci('net1')).rejects.toMatchObject({
      ...{ code: 'INCOMPLETE', outcome: 'guest-error' },
      errors: [{ errno: -5 }, { message: 'the monitor is gone' }],
    })
    expect((await vm.view()).believed.pci).toEqual([])
  })

  it('keeps what was to be removed', async () => {
    await using rig = await makeRig({
      cpus: 2,
      onRequest: (what, { faults }) => (faults.fault = what.startsWith('DEL') ? 'refuse' : undefined),
    })
    const { vm, machine } = rig
    await vm.addDrive('vdb', DISK)
    await vm.addPci('net1')
    await expect(vm.removeDrive('vdb')).rejects.toMatchObject({ outcome: 'guest-error', errno: -5 })
    machine.faults.fault = undefined
    await expect(vm.removePci('net1')).rejects.toMatchObject({ outcome: 'guest-error', errno: -5 })
    machine.faults.fault = undefined
    await expect(vm.resize(1)).rejects.toMatchObject({ outcome: 'guest-error', errno: -5 })
    const { believed } = await vm.view()
    expect(believed.cpus).toEqual({ present: [0, 1], unknown: [], max: 8 })
    expect(believed.drives.map(({ status }) => status)).toEqual(['present'])
    expect(believed.pci.map(({ status }) => status)).toEqual(['present'])
    expect([machine.cpus, machine.drives, machine.pci].map((set) => set.size)).toEqual([2, 1, 1])
  })

  it.each([
    { from: 1, to: 4, type: 'ADD_CPU' },
    { from: 4, to: 1, type: 'DEL_CPU' },
  ])('is taken back to $from vCPUs when it refuses the second step to $to', async ({ from, to, type }) => {
    let asked = 0
    await using rig = await makeRig({
      cpus: from,
      onRequest: (what, { faults }) => {
        if (what === type) asked += 1
        faults.fault = what === type && asked === 2 ? 'refuse' : undefined
      },
    })
    const { vm, machine } = rig
    await expect(vm.resize(to)).rejects.toMatchObject({ outcome: 'guest-error', errno: -5 })
    const { believed, guest } = await vm.view()
    const ids = Array.from({ length: from }, (_, id) => id)
    expect(believed.cpus).toEqual({ present: ids, unknown: [], max: 8 })
    expect(guest?.cpus.online).toEqual(ids)
    expect([...machine.cpus].sort()).toEqual(ids)
  })

  it('keeps no vCPUs if the memory that goes with them cannot be had', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    machine.memoryFails = new VmError({ code: 'NOT_READY', subject: '', what: 'no memory' })
    await expect(vm.resizeBoth(3, 2 ** 30)).rejects.toMatchObject({ code: 'NOT_READY', what: 'no memory' })
    expect((await vm.view()).believed).toMatchObject({ cpus: { present: [0] }, memory: 512 * 2 ** 20 })
    machine.memoryFails = new VmError({ code: 'UNFINISHED', subject: '', what: 'no end' })
    await expect(vm.resizeBoth(3, 2 ** 30)).rejects.toMatchObject({
      ...{ code: 'UNFINISHED', outcome: 'indeterminate', what: 'no end; the vCPUs are 3 now' },
    })
    machine.memoryFails = undefined
    expect(await vm.resizeBoth(2, 2 ** 30)).toMatchObject({ removed: [2] })
    expect(machine.memory).toBe(2 ** 30)
  })

  it('frees the window for the next one', async () => {
    await using rig = await makeRig({
      onRequest: (what, { faults }) => (faults.fault = what === 'DEL_MMIO' ? undefined : faults.fault),
    })
    const { vm, machine } = rig
    machine.faults.fault = 'refuse'
    await expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ errno: -5 })
    machine.faults.fault = undefined
    const drive = await vm.addDrive('vdc', DISK)
    expect(drive.window).toEqual({ base: 0xd000_0000n, size: 0x2000n, irq: 6 })
  })
})

it('does not try a window again that the guest has from another client, before a reconcile', async () => {
  await using rig = await makeRig()
  const { vm, manager } = rig
  const foreign = { base: 0xd000_0000n, size: 0x1000n, irq: 6 }
  await manager.addMmio(foreign)
  await expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ errno: -17 })
  expect((await vm.addDrive('vdb', DISK)).window).toEqual({ base: 0xd000_2000n, size: 0x2000n, irq: 7 })
  await manager.removeMmio(foreign)
  expect((await vm.addDrive('vdc', DISK)).window).toMatchObject({ base: 0xd000_4000n })
  await vm.reconcile()
  expect((await vm.addDrive('vdd', DISK)).window).toEqual({ base: 0xd000_0000n, size: 0x2000n, irq: 6 })
})

describe('hardware that cannot be plugged in', () => {
  it('is not announced', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    machine.broken = true
    await expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ code: 'NOT_READY' })
    await expect(vm.addPci('net1')).rejects.toMatchObject({ code: 'NOT_READY' })
    await expect(vm.resize(2)).rejects.toMatchObject({ outcome: 'not-sent' })
    expect(machine.events).toEqual([])
    const { believed } = await vm.view()
    expect([believed.cpus.present, believed.drives, believed.pci]).toEqual([[0], [], []])
  })
})

describe('hardware that fails half-way', () => {
  it('takes back the vCPUs before it', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    machine.brokenFrom = 2
    await expect(vm.resize(4)).rejects.toMatchObject({ outcome: 'not-sent' })
    expect((await vm.view()).believed.cpus).toEqual({ present: [0], unknown: [], max: 8 })
    expect(machine.events).toEqual(['start 1', 'ADD_CPU', 'DEL_CPU', 'stop 1'])
  })

  it('says so if they cannot be taken back either', async () => {
    await using rig = await makeRig({
      onRequest: (what, { faults }) => (faults.fault = what === 'DEL_CPU' ? 'refuse' : undefined),
    })
    const { vm, machine } = rig
    machine.brokenFrom = 2
    await expect(vm.resize(4)).rejects.toMatchObject({
      ...{ code: 'INCOMPLETE', outcome: 'not-sent' },
      errors: [{ code: 'NOT_READY' }, { errno: -5 }],
      what: expect.stringMatching(/EIO.*; going back to 1 vCPUs stopped at 2$/),
    })
    expect((await vm.view()).believed.cpus.present).toEqual([0, 1])
  })
})

describe('a guest that is gone before it is asked', () => {
  it.each(['addDrive', 'addPci', 'resize'] as const)('is not waited for: %s', async (change) => {
    await using rig = await makeRig()
    const { vm, machine, manager } = rig
    const gone = new AbortController()
    machine.guestGone = gone.signal
    machine.onPlug = async () => {
      const noticed = once(manager.client, 'state')
      machine.guest = 'dead'
      await machine.cut()
      await noticed
      setImmediate(() => gone.abort(new Error('QEMU was ended by SIGKILL')))
    }
    const changed = change === 'resize' ? vm.resize(2) : change === 'addPci' ? vm.addPci('net1') : vm.addDrive('vdb', DISK)
    await expect(changed).rejects.toMatchObject({ outcome: 'not-sent', code: 'ABORTED' })
    const { believed } = await vm.view()
    expect([believed.cpus.present, believed.cpus.unknown, believed.drives, believed.pci]).toEqual([[0], [], [], []])
  })
})

describe('a caller that gives up', () => {
  it('before the guest was asked: everything is as it was', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    const given = new AbortController()
    const reason = new Error('the deadline of the controller')
    machine.onPlug = async () => given.abort(reason)
    for (const change of [
      () => vm.addDrive('vdb', DISK, { signal: given.signal }),
      () => vm.addPci('net1', { signal: given.signal }),
      () => vm.resize(2, { signal: given.signal }),
    ])
      await expect(change()).rejects.toMatchObject({ code: 'ABORTED', outcome: 'not-sent', cause: reason })
    expect([machine.cpus.size, machine.drives.size, machine.pci.size]).toEqual([1, 0, 0])
    expect(machine.events.filter((event) => /_/.test(event))).toEqual([])
  })

  it('after the guest was asked: it is unknown until a reconcile', async () => {
    await using rig = await makeRig()
    const { vm, machine, manager } = rig
    machine.kernel.pause()
    const given = new AbortController()
    const adding = vm.addDrive('vdb', DISK, { signal: given.signal })
    await expect.poll(() => manager.state).toBe('ServiceBusy')
    given.abort(new Error('enough'))
    await expect(adding).rejects.toMatchObject({ code: 'ABORTED', outcome: 'indeterminate', cause: given.signal.reason })
    expect((await vm.view()).believed.drives).toMatchObject([{ id: 'vdb', status: 'unknown' }])
  })

  it('of a reconcile: what was unknown stays so', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    machine.kernel.pause()
    const given = new AbortController()
    const reconciling = vm.reconcile({ signal: given.signal })
    given.abort(new Error('enough'))
    await expect(reconciling).rejects.toMatchObject({ code: 'ABORTED', cause: given.signal.reason })
  })
})

describe('a state that cannot be saved', () => {
  it('before a step: nothing is changed', async () => {
    await using rig = await makeRig()
    const { machine, manager } = rig
    let isFull = false
    const save = async () => {
      if (isFull) throw new Error('ENOSPC')
    }
    const vm = new Vm({ machine, manager, save, cpus: 1, maxCpus: 4 })
    await vm.addDrive('vdb', DISK)
    machine.events.length = 0
    isFull = true
    for (const change of [() => vm.resize(2), () => vm.addPci('net1'), () => vm.removeDrive('vdb')])
      await expect(change()).rejects.toMatchObject({ code: 'UNSAVED', outcome: 'not-sent', cause: { message: 'ENOSPC' } })
    expect(machine.events).toEqual([])
    expect((await vm.view()).believed).toMatchObject({ cpus: { present: [0] }, drives: [{ status: 'present' }], pci: [] })
  })

  it('after a step: the change holds, and what was saved last is still true', async () => {
    await using rig = await makeRig()
    const { machine, manager } = rig
    const saved: VmSnapshot[] = []
    const save = (snapshot: VmSnapshot) => {
      if (saved.push(snapshot) > 1) throw new Error('ENOSPC')
    }
    const vm = new Vm({ machine, manager, save, cpus: 1, maxCpus: 4 })
    await vm.addDrive('vdb', DISK)
    expect(vm.snapshot().drives).toMatchObject([{ id: 'vdb', status: 'present' }])
    expect(saved[0]?.drives).toMatchObject([{ id: 'vdb', status: 'unknown' }])
  })
})

it('hardware that does not come out leaves the device unknown, and a reconcile takes it out', async () => {
  await using rig = await makeRig()
  const { vm, machine } = rig
  await vm.addDrive('vdb', DISK)
  const { detachDrive } = machine
  machine.detachDrive = () => Promise.reject(new Error('the monitor is gone'))
  await expect(vm.removeDrive('vdb')).rejects.toMatchObject({
    ...{ code: 'INCOMPLETE', outcome: 'indeterminate' },
    errors: [{ message: 'the monitor is gone' }],
  })
  machine.detachDrive = detachDrive
  expect((await vm.reconcile()).settled).toEqual([{ kind: 'mmio', id: 'vdb', now: 'absent' }])
  expect(machine.drives.size).toBe(0)
})

it('looks whether the id is taken before it looks for a place', async () => {
  await using rig = await makeRig()
  const { vm, machine } = rig
  await vm.addDrive('vdb', DISK)
  machine.chooseWindow = () => undefined
  await expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ code: 'CONFLICT' })
  await expect(vm.addDrive('vdc', DISK)).rejects.toMatchObject({ code: 'EXHAUSTED' })
})

describe('a request that is never answered', () => {
  const changes = [
    { name: 'grow', change: 'resize', to: 2, kind: 'cpu', id: '1' },
    { name: 'shrink', change: 'resize', to: 1, kind: 'cpu', id: '1' },
    { name: 'add drive', change: 'addDrive', kind: 'mmio', id: 'vdb' },
    { name: 'remove drive', change: 'removeDrive', kind: 'mmio', id: 'vdb' },
    { name: 'add PCI', change: 'addPci', kind: 'pci', id: 'net1' },
    { name: 'remove PCI', change: 'removePci', kind: 'pci', id: 'net1' },
  ] as const

  for (const { name, change, kind, id, ...rest } of changes) {
    const removal = name.startsWith('remove') || name === 'shrink'
    for (const done of [true, false]) {
      it(`${name}: is unknown until a reconcile finds that the guest has ${done ? '' : 'not '}done it`, async () => {
        let hushed = false
        await using rig = await makeRig({
          cpus: name === 'shrink' ? 2 : 1,
          onRequest: (_, { faults }) => (faults.fault = hushed ? 'silence' : undefined),
        })
        const { vm, machine } = rig
        if (name === 'remove drive') await vm.addDrive(id, DISK)
        if (name === 'remove PCI') await vm.addPci(id)
        const act = () => {
          if (change === 'resize') return vm.resize('to' in rest ? rest.to : 1)
          return change === 'addDrive' ? vm.addDrive(id, DISK) : vm[change](id)
        }
        if (done) machine.kernel.pause()
        else hushed = true
        const acted = expect(act()).rejects.toMatchObject({ outcome: 'indeterminate' })
        await rig.loseReply()
        await acted
        const { believed } = await vm.view()
        const unknown = { cpu: believed.cpus.unknown.map(String), mmio: believed.drives, pci: believed.pci }[kind]
        expect(unknown).toEqual(kind === 'cpu' ? ['1'] : [expect.objectContaining({ id, status: 'unknown' })])
        await expect(act()).rejects.toMatchObject({ code: 'CONFLICT' })

        // What a paused guest was asked it does when it runs on.
        if (done) machine.kernel.resume()
        hushed = false
        machine.faults.fault = undefined
        const now = removal === done ? 'absent' : 'present'
        expect(await vm.reconcile()).toEqual({ restarted: false, settled: [{ kind, id, now }], differences: [] })
        const plugged = { cpu: machine.cpus.has(1), mmio: machine.drives.has(id), pci: machine.pci.size === 1 }[kind]
        expect(plugged).toBe(now === 'present')
        const settled = await vm.view()
        expect(settled.believed.cpus.unknown).toEqual([])
        expect([...settled.believed.drives, ...settled.believed.pci].map(({ status }) => status)).not.toContain('unknown')
      })
    }
  }

  it('stays unknown as long as the guest cannot be asked', async () => {
    await using rig = await makeRig({ reconcileMs: 500 })
    const { vm, machine } = rig
    machine.kernel.pause()
    const adding = expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ outcome: 'indeterminate' })
    await rig.loseReply()
    await adding
    await expect(vm.reconcile()).rejects.toMatchObject({ outcome: 'not-sent' })
    expect((await vm.view()).believed.drives).toEqual([expect.objectContaining({ id: 'vdb', status: 'unknown' })])
  })
})

describe('a guest that was reset', () => {
  const reset = async ({ vm, machine, manager }: Rig, notices = true) => {
    await vm.addDrive('vdb', DISK)
    await vm.addDrive('vdc', DISK)
    const noticed = once(manager.client, 'state')
    await machine.reboot()
    if (notices) await noticed
    machine.events.length = 0
  }

  it.each([true, false])('is told of its windows again, whether it says what it has: %s', async (says) => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await reset(rig)
    if (!says) machine.report = async () => undefined
    const settled = ['vdb', 'vdc'].map((id) => ({ kind: 'mmio', id, now: 'present' }))
    expect(await vm.reconcile()).toEqual({ restarted: false, settled, differences: [] })
    expect(machine.kernel.state.mmio).toHaveLength(2)
    if (!says) await expect(vm.reconcile()).rejects.toMatchObject({ code: 'NOT_READY' })
  })

  it('is asked over a new connection if the old one turns out to be dead', async () => {
    await using rig = await makeRig()
    await reset(rig, false)
    expect((await rig.vm.reconcile()).settled).toHaveLength(2)
  })

  it('that has a window already is not told of it twice', async () => {
    await using rig = await makeRig()
    const { vm, machine, manager } = rig
    await reset(rig)
    await manager.addMmio((await vm.view()).believed.drives[0]!.window)
    machine.report = async () => undefined
    expect((await vm.reconcile()).settled).toEqual([{ kind: 'mmio', id: 'vdc', now: 'present' }])
  })

  it('and refuses one of them is told of the others, and asked again the next time', async () => {
    let adds = 0
    await using rig = await makeRig({
      onRequest: (what, { faults }) => (faults.fault = what === 'ADD_MMIO' && ++adds === 3 ? 'refuse' : undefined),
    })
    const { vm } = rig
    await reset(rig)
    expect(await vm.reconcile()).toEqual({
      restarted: false,
      settled: [{ kind: 'mmio', id: 'vdc', now: 'present' }],
      differences: [{ kind: 'mmio', id: 'vdb', only: 'vmm' }],
    })
    expect((await vm.reconcile()).settled).toEqual([{ kind: 'mmio', id: 'vdb', now: 'present' }])
  })

  it.each(['x86_64', 'aarch64'] as const)('has its spare vCPUs taken offline, on %s', async (arch) => {
    await using rig = await makeRig({ arch, cpus: 3 })
    const { vm, machine } = rig
    await vm.resize(1)
    for (const id of [1, 2]) machine.cpus.add(id)
    machine.spares = { cpus: [1, 2], pci: [] }
    await machine.reboot()
    expect((await vm.reconcile()).settled.map(({ id, now }) => `${id} ${now}`)).toEqual(['2 absent', '1 absent'])
    expect(machine.kernel.state.cpus.online).toEqual([0])
  })
})

describe('one change at a time', () => {
  it('refuses a second one while the first is under way', async () => {
    await using rig = await makeRig()
    const { vm } = rig
    const first = vm.resize(4)
    for (const second of [vm.resize(2), vm.addDrive('vdb', DISK), vm.removePci('net1'), vm.reconcile()]) {
      await expect(second).rejects.toMatchObject({
        code: 'BUSY',
        what: 'vm.resize 4 vCPUs is under way',
      })
    }
    expect(await first).toMatchObject({ present: [0, 1, 2, 3] })
    expect(await vm.resize(2)).toMatchObject({ present: [0, 1] })
  })
})

describe('a guest that is gone', () => {
  it('is replaced by a guest that finds what was certain', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await vm.resize(2)
    machine.guest = 'dead'
    await expect(vm.resize(3)).rejects.toMatchObject({ code: 'NOT_READY' })
    expect(await vm.view()).toMatchObject({ state: 'dead', guest: undefined })
    expect(await vm.reconcile()).toEqual({ restarted: true, settled: [], differences: [] })
    expect((await vm.view()).guest?.cpus.online).toEqual([0, 1])
  })

  it('and whose successor dies too: it is told why, and later what was settled', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    machine.kernel.pause()
    const adding = expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ outcome: 'indeterminate' })
    await rig.loseReply()
    await adding
    machine.guest = 'dead'
    const gone = new AbortController()
    machine.guestGone = gone.signal
    const { boot } = machine
    machine.boot = () => {
      machine.guest = 'dead'
      gone.abort(new Error('QEMU ended with status 1: no such file'))
    }
    await expect(vm.reconcile()).rejects.toMatchObject({
      code: 'NOT_READY',
      message: expect.stringContaining('QEMU ended with status 1: no such file'),
    })
    machine.boot = boot
    machine.guestGone = new AbortController().signal
    const settled = [{ kind: 'mmio', id: 'vdb', now: 'absent' }]
    expect(await vm.reconcile()).toEqual({ restarted: true, settled, differences: [] })
    expect(await vm.reconcile()).toEqual({ restarted: false, settled: [], differences: [] })
  })
})
