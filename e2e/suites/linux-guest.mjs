// The guest side on a stock Debian kernel, software-emulated: CPUs, PCI functions, virtio-mmio windows and memory come and go by upcall
// requests over AF_VSOCK inside the guest, and each refusal is provoked. With --docs the table goes into docs/real-guest.md.
import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeTable } from '../docs.mjs'
import { DrivenGuest } from '../driven-guest.mjs'
import { upcallMmioModule } from '../kernel-module.mjs'
import { knownClock } from '../known-clock.mjs'
import { fillPayload } from '../payload.mjs'
import {
  diskIs,
  EBUSY,
  EEXIST,
  EINVAL,
  ENODEV,
  EPERM,
  makeDisk,
  mmioLoad,
  OK,
  Requests,
  totalMemory,
  UNCHANGED,
} from '../requests.mjs'

const programs = ['guest/linux-guest']
const packages = ['upcall', '@upcall/device-manager', '@upcall/vsock']
let checks
let requests
let image
let module
let disk

export async function run(theChecks, guestImage, { docs = false } = {}) {
  checks = theChecks
  requests = new Requests(checks)
  image = guestImage
  module = await checks.check('the kernel module is built, or found in the cache', () => upcallMmioModule(image))
  if (module === undefined) return
  const folder = mkdtempSync(join(tmpdir(), 'upcall-e2e-'))
  try {
    const payloadDir = join(folder, 'payload')
    fillPayload(payloadDir, { programs, packages })
    copyFileSync(module, join(payloadDir, 'upcall_mmio.ko'))
    disk = makeDisk(join(folder, 'disk'))
    const log = await withGuest({ ...q35Options(), payloadDir }, async (guest) => {
      await cpus(guest)
      await pci(guest)
      await windows(guest)
      await memory(guest)
    })
    await withGuest({ ...microvmOptions(), payloadDir, append: knownClock(log) }, mmioDisk)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  console.log()
  console.table(requests.table)
  if (docs) writeTable('linux-guest', ['machine', 'event', 'request', 'answer'], requests.table)
}

async function cpus(guest) {
  const add = (event, apicIds, expected) => requests.row(guest, event, { op: 'cpu.add', apicIds }, expected)
  const remove = (event, apicIds, expected) => requests.row(guest, event, { op: 'cpu.remove', apicIds }, expected)
  const online = (ids) =>
    checks.check(`q35: the guest runs CPUs with APIC ids ${ids}`, async () =>
      assert.deepEqual([...(await apicIdsByNumber(guest)).values()].sort(), ids),
    )
  const plug = (core) =>
    guest.qmp('device_add', { driver: 'max-x86_64-cpu', id: `cpu${core}`, 'socket-id': 0, 'core-id': core, 'thread-id': 0 })

  await add('a CPU that is not plugged in', [1], EINVAL)
  await add('a CPU that the firmware does not know', [77], EINVAL)
  await plug(1)
  await add('a CPU that was plugged in this moment', [1], OK)
  await online([0, 1])
  // Out of order: the kernel numbers CPUs as they come. None may run after a hole, though: QEMU's emulated APICs lose interrupts there.
  await plug(3)
  // Before the next one, as the firmware's code looks for all news at once, in the order of the APIC ids.
  await checks.check('q35: the guest finds the one with APIC id 3', () =>
    guest.sees('/sys/devices/system/cpu/cpu2/firmware_node/path'),
  )
  await plug(2)
  await add('a batch that names one CPU that runs', [1, 3], EINVAL)
  await online([0, 1])
  await add('a batch', [2, 3], OK)
  await checks.check('q35: a CPU with APIC id 3 is cpu2', async () => assert.equal((await apicIdsByNumber(guest)).get(2), 3))
  await online([0, 1, 2, 3])
  await checks.check('q35: none was put online only to see which one it is, since the firmware tells', () =>
    assert.doesNotMatch(guest.console, /CPU \d+ is now offline/),
  )
  await add('a CPU that runs', [2], EINVAL)
  await remove('the boot CPU', [0], EINVAL)
  await remove('a batch with the boot CPU in it', [3, 0], EINVAL)
  await online([0, 1, 2, 3])
  await remove('all CPUs', [3, 2, 1, 0], EINVAL)
  await remove('a CPU that does not exist', [9], EINVAL)
  await remove('a batch', [3, 2], OK)
  await online([0, 1])
  await remove('a CPU that is offline already', [2], UNCHANGED)
  await requests.row(guest, 'the same CPU twice', { op: 'request', type: 1, load: cpuLoad(2, 2) }, EINVAL)
  await requests.row(guest, 'no CPU at all', { op: 'request', type: 1, load: cpuLoad() }, EINVAL)
  await online([0, 1])
  await add('a CPU back', [2], OK)
  await online([0, 1, 2])
  await remove('one CPU', [2], OK)
  for (const turn of [1, 2, 3]) {
    await add(`two CPUs come, turn ${turn}`, [2, 3], OK)
    await online([0, 1, 2, 3])
    await remove(`two CPUs go, turn ${turn}`, [3, 2], OK)
    await online([0, 1])
  }
  await remove('down to the boot CPU', [1], OK)
  await online([0])
}

async function pci(guest) {
  const path = '/sys/bus/pci/devices/0000:01:00.0'
  const add = (event, bdf, expected) => requests.row(guest, event, { op: 'pci.add', bdf }, expected)
  const remove = (event, bdf, expected) => requests.row(guest, event, { op: 'pci.remove', bdf }, expected)
  const there = (expected) =>
    checks.check(`q35: the disk behind 01:00.0 is ${expected ? 'there, and reads as it should' : 'gone'}`, () =>
      diskIs(guest, 'hot', expected ? disk : {}),
    )

  await add('a function that is not plugged in', '01:00.0', ENODEV)
  await add('a function of a bus that does not exist', '7f:00.0', ENODEV)
  await remove('a function that is not there', '01:00.0', ENODEV)
  await guest.qmp('device_add', { driver: 'virtio-blk-pci', id: 'hot', bus: 'port1', drive: 'hot', serial: 'hot' })
  await add('a function that was plugged in this moment', '01:00.0', OK)
  await there(true)
  await add('a function that is there already', '01:00.0', OK)
  await remove('a function', '01:00.0', OK)
  await checks.check('q35: its device is gone from sysfs', () => assert.rejects(guest.read(path)))
  await there(false)
  await remove('the same again', '01:00.0', ENODEV)
  await add('a function that was removed and is still plugged in', '01:00.0', OK)
  await there(true)
  await remove('a function, before it is unplugged', '01:00.0', OK)
}

/** Nothing is behind these windows: what they are registered as is at stake. */
async function windows(guest) {
  const at = (base, size, irq) => ({ base: `0x${base.toString(16)}`, size: `0x${size.toString(16)}`, irq })
  const add = (event, window, expected) => requests.row(guest, event, { op: 'mmio.add', ...window }, expected)
  const remove = (event, window, expected) => requests.row(guest, event, { op: 'mmio.remove', ...window }, expected)
  const base = 0xd000_0000

  await add('a window, without the kernel module', at(base, 0x1000, 5), EPERM)
  await guest.ask('run', { argv: ['insmod', 'upcall_mmio.ko'] })
  await add('a window', at(base, 0x1000, 5), OK)
  await add('a window beside it on the shared irq', at(base + 0x1000, 0x1000, 5), OK)
  await add('a window that overlaps', at(base + 0xfff, 0x1000, 6), EEXIST)
  await add('a window within another window', at(base + 0x100, 0x10, 6), EEXIST)
  await add('a window on an irq of its own', at(base + 0x4000, 0x1000, 6), OK)
  await add('another on that irq', at(base + 0x8000, 0x1000, 6), EEXIST)
  await requests.row(guest, 'a window without bytes', { op: 'request', type: 5, load: mmioLoad(base + 0x8000, 0, 7) }, EBUSY)
  await requests.row(guest, 'a window on irq 0', { op: 'request', type: 5, load: mmioLoad(base + 0x8000, 0x1000, 0) }, EINVAL)
  await requests.row(
    guest,
    'a window on an irq that no I/O APIC has',
    { op: 'mmio.add', ...at(base + 0x8000, 0x1000, 999) },
    EINVAL,
  )
  await requests.row(guest, 'a window in a load of 23 bytes', { op: 'request', type: 5, load: '00'.repeat(23) }, EINVAL)
  await remove('a window by another size', at(base, 0x2000, 5), ENODEV)
  await remove('a window by another irq', at(base, 0x1000, 6), ENODEV)
  await remove('a window', at(base, 0x1000, 5), OK)
  await remove('the same again', at(base, 0x1000, 5), ENODEV)
  await add('the same window again', at(base, 0x1000, 7), OK)
  await checks.check('q35: the module goes, and its windows with it', async () => {
    await guest.ask('run', { argv: ['rmmod', 'upcall_mmio'] })
    assert.doesNotMatch((await guest.read('/proc/iomem')).text, /virtio-mmio/)
  })
  await remove('a window, without the kernel module', at(base, 0x1000, 7), EPERM)
}

async function memory(guest) {
  await requests.row(guest, 'memory, which the protocol declares and no kernel serves', { op: 'request', type: 3 }, EPERM)
  await requests.row(guest, 'the same, removed', { op: 'request', type: 4 }, EPERM)
  await requests.row(guest, 'a greeting as a request', { op: 'request', type: 0 }, EPERM)
  await requests.row(guest, 'a type that there is not', { op: 'request', type: 99 }, EPERM)
  await checks.check('q35: 256 MB of memory plugged in come online', async () => {
    const before = await totalMemory(guest)
    await guest.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: 'dimm-ram', size: 256 << 20 })
    await guest.qmp('device_add', { driver: 'pc-dimm', id: 'dimm', memdev: 'dimm-ram' })
    const { onlined, refused, blockSize } = await guest.ask('memory', { bytes: 256 << 20 })
    assert.deepEqual([onlined.length * blockSize, refused], [256 << 20, []])
    assert.ok((await totalMemory(guest)) - before > 250 << 20)
  })
}

