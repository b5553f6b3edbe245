// The compliance suite for machines, on a real guest under QEMU: what the machine promises, what a Vm makes of it, and a controller that
// takes the VM up again. One guest serves all tests, and its successors those that kill it.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { DeviceManager, parseBdf } from '@upcall/device-manager'
import { machineCompliance } from '@upcall/testkit/vmm'
import { createVsockDevice } from '@upcall/vhost-user'
import { prepareLaunch, QemuMachine } from '@upcall/vmm/qemu'
import { addonPath } from '@upcall/vsock'

const MIB = 2 ** 20
/** For everything: a guest that is emulated on a busy host may take its time. */
const PATIENCE_MS = 300_000
/** A PCI device is ejected five seconds after the guest was asked, at the earliest. */
const EJECT_MS = 60_000
const GUEST_CID = 5
const UPCALL_PORT = 219
/** Where the program of the default image says what the guest has. */
const REPORT_PORT = 10219

const shim = new URL('../../apps/vmm-shim/dist/', import.meta.url)

export async function run(checks) {
  const directory = mkdtempSync(join(tmpdir(), 'upcall-vmm-'))
  let running
  try {
    running = await checks.check('q35: a machine boots', () => startQ35(directory))
    if (running === undefined) return
    const features = { cpus: true, drives: false, pci: true, memory: 768 * MIB, guest: true, kill: true }
    const start = async () => ({ ...running, close: async () => {} })
    for (const { name, run } of machineCompliance({ name: 'q35', features, start }, { timeoutMs: PATIENCE_MS }))
      await checks.check(`q35: ${name}`, () => run())
  } finally {
    await running?.close()
    rmSync(directory, { recursive: true, force: true })
  }
}

async function startQ35(directory) {
  const vsockSocket = join(directory, 'vsock.sock')
  const device = await createVsockDevice({ socketPath: vsockSocket, guestCid: GUEST_CID, handshakeTimeoutMs: 30_000 })
  const launch = await prepareLaunch({
    ...{ directory, cacheDir: fileURLToPath(new URL('../../.cache/guest', import.meta.url)), microvm: false },
    ...{ agentEntry: new URL('agent.js', shim), moduleSource: new URL('upcall-mmio/', shim), vsockAddon: addonPath },
  })
  const machine = new QemuMachine({
    hardware: {
      ...{ machine: 'q35', accel: 'tcg', cpus: [0], maxCpus: 4, vsockSocket, pci: [] },
      memory: { boot: 512 * MIB, max: 1024 * MIB, plugged: 0 },
    },
    launch,
    report: () => report(device),
    ...{ ejectTimeoutMs: EJECT_MS, memoryTimeoutMs: PATIENCE_MS },
  })
  const manager = new DeviceManager({
    arch: 'x86_64',
    dial: ({ signal }) => device.connect(UPCALL_PORT, { signal }),
    timeouts: { dialMs: 30_000 },
    reconnect: { maxDelayMs: 250, budgetMs: Number.POSITIVE_INFINITY },
  })
  manager.client.on('state', ({ state }) => {
    if (state === 'ServiceConnected') machine.serves()
  })
  const close = async () => {
    await manager.close()
    await machine.stop()
    await device.close()
  }
  try {
    await machine.launched
    await manager.ready({ timeoutMs: PATIENCE_MS })
  } catch (error) {
    await close()
    throw error
  }
  return { machine, manager, kill: () => void process.kill(machine.pid, 'SIGKILL'), close }
}

async function report(device) {
  const stream = await device.connect(REPORT_PORT, { signal: AbortSignal.timeout(30_000) })
  stream.write('{"ask":"report"}\n')
  const { ok } = JSON.parse(await text(stream))
  const { cpus, memory, pci, blocks } = ok
  return {
    ...{ booted: true, paused: false, crashed: false, cpus: { online: cpus }, memory, blocks, mmio: [] },
    pci: pci.filter((address) => address.startsWith('0000:')).map((address) => parseBdf(address)),
  }
}
