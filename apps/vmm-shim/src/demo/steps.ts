import { setTimeout as delay } from 'node:timers/promises'
import type { ReconnectEvent, StateEvent } from '@upcall/client'
import { DeviceManager, isGuestError } from '@upcall/device-manager'
import type { Reconciled } from '@upcall/vmm'
import type { SimulatedMachine } from '@upcall/vmm/simulated'
import { connect, formatAddress } from '@upcall/vsock'
import type { Arch } from '@upcall/wire'
import type { WindowBody } from '../api/view.js'
import type { Shim } from '../shim.js'
import { isFault } from './api-client.js'
import { json, type Stage, type Step } from './stage.js'

/** What each step plays with. */
interface Scene {
  readonly stage: Stage
  readonly shim: Shim<SimulatedMachine>
}

const DISK = { path_on_host: '/srv/images/data.img', is_read_only: false }

/** The steps in order. Each begins where the one before it ended. */
export const STEPS: readonly Step<Scene>[] = [
  { name: 'connect to a guest that still boots', run: connectWhileBooting },
  { name: 'resize 1 → 4 vCPUs', run: (scene) => resize(scene, 4, [0, 1, 2, 3]) },
  { name: 'resize 4 → 2 vCPUs', run: (scene) => resize(scene, 2, [0, 1]) },
  { name: 'add a disk', run: addDisk },
  { name: 'remove the disk', run: removeDisk },
  { name: 'add a PCI device', run: addPciDevice },
  { name: 'a refusal, rolled back', run: refusal },
  { name: 'the guest dies in the middle of a request', run: dieInTheMiddle },
  { name: 'reconcile with a fresh guest', run: reconcile },
]

async function connectWhileBooting({ stage, shim }: Scene): Promise<string> {
  const { client } = shim.manager
  let attempts = 0
  let shown: ReconnectEvent['reason'] | undefined
  const onReconnect = ({ attempt, delayMs, reason }: ReconnectEvent) => {
    attempts = attempt
    if (reason === shown) return
    shown = reason
    const what =
      reason === 'dial-failed' ? 'there is no listener on port 219 yet' : 'accepted and closed: the service is not there yet'
    stage.note('upcall', `attempt ${attempt}: ${what}; next in ${Math.round(delayMs)} ms`)
  }
  client.on('reconnect', onReconnect)
  try {
    await stage.say('vmm', `guest process ${shim.machine.pid} boots a 6.1 kernel with 1 of 8 vCPUs`)
    await stage.call('PUT', '/vm/resize', { desired_vcpus: 4 }, 503)
    await stage.within('boot', shim.machine.booted())
    await stage.within('connect', client.ready())
  } finally {
    client.off('reconnect', onReconnect)
  }
  const view = await stage.look()
  stage.expect('state', view.state, 'running')
  stage.expect("the guest's vCPUs", view.guest?.cpus.online, [0])
  if (attempts === 0) stage.expect('attempts before the guest was ready', attempts, 'at least 1')
  await stage.say('upcall', `ready: the guest's device manager has greeted, after ${attempts} reconnects`, 'green')
  return `503 at first; ready after ${attempts} reconnects`
}

async function resize({ stage }: Scene, target: number, ids: number[]): Promise<string> {
  await stage.call('PUT', '/vm/resize', { desired_vcpus: target }, 200)
  const { believed, guest } = await stage.look()
  stage.expect('vCPUs, as the VMM believes', believed.cpus, { present: ids, unknown: [], max: 8 })
  stage.expect("the guest's vCPUs", guest?.cpus.online, ids)
  await stage.say('guest', `vCPUs online: ${ids.join(' ')}`, 'green')
  return `vCPUs ${ids.join(' ')} online in the guest`
}

async function addDisk({ stage }: Scene): Promise<string> {
  const { base, size, irq } = (await stage.call('PUT', '/drives/vdb', DISK, 200)) as WindowBody
  const { guest } = await stage.look()
  stage.expect("the guest's windows", guest?.mmio, [{ base, size, irq }])
  await stage.say('guest', `virtio-mmio at ${base}, ${size} bytes, irq ${irq}`, 'green')
  return `window ${base}, irq ${irq}`
}

async function removeDisk({ stage }: Scene): Promise<string> {
  await stage.call('DELETE', '/drives/vdb', undefined, 204)
  const { believed, guest } = await stage.look()
  stage.expect("the guest's windows", guest?.mmio, [])
  stage.expect('windows, as the VMM believes', believed.mmio, [])
  await stage.say('guest', 'has removed it; only then the VMM tore its device down', 'green')
  return 'the guest first; the window is free again'
}

