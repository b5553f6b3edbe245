// vmm-shim with a real guest under QEMU, by software emulation: what its API answers, and what the guest says has come of it. With
// --docs the table goes into docs/real-guest.md.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'
import { writeTable } from '../docs.mjs'
import { knownClock } from '../known-clock.mjs'
import { demo, failingBoots, isAlive, Standin } from '../shim/boots.mjs'
import { ShimProcess } from '../shim/process.mjs'
import { Scene } from '../shim/scene.mjs'

const MIB = 2 ** 20
const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/** Plays all rows, each of which compares status, outcome and errno with what is expected. */
export async function run(checks, _image, { docs = false } = {}) {
  const table = []
  const directory = mkdtempSync(join(tmpdir(), 'upcall-shim-'))
  const cacheDir = here('../../.cache/guest')
  try {
    await failingBoots({ checks, table, directory, cacheDir })
    const disk = makeDisk(join(directory, 'disk.img'))
    await withShim('q35', ['--cpus', '1', '--max-cpus', '4'], async (q35) => {
      await resizing(q35)
      await disks(q35, disk)
      await memory(q35)
      await refusals(q35, disk)
      await pausing(q35)
      await resetting(q35, disk)
      await killing(q35)
      await restarting(q35)
    })
    const silent = new Standin(join(directory, 'bin'), { silent: 1 })
    await withShim('pc', ['--max-cpus', '2'], (pc) => pcDisk(pc, disk, silent), silent.directory)
    // What the q35 guest has measured on this host a microvm cannot, on a busy one.
    await withShim('microvm', clock(join(directory, 'q35.log')), (microvm) => drives(microvm, disk))
    await demo({ checks, directory, cacheDir })
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  console.log()
  console.table(table)
  if (docs) writeTable('shim', ['machine', 'event', 'status', 'outcome', 'errno'], table)

  async function withShim(machine, args, use, path) {
    const shim = new ShimProcess({ directory, machine, args: [...args, '--cache-dir', cacheDir], path })
    try {
      const booted = await checks.check(`${machine}: the shim boots a guest and is running`, async () => {
        await shim.start()
        return true
      })
      if (booted) await use(new Scene(checks, table, shim))
    } finally {
      await shim.stop()
    }
  }
}

const resize = (scene, desired_vcpus) => () => scene.call('PUT', '/vm/resize', { desired_vcpus })
const reconcile = (scene) => () => scene.call('POST', '/vm/reconcile')
const putDisk = (scene, id, fields) => () => scene.call('PUT', `/pci-devices/${id}`, { is_read_only: true, ...fields })

async function resizing(scene) {
  await scene.row('resize 1 → 4', resize(scene, 4), { status: 200 }, async () => assert.equal(await scene.cpusInGuest(), 4))
  await scene.row('resize 4 → 2', resize(scene, 2), { status: 200 }, async () => {
    assert.equal(await scene.cpusInGuest(), 2)
    assert.deepEqual((await scene.view()).believed.spares.cpus, [2, 3])
  })
  await scene.row('resize 2 → 3, from a spare', resize(scene, 3), { status: 200 }, async () =>
    assert.equal(await scene.cpusInGuest(), 3),
  )
  await scene.row('resize 3 → 1', resize(scene, 1), { status: 200 }, async () => assert.equal(await scene.cpusInGuest(), 1))
  await scene.row('resize 1 → 4 again', resize(scene, 4), { status: 200 }, async () => assert.equal(await scene.cpusInGuest(), 4))
  await scene.row('resize 4 → 2 again', resize(scene, 2), { status: 200 }, async () => assert.equal(await scene.cpusInGuest(), 2))
  await scene.row('resize over --max-cpus', resize(scene, 5), { status: 400, outcome: 'not-sent' })
}

async function disks(scene, { path_on_host, sha256 }) {
  await scene.row('a PCI disk', putDisk(scene, 'data', { path_on_host }), { status: 200 }, async ({ bdf }) => {
    assert.equal(bdf, '01:00.0')
    assert.equal(await checksum(scene, 'data'), sha256)
  })
  await scene.row('the same id again', putDisk(scene, 'data', { path_on_host }), { status: 409, outcome: 'not-sent' })
  await scene.row('another at the same address', putDisk(scene, 'other', { path_on_host, bdf: '01:00.0' }), {
    ...{ status: 409, outcome: 'not-sent' },
  })
  await scene.row('a disk at an address that is not a port', putDisk(scene, 'other', { path_on_host, bdf: '00:05.0' }), {
    ...{ status: 400, outcome: 'not-sent' },
  })
  await scene.row('a disk whose file is not there', putDisk(scene, 'other', { path_on_host: `${path_on_host}.gone` }), {
    ...{ status: 400, outcome: 'not-sent' },
  })
  await scene.row(
    'the disk is removed',
    () => scene.call('DELETE', '/pci-devices/data'),
    { status: 204 },
    async () => {
      const { believed, guest } = await scene.view()
      assert.deepEqual([guest.pci, believed.pci, believed.spares.pci], [[], [], []])
      assert.ok(await isGone(scene, 'data'))
    },
  )
  await scene.row('the same again', () => scene.call('DELETE', '/pci-devices/data'), { status: 404, outcome: 'not-sent' })
  await scene.row('a virtio-mmio drive, where there are no slots', () => scene.call('PUT', '/drives/data', { path_on_host }), {
    ...{ status: 400, outcome: 'not-sent' },
  })
}

async function memory(scene) {
  const before = await scene.memoryInGuest()
  const to = (mebibytes) => () => scene.call('PUT', '/vm/resize', { desired_ram: mebibytes * MIB })
  await scene.row('memory 512 → 768 MiB', to(768), { status: 204 }, async () => {
    assert.ok((await scene.memoryInGuest()) - before > 250 * MIB)
    assert.equal((await scene.view()).believed.memory, 768 * MIB)
  })
  await scene.row('memory 768 → 640 MiB', to(640), { status: 204 }, async () =>
    assert.ok((await scene.memoryInGuest()) - before < 135 * MIB),
  )
  await scene.row('memory over --max-memory', to(4096), { status: 400, outcome: 'not-sent' })
}

/** What the guest itself refuses: another client gets the errno, and the user of the API gets 502. A state that is so already is not refused. */
async function refusals(scene, { path_on_host }) {
  const { shim } = scene
  const other = new DeviceManager({ arch: 'x86_64', dial: ({ signal }) => connect(shim.target, { signal, timeoutMs: 10_000 }) })
  const refused = (event, ask, errno) =>
    scene.row(event, () => asReply(ask(other)), { status: null, outcome: 'guest-error', errno })
  try {
    await refused('upcall: a vCPU that is not plugged in', (guest) => guest.addCpus({ apicIds: [9] }), -22)
    await refused('upcall: a vCPU that runs', (guest) => guest.addCpus({ apicIds: [1] }), -22)
    await refused('upcall: removal of a vCPU that is not there', (guest) => guest.removeCpus({ apicIds: [9] }), -22)
    await refused('upcall: removal of a vCPU that is offline', (guest) => guest.removeCpus({ apicIds: [2] }), 1)
    await refused('upcall: a PCI function that is not plugged in', (guest) => guest.addPci('02:00.0'), -19)
    await refused('upcall: removal of a PCI function that is not there', (guest) => guest.removePci('02:00.0'), -19)
    const window = { base: 0xd000_0000n, size: 0x1000n, irq: 5 }
    await refused('upcall: a window, without the kernel module', (guest) => guest.addMmio(window), -1)
    await refused('upcall: memory', (guest) => guest.request({ type: 'RAW', messageType: 3, load: new Uint8Array(0) }), -1)

    await scene.row('another client takes vCPU 1 away', () => asReply(other.removeCpus({ apicIds: [1] })), { status: null })
    await scene.row('reconcile tells the difference', reconcile(scene), { status: 200 }, async ({ differences }) =>
      assert.deepEqual(differences, [{ kind: 'cpu', id: '1', only: 'vmm' }]),
    )
    await scene.row('resize 2 → 1: the guest has it offline already', resize(scene, 1), { status: 200 }, async () =>
      assert.equal(await scene.cpusInGuest(), 1),
    )
    await scene.row('resize 1 → 2', resize(scene, 2), { status: 200 }, async () => assert.equal(await scene.cpusInGuest(), 2))
    const cpu1 = '/sys/devices/system/cpu/cpu1/online'
    await scene.row(
      'resize 2 → 1: the guest refuses',
      () => withReadOnly(scene, cpu1, resize(scene, 1)),
      { status: 502, outcome: 'guest-error', errno: -30 },
      async () => assert.equal(await scene.cpusInGuest(), 2),
    )

    await scene.row('a PCI disk', putDisk(scene, 'kept', { path_on_host }), { status: 200 })
    await scene.row('another client takes it away', () => asReply(other.removePci('01:00.0')), { status: null })
    const remove = () => scene.call('DELETE', '/pci-devices/kept')
    await scene.row('the disk is removed: the guest has let go of it already', remove, { status: 204 })
    await scene.row('the disk again', putDisk(scene, 'kept', { path_on_host }), { status: 200 })
    const function0 = '/sys/bus/pci/devices/0000:01:00.0/remove'
    await scene.row('removal of the disk: the guest refuses', () => withReadOnly(scene, function0, remove), {
      ...{ status: 502, outcome: 'guest-error', errno: -30 },
    })
    await scene.row('reconcile finds no difference', reconcile(scene), { status: 200 }, async ({ differences }) =>
      assert.deepEqual(differences, []),
    )
  } finally {
    await other.close()
  }
}

async function pausing(scene) {
  await scene.shim.monitor((qmp) => qmp.execute('stop'))
  await scene.row('resize while the VM is stopped', resize(scene, 3), { status: 503, outcome: 'not-sent' }, async () => {
    const { state, guest } = await scene.view()
    assert.deepEqual([state, guest], ['paused', null])
  })
  await scene.shim.monitor((qmp) => qmp.execute('cont'))
  await scene.row('resize once it goes on', resize(scene, 3), { status: 200 }, async () =>
    assert.equal(await scene.cpusInGuest(), 3),
  )
}

async function resetting(scene, { sha256 }) {
  const inTheMiddle = async () => {
    await silence(scene)
    const reply = await underWay(scene, 3)
    await scene.shim.monitor((qmp) => qmp.execute('system_reset'))
    return reply()
  }
  await scene.row('resize 3 → 2', resize(scene, 2), { status: 200 })
  await scene.row(
    'the guest is reset in the middle of ADD_CPU',
    inTheMiddle,
    { status: 504, outcome: 'indeterminate' },
    async () => assert.deepEqual((await scene.view()).believed.cpus, { present: [0, 1], unknown: [2], max: 4 }),
  )
  await scene.row('resize while vCPU 2 is unknown', resize(scene, 3), { status: 409, outcome: 'not-sent' })
  await scene.shim.running()
  await scene.row('reconcile with the fresh guest', reconcile(scene), { status: 200 }, async (body) => {
    // It starts all that are plugged in, the spare vCPU 3 too, and is told to leave that alone.
    const settled = [
      { kind: 'cpu', id: '2', now: 'present' },
      { kind: 'cpu', id: '3', now: 'absent' },
    ]
    assert.deepEqual(body, { restarted: false, settled, differences: [] })
    assert.equal(await scene.cpusInGuest(), 3)
    assert.equal(await checksum(scene, 'kept'), sha256)
  })
}

async function killing(scene) {
  const inTheMiddle = async () => {
    await silence(scene)
    const reply = await underWay(scene, 4)
    process.kill(scene.shim.qemuPid, 'SIGKILL')
    return reply()
  }
  await scene.row('QEMU is killed in the middle of ADD_CPU', inTheMiddle, { status: 504, outcome: 'indeterminate' }, async () => {
    const { state, guest, believed } = await scene.view()
    assert.deepEqual([state, guest, believed.cpus.unknown], ['dead', null, [3]])
  })
  await scene.row('resize while there is no guest', resize(scene, 4), { status: 409, outcome: 'not-sent' })
  await scene.row('reconcile boots another guest', reconcile(scene), { status: 200 }, async (body) => {
    assert.deepEqual(body, { restarted: true, settled: [{ kind: 'cpu', id: '3', now: 'absent' }], differences: [] })
    assert.equal(await scene.cpusInGuest(), 3)
    assert.deepEqual((await scene.view()).guest.pci, ['01:00.0'])
  })
  await scene.row('resize 3 → 4 with the fresh guest', resize(scene, 4), { status: 200 }, async () =>
    assert.equal(await scene.cpusInGuest(), 4),
  )
}

async function restarting(scene) {
  const { shim, checks } = scene
  await checks.check('q35: the shim is killed: QEMU goes with it, and another shim takes over its paths', async () => {
    const { qemuPid } = shim
    await shim.kill()
    await shim.until(async () => !isAlive(qemuPid))
    await shim.start()
    assert.equal(await scene.cpusInGuest(), 1)
  })
}

async function pcDisk(scene, { path_on_host, sha256 }, silent) {
  await scene.told('a boot stays silent for 10 s: it is started again', 'ok', () => {
    const again = scene.shim.log.filter((line) => line.includes('the boot went silent and is started again'))
    assert.deepEqual([again.length, silent.pids.length], [1, 2])
    assert.match(again[0], /"attempt":1,"ms":1\d{4}/)
  })
  await scene.row('resize 1 → 2', resize(scene, 2), { status: 200 }, async () => assert.equal(await scene.cpusInGuest(), 2))
  await scene.row('a PCI disk at 00:15.0', putDisk(scene, 'data', { path_on_host, bdf: '00:15.0' }), { status: 200 }, async () =>
    assert.equal(await checksum(scene, 'data'), sha256),
  )
  await scene.row("a disk at the machine's own address", putDisk(scene, 'other', { path_on_host, bdf: '00:01.0' }), {
    ...{ status: 409, outcome: 'not-sent' },
  })
  await scene.row(
    'the disk is removed',
    () => scene.call('DELETE', '/pci-devices/data'),
    { status: 204 },
    async () => assert.ok(await isGone(scene, 'data')),
  )
}

async function drives(scene, { path_on_host, size, sha256 }) {
  const put = (id, fields) => () => scene.call('PUT', `/drives/${id}`, { path_on_host, ...fields })
  const there = async () => {
    const disk = (await scene.view()).guest.blocks.find((each) => each.size === size)
    return disk && (await scene.sh(`sha256sum /dev/${disk.name}`)).split(' ')[0]
  }
  await scene.row('a virtio-mmio drive', put('data'), { status: 200 }, async (body) => {
    assert.deepEqual(body, { id: 'data', base: '0xfeb00000', size: '0x200', irq: 5 })
    assert.equal(await there(), sha256)
  })
  await scene.row('a read-only drive', put('other', { is_read_only: true }), { status: 400, outcome: 'not-sent' })
  await scene.row(
    'the drive is removed',
    () => scene.call('DELETE', '/drives/data'),
    { status: 204 },
    async () => {
      assert.deepEqual((await scene.view()).guest.mmio, [])
      assert.equal(await there(), undefined)
    },
  )
  await scene.row('a drive in the same slot', put('again'), { status: 200 }, async () => assert.equal(await there(), sha256))
  await scene.row('a PCI disk, where there is no PCI', putDisk(scene, 'data', { path_on_host }), {
    ...{ status: 400, outcome: 'not-sent' },
  })
  await scene.row('more memory', () => scene.call('PUT', '/vm/resize', { desired_ram: 768 * MIB }), {
    ...{ status: 400, outcome: 'not-sent' },
  })
}

/** What is asked of the guest while it cannot write to one of its kernel's files: it refuses with EROFS. */
async function withReadOnly(scene, file, ask) {
  // busybox's mount finds no mount again by a path with a symbolic link in it.
  const path = await scene.sh(`readlink -f ${file}`)
  assert.equal(await scene.sh(`mount --bind ${path} ${path} && mount -o remount,ro,bind ${path} && echo done`), 'done')
  try {
    return await ask()
  } finally {
    await scene.sh(`umount ${path}`)
  }
}

/** The guest's program stops in its tracks, so that it reads no request. It cannot answer for itself any more: the console tells. */
async function silence({ shim }) {
  const stop =
    'p=$(pidof node); kill -STOP $p; until grep -q "^State:.T" /proc/$p/status; do sleep 0.1; done; echo node is stopped >/dev/console'
  const printed = shim.prints('node is stopped')
  const answer = shim.execute(['sh', '-c', stop]).catch(() => {})
  await printed
  // It comes when the guest is gone, as an error.
  void answer
}

/** A resize whose ADD_CPU has been written and is not answered; the function returned waits for what the API says. */
async function underWay(scene, cpus) {
  const written = scene.shim.logs(/bytes: Uint8Array\(1024\)/)
  const reply = resize(scene, cpus)()
  reply.catch(() => {})
  await written
  return () => reply
}

/** Of a disk that is there, or is coming: an answered ADD_PCI says that the function is there, and its driver takes another moment. */
async function checksum(scene, serial) {
  let disk
  await scene.shim.until(async () => {
    disk = (await scene.view()).guest.blocks.find((each) => each.serial === serial)
    return disk !== undefined
  })
  return (await scene.sh(`sha256sum /dev/${disk.name}`)).split(' ')[0]
}

async function isGone(scene, serial) {
  return !(await scene.view()).guest.blocks.some((each) => each.serial === serial)
}

/** What a client of the guest is told, in the shape of the API's answers. */
async function asReply(asked) {
  try {
    await asked
    return { status: null }
  } catch (error) {
    const { outcome, errno = null, message } = error
    return { status: null, body: { fault_message: message, outcome, errno } }
  }
}

function makeDisk(path_on_host) {
  const bytes = randomBytes(3 * MIB)
  writeFileSync(path_on_host, bytes)
  return { path_on_host, size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }
}

function clock(log) {
  const known = knownClock(readFileSync(log, 'utf8'))
  return known === '' ? [] : ['--append', known]
}