/** A real disk behind a virtio-mmio window: a slot made at boot, which the guest does not know. */
async function mmioDisk(guest) {
  const window = { base: '0xfeb00000', size: '0x200', irq: 5 }
  const there = (expected) =>
    checks.check(`microvm: the disk in the window is ${expected ? 'there, and reads as it should' : 'gone'}`, () =>
      diskIs(guest, 'spare', expected ? disk : {}),
    )
  await there(false)
  await requests.row(guest, 'a window with a disk in it', { op: 'mmio.add', ...window }, OK)
  await there(true)
  await requests.row(guest, 'the same again', { op: 'mmio.add', ...window }, EEXIST)
  await requests.row(guest, 'a window with a disk in it', { op: 'mmio.remove', ...window }, OK)
  await there(false)
  await requests.row(guest, 'a window with a disk in it, once more', { op: 'mmio.add', ...window }, OK)
  await there(true)
}

function q35Options() {
  const hot = { driver: 'raw', 'node-name': 'hot', 'read-only': true, file: { driver: 'file', filename: disk.path } }
  return {
    ...{ machine: 'q35', cpus: 1, maxCpus: 4, maxMemory: { slots: 2, size: '1G' } },
    devices: ['pcie-root-port,id=port1,chassis=1,slot=1'],
    args: ['-blockdev', JSON.stringify(hot)],
  }
}

