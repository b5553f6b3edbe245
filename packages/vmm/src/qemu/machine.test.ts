import { describe, expect, it } from 'vitest'
import { type Answer, OVERDUE } from '../../testing/fake-qemu.js'
import { cpus, DISK, MIB, start } from '../../testing/qemu-rig.js'
import type { PciDevice } from '../devices.js'
import { MEMORY_DEVICE } from './hardware.js'
import type { QemuMachineOptions } from './machine.js'
import { Slots } from './slots.js'

describe('vCPUs', () => {
  it('are plugged in by their APIC ids', async () => {
    await using rig = await start()
    await rig.machine.startCpus([2])
    expect(rig.qemu().commands).toContainEqual({
      execute: 'device_add',
      arguments: { driver: 'max-x86_64-cpu', id: 'cpu-2', 'socket-id': 0, 'core-id': 2, 'thread-id': 0 },
    })
  })

  it('under tcg are kept as spares, and started again without being plugged in again', async () => {
    const plugged = [0]
    await using rig = await start({
      'query-hotpluggable-cpus': cpus(plugged),
      device_add: (args) => void plugged.push(Number(args['core-id'])),
    })
    await rig.machine.startCpus([1])
    await rig.machine.stopCpus([1])
    expect(rig.machine.spares.cpus).toEqual([1])
    const before = rig.qemu().changes
    await rig.machine.startCpus([1])
    expect(rig.machine.spares.cpus).toEqual([])
    expect(rig.qemu().changes).toEqual(before)
  })

  it('under kvm are unplugged, and are spares if the guest does not eject them', async () => {
    const hardware = { accel: 'kvm', cpus: [0, 1, 2] } as const
    const present = cpus([0, 1, 2])
    const eject: Answer = ({ id }) => void setImmediate(() => ejecting.qemu().emit('DEVICE_DELETED', { path: `${id}/lapic` }))
    const answers = { 'query-hotpluggable-cpus': present, device_del: eject }
    await using ejecting = await start(answers, hardware, { ejectTimeoutMs: 20_000 })
    await ejecting.machine.stopCpus([2])
    expect(ejecting.machine.spares.cpus).toEqual([])
    await using rig = await start({ 'query-hotpluggable-cpus': present }, hardware)
    await rig.machine.stopCpus([1])
    expect(rig.machine.spares.cpus).toEqual([1])
    rig.qemu().emit('DEVICE_DELETED', { path: '/machine/peripheral/cpu-1/lapic' })
    await expect.poll(() => rig.machine.spares.cpus).toEqual([])
  })
})

const slow = () => OVERDUE
const refuse = (message: string, errorClass = 'GenericError') => {
  throw Object.assign(new Error(message), { errorClass })
}

describe('what QEMU or the guest has done already', () => {
  const plugged = async (answers: Record<string, Answer>, more: Partial<QemuMachineOptions> = {}) => {
    const rig = await start(answers, {}, more)
    await rig.machine.plugPci(DISK)
    return rig
  }

  it('is waited for if the device is being ejected', async () => {
    await using rig = await plugged(
      {
        device_del: () => {
          setImmediate(() => rig.qemu().emit('DEVICE_DELETED', { device: 'pci-data', path: '/machine/peripheral/pci-data' }))
          return refuse('Device pci-data is already in the process of unplug')
        },
      },
      { ejectTimeoutMs: 10_000 },
    )
    await rig.machine.unplugPci(DISK)
    expect(rig.machine.spares.pci).toEqual([])
    expect(rig.qemu().changes.at(-1)).toBe('blockdev-del')
  })

  it('is seen although the event was missed', async () => {
    await using rig = await plugged({
      'qom-list': () => refuse("Device '/machine/peripheral/pci-data' not found", 'DeviceNotFound'),
    })
    await rig.machine.unplugPci(DISK)
    expect(rig.machine.spares.pci).toEqual([])
  })

  it('is not taken for done while the device is there', async () => {
    await using rig = await plugged({ 'qom-list': () => [] })
    await rig.machine.unplugPci(DISK)
    expect(rig.machine.spares.pci).toEqual([DISK.place])
  })

  it('is not a failure if the same device was plugged in by a command whose answer was lost', async () => {
    const net: PciDevice = { id: 'net', place: { bus: 2, devfn: 0 }, status: 'adding' }
    const query = () => [
      {
        bus: 0,
        devices: [
          {
            bus: 0,
            slot: 0x11,
            function: 0,
            qdev_id: 'port-2',
            pci_bridge: { devices: [{ bus: 2, slot: 0, function: 0, qdev_id: 'pci-net' }] },
          },
        ],
      },
    ]
    await using rig = await start({ device_add: () => refuse("Duplicate device ID 'pci-net'"), 'query-pci': query })
    await rig.machine.plugPci(net)
    // The same name at another place is another device.
    await expect(rig.machine.plugPci({ ...net, place: { bus: 3, devfn: 0 } })).rejects.toThrow(/Duplicate/)
    // And of a disk it is unknown which file it has.
    await expect(rig.machine.plugPci({ ...net, disk: DISK.disk })).rejects.toThrow(/Duplicate/)
  })
})

