import type { GuestConnection } from '@upcall/server'
import { describe, expect, test } from 'vitest'
import { dsdt, EIO, type FakeCpu, FakeLinux, JumpingClock, madt } from '../../../testing/fake-linux.js'
import { LinuxGuest, type LinuxGuestOptions } from './guest.js'

const TABLES = '/sys/firmware/acpi/tables'
const connection: GuestConnection = { id: 1, remote: '', delay: () => Promise.resolve() }
const processor = (uid: number) => ({ path: `\\_SB_.CPUS.C00${uid}` })

/** As QEMU 7.2 makes it: processors C000 … C003 with UID = APIC id. CPU numbers come as they come. */
function qemu(cpus: readonly FakeCpu[]): FakeLinux {
  const linux = new FakeLinux([{ number: 0, apicId: 0, online: true, node: processor(0) }, ...cpus])
  linux.fixed.set(`${TABLES}/APIC`, madt([0, 0], [1, 1], [2, 2], [3, 3]))
  linux.fixed.set(`${TABLES}/DSDT`, dsdt(['C000', 0], ['C001', 1], ['C002', 2], ['C003', 3]))
  return linux
}

const cpu = (number: number, apicId: number, online: boolean, more: Partial<FakeCpu> = {}): FakeCpu => ({
  ...{ number, apicId, online, node: processor(apicId) },
  ...more,
})

function setUp(linux: FakeLinux, options: LinuxGuestOptions = {}) {
  const clock = new JumpingClock()
  const guest = new LinuxGuest({ arch: 'x86_64', clock, ...options }, linux)
  return {
    clock,
    add: (...apicIds: number[]) => guest.cpu.add({ type: 'ADD_CPU', apicIds }, connection),
    remove: (...apicIds: number[]) => guest.cpu.remove({ type: 'DEL_CPU', apicIds }, connection),
  }
}

