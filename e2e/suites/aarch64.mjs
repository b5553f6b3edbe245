// An aarch64 guest: Debian's stock kernel on QEMU's `virt`, software-emulated. The same guest programs as on x86_64, in three guests one after
// the other: AF_VSOCK over loopback, the vhost-user device, the guest side. With --docs the table goes into docs/real-guest.md.
import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hideWindows } from '../device-tree.mjs'
import { writeTable } from '../docs.mjs'
import { DrivenGuest } from '../driven-guest.mjs'
import { consoleLog, printConsole, runGuestTests } from '../guest-tests.mjs'
import { upcallMmioModule } from '../kernel-module.mjs'
import { fillPayload } from '../payload.mjs'
import { diskIs, EEXIST, EINVAL, ENODEV, EPERM, makeDisk, OK, Requests, totalMemory, UNCHANGED } from '../requests.mjs'
import * as data from '../vhost-user/data.mjs'
import { exercise } from '../vhost-user/exercise.mjs'
import * as life from '../vhost-user/life.mjs'
import { descriptors, MIB, Scene, settled } from '../vhost-user/scene.mjs'

const vsockPackages = ['@upcall/vsock', '@upcall/testkit', '@upcall/device-manager', 'undici', 'upcall']
const linuxPackages = ['upcall', '@upcall/device-manager', '@upcall/vsock']
const VCPUS = 4
const MEMORY = '256M'
const MORE_MEMORY = 256 * MIB
/** virtio-mmio windows of a `virt`, each with a GIC SPI of its own: a disk, nothing, and a device of the device tree. */
const WITH_DISK = { base: '0xa003e00', size: '0x200', irq: 47 }
const EMPTY = { base: '0xa003c00', size: '0x200', irq: 46 }
const OF_THE_TREE = { base: '0xa003a00', size: '0x200', irq: 45 }

/** `small`: without the CLI, for all suites together. */
export async function run(checks, image, { docs = false, small = false } = {}) {
  const payload = { programs: ['guest/vsock'], packages: vsockPackages, prebuilt: true }
  const args = small ? ['--small'] : []
  // With a second emulated CPU, code that V8 has changed on one is now and then stale on the other (QEMU 7.2): Node ends with a failed check
  // of its deoptimizer.
  const boot = { cpus: 1 }
  await runGuestTests(checks, {
    name: 'aarch64-vsock',
    image,
    payload,
    program: 'without-load.mjs',
    args,
    timeoutMs: 400_000,
    boot,
  })
  await vhostUser(checks, image)
  await linuxGuest(checks, image, docs)
}

/** Guest memory is at 1 GiB there, not at 0. */
async function vhostUser(checks, image) {
  const log = consoleLog('aarch64-vhost-user')
  const scene = new Scene(image, { log })
  const table = []
  const play = (name, what, body) => exercise(checks, table, { name, what, body })
  try {
    await scene.startServices()
    await scene.startDevice()
    const idle = descriptors()
    if (!(await play('boot', 'virt, stock Debian kernel, one vCPU, tcg', () => scene.boot()))) return printConsole(log)
    await play('32 MiB each way', '4 streams, begun by either end, both ways at once', () =>
      data.everything(scene, { bytes: 32 * MIB, streams: 4 }),
    )
    await play('connects and closes', '200, half of them from either end', () => data.manyConnections(scene, 200))
    await play('half-close', 'either end first, from either end', () => data.halfClose(scene))
    await play('foreign clients', "CONNECT, to the guest's socat", () => data.foreignClients(scene))
    await play('stop and cont', 'twice under traffic', () => life.stopAndCont(scene, 2, 16 * MIB))
    await play('guest reset', 'system_reset under traffic', () => life.guestReset(scene))
    await play('QEMU killed', 'SIGKILL under traffic', () => life.qemuKilled(scene))
    await play('descriptors', 'of this process, the guest gone', async () => {
      await settled(idle)
      return `${idle} before and after`
    })
    if (table.some(({ outcome }) => outcome === 'FAILED')) printConsole(log)
  } finally {
    await scene.close()
    console.table(table)
  }
}