describe('a command that QEMU does not answer', () => {
  it('leaves a vCPU as a spare, which is looked at again before it is used', async () => {
    const plugged = [0]
    let hangs = true
    await using rig = await start({
      'query-hotpluggable-cpus': (args) => cpus(plugged)(args),
      device_add: (args) => {
        if (hangs) return slow()
        return void plugged.push(Number(args['core-id']))
      },
    })
    await expect(rig.machine.startCpus([1])).rejects.toMatchObject({ code: 'DEADLINE' })
    expect(rig.machine.spares.cpus).toEqual([1])
    hangs = false
    await rig.machine.startCpus([1])
    expect(plugged).toEqual([0, 1])
    expect(rig.machine.spares.cpus).toEqual([])
  })

  it('leaves nothing of a PCI device that QEMU then does not know', async () => {
    const gone = () => {
      throw Object.assign(new Error("Device '/machine/peripheral/pci-data' not found"), { errorClass: 'DeviceNotFound' })
    }
    await using rig = await start({ device_add: slow, device_del: gone })
    await expect(rig.machine.plugPci(DISK)).rejects.toMatchObject({ code: 'DEADLINE' })
    expect(rig.machine.spares.pci).toEqual([])
    expect(rig.qemu().changes).toEqual(['blockdev-add', 'device_add', 'blockdev-del', 'device_del', 'blockdev-del'])
  })

  it('keeps the place of a PCI device that QEMU may have plugged in, until it is out', async () => {
    await using rig = await start({ device_add: slow })
    await expect(rig.machine.plugPci(DISK)).rejects.toMatchObject({ code: 'DEADLINE' })
    expect(rig.machine.spares.pci).toEqual([DISK.place])
    expect(rig.qemu().changes).toContain('device_del')
    rig.qemu().emit('DEVICE_DELETED', { device: 'pci-data', path: '/machine/peripheral/pci-data' })
    await expect.poll(() => rig.machine.spares.pci).toEqual([])
  })
})

describe('PCI devices', () => {
  it('are a node and a device behind a port', async () => {
    await using rig = await start()
    await rig.machine.plugPci(DISK)
    const [node, device] = rig.qemu().commands.slice(-2)
    expect(node).toMatchObject({ execute: 'blockdev-add', arguments: { driver: 'raw', 'read-only': true } })
    expect(device).toMatchObject({
      execute: 'device_add',
      arguments: { driver: 'virtio-blk-pci', id: 'pci-data', serial: 'data', bus: 'port-1', drive: node!.arguments['node-name'] },
    })
  })

  it('whose file cannot be opened are invalid', async () => {
    const refuse = () => {
      throw new Error("Could not open '/srv/data.img'")
    }
    await using rig = await start({ 'blockdev-add': refuse })
    await expect(rig.machine.plugPci(DISK)).rejects.toMatchObject({
      code: 'INVALID',
      message: expect.stringContaining('/srv/data.img'),
    })
  })

  it('that cannot be plugged in leave no node', async () => {
    const refuse = () => {
      throw new Error('slot in use')
    }
    await using rig = await start({ device_add: refuse })
    await expect(rig.machine.plugPci(DISK)).rejects.toThrow('slot in use')
    expect(rig.qemu().changes).toEqual(['blockdev-add', 'device_add', 'blockdev-del'])
  })

  it('whose file is locked are a conflict', async () => {
    const locked = () => {
      throw new Error('Failed to get "write" lock')
    }
    await using rig = await start({ device_add: locked })
    await expect(rig.machine.plugPci(DISK)).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringMatching(/^\/srv\/data.img: .*hold of the file.*Failed to get "write" lock.*another process has it/),
    })
    expect(rig.qemu().changes).toEqual(['blockdev-add', 'device_add', 'blockdev-del'])
  })

  it('go with their node once the guest has ejected them, and keep their place until then', async () => {
    await using rig = await start()
    await rig.machine.plugPci(DISK)
    await rig.machine.unplugPci(DISK)
    expect(rig.machine.spares.pci).toEqual([DISK.place])
    expect(rig.machine.choosePlace([], undefined)).toEqual({ bus: 2, devfn: 0 })
    expect(() => rig.machine.choosePlace([], '01:00.0')).toThrow(/has not ejected/)
    expect(rig.qemu().changes).not.toContain('blockdev-del')
    rig.qemu().emit('DEVICE_DELETED', { device: 'pci-data', path: '/machine/peripheral/pci-data' })
    await expect.poll(() => rig.qemu().changes.at(-1)).toBe('blockdev-del')
    expect(rig.machine.choosePlace([], '01:00.0')).toEqual(DISK.place)
  })

  it('find places behind the ports of a q35, and in free slots of a pc', async () => {
    await using q35 = await start()
    expect(q35.machine.choosePlace([{ bus: 1, devfn: 0 }], undefined)).toEqual({ bus: 2, devfn: 0 })
    expect(() => q35.machine.choosePlace([], '00:05.0')).toThrow(/01:00.0, 02:00.0/)
    const fixed = [1, 2].map((slot) => ({ bus: 0, slot, function: 0, qdev_id: '' }))
    await using pc = await start({ 'query-pci': () => [{ bus: 0, devices: fixed }] }, { machine: 'pc' })
    expect(pc.machine.choosePlace([], undefined)).toEqual({ bus: 0, devfn: 3 << 3 })
    expect(() => pc.machine.choosePlace([], '00:02.0')).toThrow(/machine's own/)
    expect(() => pc.machine.choosePlace([], '00:05.1')).toThrow(/00:01.0 to 00:1f.0/)
  })
})