/** Without ACPI and without windows on the command line: the guest finds its own disks through the module, early in boot. */
function microvmOptions() {
  const spare = { driver: 'raw', 'node-name': 'spare', 'read-only': true, file: { driver: 'file', filename: disk.path } }
  // QEMU gives out slots from the last one down: ports, root, payload.
  const early = [0xe00, 0xc00, 0xa00].map(
    (at) =>
      `echo 512@0x${(0xfeb0_0000 + at).toString(16)}:${5 + at / 512} >/sys/module/upcall_mmio/parameters/add || fail "slot ${at}"`,
  )
  return {
    ...{ machine: 'microvm', machineOptions: ['acpi=off', 'auto-kernel-cmdline=off'], cpus: 1 },
    early: ['insmod /early/upcall_mmio.ko || fail "upcall_mmio"', ...early].join('\n'),
    earlyFiles: { 'upcall_mmio.ko': module },
    devices: ['virtio-blk-device,bus=virtio-mmio-bus.0,drive=spare,serial=spare'],
    args: ['-blockdev', JSON.stringify(spare)],
  }
}

/** Resolves with the console, if there was one. */
async function withGuest(options, use) {
  const { machine } = options
  const guest = await checks.check(`${machine}: a stock kernel boots, upcall serve listens, its client is ready`, () =>
    DrivenGuest.start({ image, ...options }),
  )
  if (!guest) return undefined
  try {
    await use(guest)
    await checks.check(`${machine}: the kernel has nothing to complain about`, () =>
      assert.doesNotMatch(guest.console, /BUG:|WARNING:|Oops|Call Trace|general protection/),
    )
    return guest.console
  } finally {
    await guest.close()
  }
}

async function apicIdsByNumber(guest) {
  const { text } = await guest.read('/proc/cpuinfo')
  const found = text.matchAll(/^processor\s*: (\d+)$[\s\S]*?^apicid\s*: (\d+)$/gm)
  return new Map([...found].map(([, number, id]) => [Number(number), Number(id)]))
}

/** A load that no encoder of ours would make. */
function cpuLoad(...apicIds) {
  return Buffer.from([apicIds.length, 0x14, ...apicIds, ...Array(256 - apicIds.length).fill(0)]).toString('hex')
}