describe('ADD_CPU', () => {
  test('brings the CPUs up that bear these APIC ids, whatever their numbers', async () => {
    const linux = qemu([cpu(1, 3, false), cpu(2, 1, false), cpu(3, 2, false)])
    const { add } = setUp(linux)
    expect(await add(1, 3)).toEqual({ result: 0, index: 2 })
    expect(linux.written).toEqual(['cpu2 1', 'cpu1 1'])
    expect(await add(2)).toEqual({ result: 0, index: 1 })
    expect(linux.online).toEqual([0, 1, 2, 3])
  })

  test('reads the UID of processors that are ACPI devices', async () => {
    const linux = new FakeLinux([
      cpu(0, 0, true, { node: { path: '\\_SB_.PRC0', uid: '10' } }),
      cpu(1, 300, false, { node: { path: '\\_SB_.PRC1', uid: '12' } }),
      cpu(2, 4, false, { node: { path: '\\_SB_.PRC2', uid: '11' } }),
    ])
    linux.fixed.set(`${TABLES}/APIC`, madt([10, 0], [11, 4], [12, 300]))
    expect(await setUp(linux).add(4)).toEqual({ result: 0, index: 1 })
    expect(linux.online).toEqual([0, 2])
  })

  test.each([
    ['no CPU', []],
    ['the same one twice', [1, 1]],
    ['a running CPU', [2]],
    ['a running CPU, in a batch', [1, 2]],
    ['a CPU that the firmware does not know', [7]],
    ['a CPU that the firmware does not know, in a batch', [1, 7]],
  ])('%s: −22 at once, and nothing is done', async (_what, ids) => {
    const linux = qemu([cpu(1, 1, false), cpu(2, 2, true)])
    const { add, clock } = setUp(linux)
    expect(await add(...ids)).toEqual({ result: -22 })
    expect([linux.written, clock.now()]).toEqual([[], 0])
  })

  test('a CPU that is never plugged in: −22 after the wait', async () => {
    const linux = qemu([cpu(1, 1, false)])
    const { add, clock } = setUp(linux, { cpuTimeoutMs: 700 })
    expect(await add(1, 2)).toEqual({ result: -22 })
    expect([linux.written, clock.now()]).toEqual([[], 700])
  })

  test('waits for a CPU that appears, and is then tied to its ACPI object', async () => {
    const linux = qemu([])
    const { add, clock } = setUp(linux)
    clock.setTimer(300, () => linux.cpus.set(1, cpu(1, 2, false, { node: undefined })))
    clock.setTimer(600, () => {
      linux.cpus.get(1)!.node = processor(2)
    })
    expect(await add(2)).toEqual({ result: 0, index: 1 })
    expect(clock.now()).toBeGreaterThanOrEqual(600)
    expect(linux.written).toEqual(['cpu1 1'])
  })

  test('finds a CPU that another program brings online when it appears', async () => {
    const linux = qemu([cpu(2, 1, false)])
    const { add, clock } = setUp(linux)
    clock.setTimer(300, () => linux.cpus.set(1, cpu(1, 2, true)))
    expect(await add(1, 2)).toEqual({ result: 0, index: 2 })
    expect(clock.now()).toBeLessThan(500)
    expect(linux.written).toEqual(['cpu2 1'])
  })

  test('it is a success if another program brings the CPU online meanwhile', async () => {
    const linux = qemu([cpu(1, 1, false, { refusesOn: -16 })])
    const write = linux.write.bind(linux)
    linux.write = (path, text) => {
      linux.cpus.get(1)!.online = true
      return write(path, text)
    }
    expect(await setUp(linux).add(1)).toEqual({ result: 0, index: 1 })
  })

  test('a roll-back leaves a CPU alone that another program brought online', async () => {
    const linux = qemu([cpu(1, 1, false), cpu(2, 2, false), cpu(3, 3, false, { refusesOn: EIO })])
    const write = linux.write.bind(linux)
    linux.write = (path, text) => {
      if (linux.written.length === 0) linux.cpus.get(2)!.online = true
      return write(path, text)
    }
    expect(await setUp(linux).add(1, 2, 3)).toEqual({ result: EIO })
    expect(linux.online).toEqual([0, 2])
  })

  test('a CPU that fails rolls the earlier ones back', async () => {
    const linux = qemu([cpu(1, 1, false), cpu(2, 2, false), cpu(3, 3, false, { refusesOn: EIO })])
    expect(await setUp(linux).add(1, 2, 3)).toEqual({ result: EIO })
    expect(linux.written).toEqual(['cpu1 1', 'cpu2 1', 'cpu3 1', 'cpu2 0', 'cpu1 0'])
    expect(linux.online).toEqual([0])
  })

  test('or, without roll-back, ends the batch where it stands', async () => {
    const linux = qemu([cpu(1, 1, false), cpu(2, 2, false, { refusesOn: EIO }), cpu(3, 3, false)])
    expect(await setUp(linux, { rollBack: false }).add(1, 2, 3)).toEqual({ result: EIO })
    expect(linux.online).toEqual([0, 1])
  })

  test('a batch is looked up at once, each CPU read once', async () => {
    const count = 64
    const all = Array.from({ length: count }, (_, id) => id)
    const node = (uid: number) => ({ path: '\\_SB_.CPUS.CPU_', uid: `${uid}` })
    const linux = new FakeLinux(all.map((id) => cpu(id, id, id === 0, { node: node(id) })))
    linux.fixed.set(`${TABLES}/APIC`, madt(...all.map((id) => [id, id] as const)))
    const reads = new Map<string, number>()
    const read = linux.read.bind(linux)
    linux.read = (path) => {
      const what = path.replace(/cpu\d+/, 'cpuN')
      reads.set(what, (reads.get(what) ?? 0) + 1)
      return read(path)
    }
    const { add } = setUp(linux, { cpuTimeoutMs: 0 })
    expect(await add(...all.slice(1))).toEqual({ result: 0, index: count - 1 })
    // Before the look, for it, and to see who came up.
    expect(reads.get('/proc/cpuinfo')).toBe(3)
    expect(reads.get('/sys/devices/system/cpu/online')).toBe(1)
    expect(reads.get('/sys/devices/system/cpu/cpuN/firmware_node/uid')).toBe(count - 1)
  })

  test('does not wait for a CPU that the firmware does not know, whatever else is missing', async () => {
    const { add, clock } = setUp(qemu([]))
    expect(await add(1, 7)).toEqual({ result: -22 })
    expect(clock.now()).toBe(0)
  })

  test('without ACPI a batch is tried once, and read again after each try', async () => {
    const bare = (number: number, apicId: number) => cpu(number, apicId, number === 0, { node: undefined })
    const linux = new FakeLinux([bare(0, 0), bare(1, 2), bare(2, 4), bare(3, 6)])
    const { add } = setUp(linux)
    expect(await add(6, 4, 2)).toEqual({ result: 0, index: 3 })
    const tries = [1, 2, 3].flatMap((number) => [`cpu${number} 1`, `cpu${number} 0`])
    expect(linux.written).toEqual([...tries, 'cpu3 1', 'cpu2 1', 'cpu1 1'])
  })

  test('without ACPI a CPU is tried, the likeliest first, and remembered', async () => {
    const bare = (number: number, apicId: number) => cpu(number, apicId, number === 0, { node: undefined })
    const linux = new FakeLinux([bare(0, 0), bare(1, 2), bare(2, 4), bare(3, 6)])
    const { add, remove } = setUp(linux)
    expect(await add(2)).toEqual({ result: 0, index: 1 })
    // cpu2 first, whose number is the id asked for; then cpu1, which bears it.
    expect(linux.written.splice(0)).toEqual(['cpu2 1', 'cpu2 0', 'cpu1 1', 'cpu1 0', 'cpu1 1'])
    expect(await add(4)).toEqual({ result: 0, index: 1 })
    expect(linux.written.splice(0)).toEqual(['cpu2 1'])
    expect(await remove(4)).toEqual({ result: 0, index: 1 })
    expect(await add(5)).toEqual({ result: -22 })
    expect(linux.online).toEqual([0, 1])
  })

  test('there is no answer if a tried CPU does not go offline again', async () => {
    const bare = (number: number, apicId: number) => cpu(number, apicId, number === 0, { node: undefined, refusesOff: -16 })
    const { add } = setUp(new FakeLinux([bare(0, 0), bare(1, 2)]))
    await expect(add(4)).rejects.toThrow(
      'linuxGuest cpu1: the CPU was brought online to read its APIC id, and does not go offline again',
    )
  })

  test('there is no answer if such a CPU has another APIC id than the firmware says', async () => {
    const linux = qemu([cpu(1, 1, false, { node: processor(2), refusesOff: -16 })])
    await expect(setUp(linux).add(2)).rejects.toThrow(
      'linuxGuest cpu1: the CPU was brought online to read its APIC id, and does not go offline again',
    )
  })

  test('a CPU that is unplugged at this moment: −22, as for a CPU that was never there', async () => {
    const linux = qemu([cpu(1, 1, false)])
    const write = linux.write.bind(linux)
    linux.write = (path, text) => {
      linux.cpus.delete(1)
      return write(path, text)
    }
    expect(await setUp(linux).add(1)).toEqual({ result: -22 })
  })

  test('a CPU that is not who the firmware says goes off again: −5', async () => {
    const linux = qemu([cpu(1, 1, false, { node: processor(2) }), cpu(2, 2, false, { node: processor(1) })])
    const { add } = setUp(linux)
    expect(await add(2)).toEqual({ result: EIO })
    expect(linux.online).toEqual([0])
    // It has said who it is by now; the other has not.
    expect(await add(1)).toEqual({ result: 0, index: 1 })
    expect(linux.online).toEqual([0, 1])
  })
})