describe('memory', () => {
  const holds = (size: number) => () => [{ type: 'virtio-mem', data: { id: MEMORY_DEVICE, size } }]

  it('is what the guest has taken', async () => {
    let size = 0
    await using rig = await start({
      'query-memory-devices': () => holds(size)(),
      'qom-set': ({ value }) => {
        size = Number(value)
      },
    })
    await rig.machine.resizeMemory(768 * MIB)
    expect(rig.machine.memory).toBe(768 * MIB)
  })

  it('that the guest does not take is unfinished', async () => {
    await using rig = await start({ 'query-memory-devices': holds(128 * MIB) })
    await expect(rig.machine.resizeMemory(768 * MIB)).rejects.toMatchObject({ code: 'UNFINISHED' })
    expect(rig.machine.memory).toBe(640 * MIB)
  })

  it('is asked for again while the guest is not through with what it was asked before', async () => {
    const asked: unknown[] = []
    await using rig = await start({
      'query-memory-devices': holds(128 * MIB),
      'qom-set': ({ value }) => void asked.push(value),
    })
    const { machine } = rig
    await expect(machine.resizeMemory(768 * MIB)).rejects.toMatchObject({ code: 'UNFINISHED' })
    expect([machine.hasMemory(640 * MIB), machine.hasMemory(768 * MIB)]).toEqual([false, false])
    await machine.resizeMemory(640 * MIB)
    expect(machine.hasMemory(640 * MIB)).toBe(true)
    expect(asked).toEqual([256 * MIB, 128 * MIB])
  })

  it('that QEMU refuses to ask for changes nothing, in its next guest either', async () => {
    const refuse = () => {
      throw new Error('bad size')
    }
    await using rig = await start({ 'qom-set': refuse })
    await expect(rig.machine.resizeMemory(768 * MIB)).rejects.toMatchObject({
      code: 'NOT_READY',
      message: expect.stringMatching(/bad size.*the guest was not asked/),
    })
    expect(rig.machine.hasMemory(512 * MIB)).toBe(true)
    rig.qemu().die()
    await expect.poll(() => rig.machine.guest).toBe('dead')
    rig.machine.boot()
    await rig.machine.launched
    expect(rig.booted[1]!.memory.plugged).toBe(0)
  })

  it.each([
    ['before it has asked', { 'qom-set': () => new Promise(() => {}) }],
    ['while the guest is at it', { 'query-memory-devices': () => new Promise(() => {}) }],
  ])('is unfinished if QEMU dies %s', async (_when, answers) => {
    let answering: Record<string, Answer> = {}
    const late = Object.fromEntries(
      Object.keys(answers).map((name) => [name, (args: Parameters<Answer>[0]) => answering[name]?.(args)]),
    )
    await using rig = await start(late)
    answering = answers
    const resized = expect(rig.machine.resizeMemory(768 * MIB)).rejects.toMatchObject({ code: 'UNFINISHED' })
    await expect.poll(() => rig.qemu().commands.some(({ execute }) => execute in answers)).toBe(true)
    rig.qemu().die()
    await resized
  })

  it.each([
    [256 * MIB, /512|536870912/],
    [2048 * MIB, /1073741824/],
    [513 * MIB, /blocks of 2097152/],
  ])('cannot be %i', async (bytes, why) => {
    await using rig = await start()
    expect(() => rig.machine.checkMemory(bytes)).toThrow(why)
  })
})

