import { describe, expect, it } from 'vitest'
import { makeRig } from '../testing/rig.js'

const DISK = { pathOnHost: '/srv/data.img', isReadOnly: false }

describe('the order of things', () => {
  it('plugs before it asks, and asks before it unplugs', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await vm.resize(2)
    await vm.addDrive('vdb', DISK)
    await vm.addPci('net1', '00:05.0')
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

  it('asks nobody for what is there already', async () => {
    await using rig = await makeRig({ cpus: 2 })
    expect(await rig.vm.resize(2)).toEqual({ added: [], removed: [], present: [0, 1] })
    expect(rig.machine.events).toEqual([])
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
    expect(believed.mmio.map(({ status }) => status)).toEqual(['present'])
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
    expect([believed.cpus.present, believed.mmio, believed.pci]).toEqual([[0], [], []])
  })
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
          replyMs: 150,
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
        await expect(act()).rejects.toMatchObject({ outcome: 'indeterminate' })
        const { believed } = await vm.view()
        const unknown = { cpu: believed.cpus.unknown.map(String), mmio: believed.mmio, pci: believed.pci }[kind]
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
        expect([...settled.believed.mmio, ...settled.believed.pci].map(({ status }) => status)).not.toContain('unknown')
      })
    }
  }

  it('stays unknown as long as the guest cannot be asked', async () => {
    await using rig = await makeRig({ replyMs: 150 })
    const { vm, machine } = rig
    machine.kernel.pause()
    await expect(vm.addDrive('vdb', DISK)).rejects.toMatchObject({ outcome: 'indeterminate' })
    await expect(vm.reconcile()).rejects.toMatchObject({ outcome: 'not-sent' })
    expect((await vm.view()).believed.mmio).toEqual([expect.objectContaining({ id: 'vdb', status: 'unknown' })])
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
        message: expect.stringContaining('resize to 4 vCPUs is under way'),
      })
    }
    expect(await first).toMatchObject({ present: [0, 1, 2, 3] })
    expect(await vm.resize(2)).toMatchObject({ present: [0, 1] })
  })
})

describe('a guest that is gone', () => {
  it('is replaced by one that finds what was certain', async () => {
    await using rig = await makeRig()
    const { vm, machine } = rig
    await vm.resize(2)
    machine.guest = 'dead'
    await expect(vm.resize(3)).rejects.toMatchObject({ code: 'NOT_READY' })
    expect(await vm.view()).toMatchObject({ state: 'dead', guest: null })
    expect(await vm.reconcile()).toEqual({ restarted: true, settled: [], differences: [] })
    expect((await vm.view()).guest?.cpus.online).toEqual([0, 1])
  })
})
