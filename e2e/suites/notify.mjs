// A guest tells over vsock that it has booted. Its first process is the systemd of Debian 13, and the device is ours.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { createVsockDevice } from '@upcall/vhost-user'
import { connect, NotifyReceiver, notifyCredential } from '@upcall/vsock'
import { bootSystemd, PORTS, systemdDisk, UNIT } from '../notify/guest.mjs'
import { UPCALL } from '../upcall.mjs'

const GUEST_CID = 42
const READY = { timeoutMs: 60_000 }

export async function run(checks, image) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-notify-'))
  try {
    const made = await checks.check('the disk of a systemd guest is made of packages', () => systemdDisk(image, folder))
    if (made === undefined) return
    console.log(`# systemd ${made.version}`)
    const scene = { image, folder, disk: made.disk }
    await checks.check('systemd says READY=1 and, when it goes down, EXIT_STATUS=; systemd-notify is heard, too', () =>
      told(scene),
    )
    await checks.check('"upcall vsock notify" ends with 0 when systemd says so over hybrid vsock', () => command(scene))
    await checks.check('a guest in emergency mode says READY=1, over SOCK_SEQPACKET, and is not taken for ready', () =>
      emergency(scene),
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A guest whose vsock is a device of ours. */
async function withGuest({ image, folder, disk }, { onConnection, ...boot }, body) {
  const socketPath = join(folder, 'vhost')
  const device = await createVsockDevice({ socketPath, guestCid: GUEST_CID, onConnection })
  try {
    const { guest, close } = await bootSystemd({ image, disk, socketPath, ...boot })
    try {
      await body(guest)
    } finally {
      await close()
    }
  } finally {
    await device.close()
  }
}

/** Gives each receiver what the guest sends to its port. */
const routeTo = (receivers) => (port, incoming) => receivers[port]?.accept(incoming)

const statusOf = (receiver) => receiver.guests.get(GUEST_CID)?.fields.STATUS

async function told(scene) {
  const receivers = Object.fromEntries(Object.values(PORTS).map((port) => [port, new NotifyReceiver({ privileged: true })]))
  const systemd = receivers[PORTS.systemd]
  const messages = []
  const refused = []
  systemd.on('message', (message) => messages.push(message))
  receivers[PORTS.unprivileged].on('refused', ({ from, reason }) => refused.push([from.cid, reason, from.port >= 1024]))
  const { smbios } = notifyCredential({ port: PORTS.systemd })
  await withGuest(scene, { onConnection: routeTo(receivers), args: smbios }, async (guest) => {
    const boot = await systemd.ready({ ...READY, unit: UNIT })
    assert.equal(boot.cid, GUEST_CID)
    assert.equal(boot.fields.X_SYSTEMD_HOSTNAME, 'guest')
    assert.match(boot.fields.X_SYSTEMD_MACHINE_ID, /^[0-9a-f]{32}$/)
    for (const unit of ['basic.target', UNIT]) assert.ok(boot.units.includes(unit), `${unit} is not among ${boot.units}`)
    await guest.exited
    await assert.rejects(systemd.ready(), { code: 'GUEST_STOPPED', what: 'it has gone down (EXIT_STATUS=0)' })
    assert.equal(systemd.guests.get(GUEST_CID).fields.X_SYSTEMD_SHUTDOWN, 'poweroff')
    // It binds a port that only root can have.
    assert.ok(messages.every(({ from }) => from.cid === GUEST_CID && from.port < 1024))
    assert.deepEqual(refused[0], [GUEST_CID, 'port', true])
    assert.equal(receivers[PORTS.unprivileged].guests.size, 0)
    assert.equal(statusOf(receivers[PORTS.stream]), 'stream')
    // A plain "vsock:" is SOCK_SEQPACKET, too.
    assert.equal(statusOf(receivers[PORTS.seqpacket]), 'seqpacket')
    assert.equal(statusOf(receivers[PORTS.any]), 'any')
  })
}

/** The command as a program of its own; the credential on the kernel's command line, as for a VMM without SMBIOS. */
async function command(scene) {
  const path = join(scene.folder, 'vsock')
  const argv = [
    '--json',
    '--timeout',
    '60s',
    'vsock',
    'notify',
    `hvsock://${path}:${PORTS.systemd}`,
    '--cid',
    String(GUEST_CID),
    '--unit',
    UNIT,
  ]
  const program = spawn(process.execPath, [UPCALL, ...argv], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(program, 'close')
  const output = text(program.stdout)
  const { kernel } = notifyCredential({ port: PORTS.systemd })
  const onConnection = (port, { signal }) => connect({ transport: 'unix', path: `${path}_${port}` }, { signal })
  try {
    await withGuest(scene, { onConnection, append: `${kernel} talk=no` }, async () => assert.deepEqual(await ended, [0, null]))
  } finally {
    program.kill()
  }
  const lines = (await output)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const { op, outcome, cid, fields, units } = lines.at(-1)
  assert.deepEqual({ op, outcome, cid }, { op: 'vsock.notify', outcome: 'ok', cid: GUEST_CID })
  assert.equal(fields.READY, '1')
  assert.ok(units.includes(UNIT))
  assert.ok(lines.filter(({ event }) => event === 'notify').length > 5)
}

async function emergency(scene) {
  const systemd = new NotifyReceiver()
  const { kernel } = notifyCredential({ port: PORTS.systemd, type: 'seqpacket' })
  const boot = { onConnection: routeTo({ [PORTS.systemd]: systemd }), append: `${kernel} systemd.unit=emergency.target` }
  await withGuest(scene, boot, async () => {
    await assert.rejects(systemd.ready(READY), { code: 'GUEST_FAILED', what: 'its boot ended in emergency.target' })
    assert.equal((await systemd.ready({ ...READY, unit: 'emergency.target' })).fields.READY, '1')
  })
}