async function linuxGuest(checks, image, docs) {
  const log = consoleLog('aarch64-linux-guest')
  const requests = new Requests(checks)
  const folder = mkdtempSync(join(tmpdir(), 'upcall-e2e-'))
  let guest
  try {
    const payloadDir = join(folder, 'payload')
    fillPayload(payloadDir, { programs: ['guest/linux-guest'], packages: linuxPackages, prebuilt: true })
    const module = await checks.check('the kernel module is built, or found in the cache', () => upcallMmioModule(image))
    if (module === undefined) return
    copyFileSync(module, join(payloadDir, 'upcall_mmio.ko'))
    const disks = { hot: makeDisk(join(folder, 'hot')), spare: makeDisk(join(folder, 'spare')) }
    const tree = hideWindows({
      file: join(folder, 'tree'),
      hidden: [WITH_DISK, EMPTY].map(({ base }) => Number(base)),
      machine: { cpus: VCPUS, memory: MEMORY },
    })
    guest = await checks.check('virt: a stock kernel boots, upcall serve listens, its client is ready', () =>
      DrivenGuest.start({ image, payloadDir, log, ...virtOptions(disks, tree) }),
    )
    if (guest) {
      await cpus(checks, requests, guest)
      await pci(checks, requests, guest, disks.hot)
      await windows(checks, requests, guest, disks.spare)
      await memory(checks, guest)
      await unserved(requests, guest)
      await checks.check('virt: the kernel has nothing to complain about', () =>
        assert.doesNotMatch(guest.console, /BUG:|WARNING:|Oops|Call trace|Internal error/),
      )
    }
  } finally {
    await guest?.close()
    rmSync(folder, { recursive: true, force: true })
  }
  if (guest === undefined || requests.failed) printConsole(log)
  console.table(requests.table)
  if (docs) writeTable('aarch64', ['machine', 'event', 'request', 'answer'], requests.table)
}

/** All vCPUs are there from the start; the kernel is told to begin with one. */
function virtOptions(disks, tree) {
  const blockdevs = Object.entries(disks).flatMap(([name, { path: filename }]) => [
    '-blockdev',
    JSON.stringify({ driver: 'raw', 'node-name': name, 'read-only': true, file: { driver: 'file', filename } }),
  ])
  return {
    ...{ machine: 'virt', memory: MEMORY, maxMemory: { slots: 1, size: '1G' }, cpus: VCPUS, append: 'maxcpus=1' },
    modules: ['vsock_loopback', 'virtio_mem'],
    devices: [
      'pcie-root-port,id=port1,chassis=1,slot=1',
      'virtio-blk-device,bus=virtio-mmio-bus.31,drive=spare,serial=spare',
      'virtio-mem-pci,id=more,memdev=more,requested-size=0',
    ],
    args: ['-object', `memory-backend-ram,id=more,size=${MORE_MEMORY}`, ...blockdevs, ...tree],
  }
}

/** Requests are a count here; the guest chooses the CPUs. */
async function cpus(checks, requests, guest) {
  const add = (event, count, expected, left) => requests.row(guest, event, { op: 'cpu.add', count }, expected, left)
  const remove = (event, count, expected, left) => requests.row(guest, event, { op: 'cpu.remove', count }, expected, left)
  const online = (list) =>
    checks.check(`virt: CPUs ${list} are online`, async () =>
      assert.equal((await guest.read('/sys/devices/system/cpu/online')).text, list),
    )
  const byHand = (number, state) => guest.ask('write', { path: `/sys/devices/system/cpu/cpu${number}/online`, text: state })

  await online('0')
  await add('one CPU more than there are', VCPUS, EINVAL)
  await add('all other CPUs', VCPUS - 1, OK, VCPUS)
  await online('0-3')
  await add('a CPU, when all run', 1, EINVAL)
  await remove('all CPUs', VCPUS, EINVAL)
  await online('0-3')
  await remove('two CPUs', 2, OK, 2)
  await online('0-1')
  await remove('all CPUs that run', 2, EINVAL)
  await requests.row(guest, 'no CPU at all', { op: 'request', type: 1, load: '00' }, OK, 2)
  await requests.row(guest, 'a request of x86_64: its count is read, its ids are not', x86Request(7), OK, 3)
  await online('0-2')
  await byHand(1, '0')
  await add('a CPU, when a hole makes the count lead to a CPU that runs', 1, UNCHANGED)
  await remove('a CPU, when a hole makes the count lead to a CPU that does not', 1, UNCHANGED)
  await online('0,2')
  await byHand(1, '1')
  await remove('down to the last CPU', 2, OK, 1)
  for (const turn of [1, 2, 3]) {
    await add(`three CPUs come, turn ${turn}`, 3, OK, 4)
    await online('0-3')
    await remove(`three CPUs go, turn ${turn}`, 3, OK, 1)
    await online('0')
  }
}