describe('DEL_CPU', () => {
  const four = () => qemu([cpu(1, 3, true), cpu(2, 1, true), cpu(3, 2, true)])

  test('takes the CPUs down that bear these APIC ids', async () => {
    const linux = four()
    expect(await setUp(linux).remove(3, 2)).toEqual({ result: 0, index: 2 })
    expect(linux.written).toEqual(['cpu1 0', 'cpu3 0'])
  })

  test.each([
    ['no CPU', []],
    ['the same one twice', [3, 3]],
    ['all of them', [3, 2, 1, 0]],
    ['more than there are', [7, 6, 5, 4, 3]],
    ['the boot CPU', [0]],
    ['the boot CPU, in a batch', [3, 0]],
    ['a CPU that does not exist', [9]],
    ['a CPU that does not exist, in a batch', [3, 9]],
  ])('%s: −22, and nothing is done', async (_what, ids) => {
    const linux = four()
    expect(await setUp(linux).remove(...ids)).toEqual({ result: -22 })
    expect(linux.written).toEqual([])
  })

  test('a CPU that is offline already: +1, and nothing is done', async () => {
    const linux = four()
    linux.cpus.get(1)!.online = false
    expect(await setUp(linux).remove(2, 3)).toEqual({ result: 1 })
    expect(linux.written).toEqual([])
  })

  test('a CPU that stays online brings the earlier ones back', async () => {
    const linux = four()
    linux.cpus.get(3)!.refusesOff = -16
    expect(await setUp(linux).remove(3, 2)).toEqual({ result: -16 })
    expect(linux.written).toEqual(['cpu1 0', 'cpu3 0', 'cpu1 1'])
    expect(linux.online).toEqual([0, 1, 2, 3])
  })

  test('a CPU that is unplugged at this moment is gone: success', async () => {
    const linux = four()
    const write = linux.write.bind(linux)
    linux.write = (path, text) => {
      linux.cpus.delete(3)
      return write(path, text)
    }
    expect(await setUp(linux).remove(3, 2)).toEqual({ result: 0, index: 2 })
    expect(linux.online).toEqual([0, 2])
  })

  test('a roll-back leaves a CPU offline that another program took offline', async () => {
    const linux = four()
    linux.cpus.get(3)!.refusesOff = -16
    const read = linux.read.bind(linux)
    linux.read = (path) => {
      // After the request was looked at, before it is carried out.
      if (path.endsWith('/cpu1/online')) linux.cpus.get(1)!.online = false
      return read(path)
    }
    expect(await setUp(linux).remove(3, 2)).toEqual({ result: -16 })
    expect(linux.online).toEqual([0, 2, 3])
  })

  test('a boot CPU that the kernel could switch stays all the same', async () => {
    const linux = four()
    linux.fixed.set('/sys/devices/system/cpu/cpu0/online', '1\n')
    expect(await setUp(linux).remove(0)).toEqual({ result: -22 })
  })
})

test('a request for a count belongs to the other architecture', async () => {
  const guest = new LinuxGuest({ arch: 'x86_64', clock: new JumpingClock() }, qemu([]))
  await expect(guest.cpu.add({ type: 'ADD_CPU', count: 1 }, connection)).rejects.toThrow(/apicIds/)
})