describe('a microvm', () => {
  const drive = {
    ...{ id: 'data', window: new Slots().windows[0]!, pathOnHost: '/srv/data.img', isReadOnly: false },
    status: 'adding' as const,
  }

  it('takes drives into its slots', async () => {
    await using rig = await start({}, { machine: 'microvm', maxCpus: 1 }, { slots: new Slots() })
    expect(rig.machine.chooseWindow([])).toEqual({ base: 0xfeb0_0000n, size: 0x200n, irq: 5 })
    expect(rig.machine.chooseWindow([drive.window])).toMatchObject({ irq: 6 })
    await rig.machine.attachDrive(drive)
    await rig.machine.detachDrive(drive)
    expect(rig.qemu().changes).toEqual(['blockdev-add', 'qom-set', 'qom-set', 'blockdev-del'])
    expect(rig.qemu().commands.at(-2)!.arguments).toEqual({
      path: '/machine/peripheral/slot-0',
      property: 'drive',
      value: 'empty-0',
    })
    await expect(rig.machine.attachDrive({ ...drive, isReadOnly: true })).rejects.toMatchObject({ code: 'INVALID' })
  })

  it('keeps its vCPUs, those among them that its last guest may have had', async () => {
    const unsupported = () => {
      throw new Error('machine does not support hot-plugging CPUs')
    }
    const answers = { 'query-hotpluggable-cpus': unsupported }
    await using rig = await start(answers, { machine: 'microvm', cpus: [0, 1, 2], maxCpus: 3 }, { slots: new Slots() })
    rig.qemu().die()
    await expect.poll(() => rig.machine.guest).toBe('dead')
    await rig.machine.stopCpus([2])
    expect(rig.machine.spares.cpus).toEqual([2])
    rig.machine.boot()
    await rig.machine.launched
    await rig.machine.startCpus([2])
    expect(rig.machine.spares.cpus).toEqual([])
  })

  it('has no PCI, and the others no slots', async () => {
    await using microvm = await start({}, { machine: 'microvm', maxCpus: 1 }, { slots: new Slots() })
    expect(() => microvm.machine.choosePlace([], undefined)).toThrow(/a microvm has no PCI bus/)
    await using q35 = await start()
    expect(() => q35.machine.chooseWindow([])).toThrow(/no virtio-mmio slots/)
  })

  it('closes a file that QEMU may have opened, though it did not say so', async () => {
    const slots = new Slots()
    let hangs = true
    await using rig = await start({ 'blockdev-add': () => (hangs ? slow() : {}) }, { machine: 'microvm' }, { slots })
    const drive = {
      id: 'vdb',
      window: slots.windows[0]!,
      pathOnHost: '/srv/vdb.img',
      isReadOnly: false,
      status: 'adding',
    } as const
    await expect(rig.machine.attachDrive({ ...drive })).rejects.toMatchObject({ code: 'DEADLINE' })
    expect(rig.qemu().changes).toContain('blockdev-del')
    hangs = false
    await rig.machine.attachDrive({ ...drive })
  })

  it('leaves a slot empty and a file closed, whichever step QEMU refuses', async () => {
    let refuses = true
    const put = () => {
      if (refuses) throw new Error('not now')
    }
    await using rig = await start({ 'qom-set': put }, { machine: 'microvm', maxCpus: 1 }, { slots: new Slots() })
    await expect(rig.machine.attachDrive(drive)).rejects.toThrow('not now')
    expect(rig.qemu().changes).toEqual(['blockdev-add', 'qom-set', 'qom-set', 'blockdev-del'])
    refuses = false
    await rig.machine.attachDrive(drive)
    refuses = true
    await rig.machine.detachDrive(drive)
    expect(rig.qemu().changes.slice(-2)).toEqual(['qom-set', 'blockdev-del'])
  })

  it('puts its drives into the slots of the next QEMU', async () => {
    await using rig = await start({}, { machine: 'microvm', maxCpus: 1 }, { slots: new Slots() })
    await rig.machine.attachDrive(drive)
    rig.qemu().die()
    await expect.poll(() => rig.machine.guest).toBe('dead')
    rig.machine.boot()
    await rig.machine.launched
    expect(rig.qemu().changes).toEqual(['blockdev-add', 'qom-set'])
    expect(rig.machine.resets).toBe(1)
  })
})