/** Without ACPI the root port's own hotplug is at work: it powers the slot. */
async function pci(checks, requests, guest, disk) {
  const add = (event, bdf, expected) => requests.row(guest, event, { op: 'pci.add', bdf }, expected)
  const remove = (event, bdf, expected) => requests.row(guest, event, { op: 'pci.remove', bdf }, expected)
  const there = (expected) =>
    checks.check(`virt: the disk behind 01:00.0 is ${expected ? 'there, and reads as it should' : 'gone'}`, () =>
      diskIs(guest, 'hot', expected ? disk : {}),
    )
  const plug = () => guest.qmp('device_add', { driver: 'virtio-blk-pci', id: 'hot', bus: 'port1', drive: 'hot', serial: 'hot' })

  await add('a function that is not plugged in', '01:00.0', ENODEV)
  await add('a function of a bus that does not exist', '7f:00.0', ENODEV)
  await remove('a function that is not there', '01:00.0', ENODEV)
  await plug()
  await add('a function that was plugged in this moment', '01:00.0', OK)
  await there(true)
  await add('a function that is there already', '01:00.0', OK)
  await remove('a function', '01:00.0', OK)
  await there(false)
  await remove('the same again', '01:00.0', ENODEV)
  await add('a function that was removed and is still plugged in', '01:00.0', OK)
  await there(true)
  await remove('a function, before it is unplugged', '01:00.0', OK)
  await checks.check('virt: device_del ends in DEVICE_DELETED', () => guest.unplug('hot'))
  await add('a function that was unplugged', '01:00.0', ENODEV)
  await plug()
  await add('another in its place', '01:00.0', OK)
  await there(true)
}

/** Irqs are GIC SPI numbers. Addresses that nothing answers at are left alone: a read there is an abort, not all ones. */
async function windows(checks, requests, guest, disk) {
  const add = (event, window, expected) => requests.row(guest, event, { op: 'mmio.add', ...window }, expected)
  const remove = (event, window, expected) => requests.row(guest, event, { op: 'mmio.remove', ...window }, expected)
  const there = (expected) =>
    checks.check(`virt: the disk in the window is ${expected ? 'there, and reads as it should' : 'gone'}`, () =>
      diskIs(guest, 'spare', expected ? disk : {}),
    )

  await add('a window, without the kernel module', WITH_DISK, EPERM)
  await guest.ask('run', { argv: ['insmod', 'upcall_mmio.ko'] })
  await there(false)
  await add('a window with a disk in it', WITH_DISK, OK)
  await there(true)
  await add('the same again', WITH_DISK, EEXIST)
  await add('a window that overlaps', { ...EMPTY, size: '0x400' }, EEXIST)
  await add('a window on its irq', { ...EMPTY, irq: WITH_DISK.irq }, EEXIST)
  await add('a window that the device tree told of', { ...OF_THE_TREE, irq: EMPTY.irq }, EEXIST)
  await add('a window on the irq of a device of the device tree', { ...EMPTY, irq: OF_THE_TREE.irq }, EEXIST)
  await add('a window on an irq that no GIC has', { ...EMPTY, irq: 999 }, EINVAL)
  await add('a window with nothing in it', EMPTY, OK)
  await remove('a window by another irq', { ...EMPTY, irq: OF_THE_TREE.irq }, ENODEV)
  await remove('a window with nothing in it', EMPTY, OK)
  await remove('a window with a disk in it', WITH_DISK, OK)
  await there(false)
  await remove('the same again', WITH_DISK, ENODEV)
  await add('a window with a disk in it, once more', WITH_DISK, OK)
  await there(true)
  await checks.check('virt: the module goes, and its window with it', () => guest.ask('run', { argv: ['rmmod', 'upcall_mmio'] }))
  await there(false)
}

/** There is no ACPI to plug a DIMM with; virtio-mem needs none. */
async function memory(checks, guest) {
  await checks.check('virt: 256 MiB that virtio-mem offers come online', async () => {
    const before = await totalMemory(guest)
    await guest.qmp('qom-set', { path: '/machine/peripheral/more', property: 'requested-size', value: MORE_MEMORY })
    const { onlined, refused, blockSize } = await guest.ask('memory', { bytes: MORE_MEMORY })
    assert.deepEqual([onlined.length * blockSize, refused], [MORE_MEMORY, []])
    assert.ok((await totalMemory(guest)) - before > MORE_MEMORY - 8 * MIB)
  })
}

async function unserved(requests, guest) {
  await requests.row(guest, 'memory, which the protocol declares and no kernel serves', { op: 'request', type: 3 }, EPERM)
  await requests.row(guest, 'a type that there is not', { op: 'request', type: 99 }, EPERM)
}

/** Two bytes, count and APIC version, then the ids. */
function x86Request(...apicIds) {
  return { op: 'request', type: 1, load: Buffer.from([apicIds.length, 0x14, ...apicIds]).toString('hex') }
}