async function addPciDevice({ stage }: Scene): Promise<string> {
  await stage.call('PUT', '/pci-devices/net1', { bdf: '00:05.0' }, 200)
  const { guest } = await stage.look()
  stage.expect("the guest's PCI functions", guest?.pci, ['00:05.0'])
  await stage.say('guest', 'found 00:05.0 on its bus', 'green')
  return '00:05.0 found by the guest'
}

async function refusal({ stage, shim }: Scene): Promise<string> {
  const { patienceMs: timeoutMs } = stage
  const other = new DeviceManager<Arch>({
    arch: shim.manager.arch,
    dial: ({ signal }) => connect(shim.address, { signal }),
    remote: formatAddress(shim.address),
  })
  try {
    const window = { base: 0xd000_0000n, size: 0x2000n, irq: 6 }
    await other.addMmio(window, { timeoutMs })
    await stage.say('upcall', 'another client has taken the window 0xd0000000, irq 6')
    const body = await stage.call('PUT', '/drives/vdb', DISK, 502)
    stage.expect('errno', isFault(body) ? body.errno : undefined, -17)
    const { believed } = await stage.look()
    stage.expect('drives, as the VMM believes', believed.mmio, [])
    await stage.say('vmm', 'rolled back: there is no trace of the disk', 'green')
    await other.removeMmio(window, { timeoutMs })
  } catch (error) {
    if (isGuestError(error)) stage.expect('errno for the other client', error.errno, 0)
    throw error
  } finally {
    await other.close()
  }
  return 'guest-error EEXIST (−17), rolled back'
}

async function dieInTheMiddle({ stage, shim }: Scene): Promise<string> {
  const { machine, manager } = shim
  await machine.pause(true)
  await stage.say('guest', 'is paused: its vCPUs are stopped')
  let onState = (_: StateEvent) => {}
  const sent = new Promise<void>((resolve) => {
    onState = ({ state }) => {
      if (state === 'ServiceBusy') resolve()
    }
  })
  manager.client.on('state', onState)
  try {
    await stage.say('api', `PUT /drives/vdc${json(DISK)}`)
    const reply = stage.send('PUT', '/drives/vdc', DISK)
    // A failure is seen where the reply is awaited.
    reply.catch(() => {})
    await stage.within('the request leaves', sent)
    // A guest that answers is not killed, and the step fails for its answer.
    if ((await Promise.race([reply, delay(stage.silenceMs)])) === undefined) await killGuest({ stage, shim })
    const body = await stage.answered(reply, 504)
    stage.expect('outcome', isFault(body) ? body.outcome : undefined, 'indeterminate')
  } finally {
    manager.client.off('state', onState)
  }
  const { state, believed, guest } = await stage.look()
  stage.expect('state', state, 'dead')
  stage.expect('the guest', guest, null)
  stage.expect('what the VMM believes of vdc', believed.mmio.find(({ id }) => id === 'vdc')?.status, 'unknown')
  await stage.say('vmm', 'vdc stays unknown: the VMM does not guess', 'yellow')
  return 'indeterminate; vdc stays unknown'
}

async function killGuest({ stage, shim }: Scene): Promise<void> {
  const { machine } = shim
  await stage.say('upcall', 'the guest has the request, there is no reply yet')
  await stage.say('guest', `process ${machine.pid} is killed`, 'red')
  await machine.kill()
}

async function reconcile({ stage, shim }: Scene): Promise<string> {
  const body = await stage.call('POST', '/vm/reconcile', undefined, 200)
  const expected: Reconciled = { restarted: true, settled: [{ kind: 'mmio', id: 'vdc', now: 'absent' }], differences: [] }
  stage.expect('what was settled', body, expected)
  const { believed, guest } = await stage.look()
  stage.expect('vCPUs, as the VMM believes', believed.cpus.present, [0, 1])
  stage.expect("the fresh guest's vCPUs", guest?.cpus.online, [0, 1])
  stage.expect("the fresh guest's PCI functions", guest?.pci, ['00:05.0'])
  await stage.call('PUT', '/drives/vdc', DISK, 200)
  stage.expect("the fresh guest's windows", (await stage.look()).guest?.mmio.length, 1)
  await stage.say('guest', `process ${shim.machine.pid}: vCPUs 0 1, 00:05.0 and the disk are all there`, 'green')
  return 'vdc settled as absent, then added'
}
