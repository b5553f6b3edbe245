// What happens to the VM, to its memory and to the back end, while bytes are under way. Each exercise returns what the table is to say.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connectMany } from '../guest/vhost-user/exchange.mjs'
import { descriptors, GUEST, GUEST_CID, HOST, MIB, mappedBytes, settled, until } from './scene.mjs'

export async function stopAndCont(scene, times, bytes = 48 * MIB) {
  const { vm, device, told } = scene
  told.length = 0
  const { moved, flowing, done } = scene.traffic(4, bytes)
  await flowing()
  for (let i = 0; i < times; i++) {
    await vm.qmp('stop')
    await until('the pause', () => device.state === 'attached')
    // What the device had taken before still comes out of the sockets.
    await delay(200)
    const paused = moved()
    await delay(200)
    assert.equal(moved(), paused, 'bytes moved while the VM was stopped')
    await vm.qmp('cont')
    await until('traffic after cont', () => moved() > paused)
  }
  await done()
  assert.equal(told.filter((word) => word === 'stopped: paused').length, times)
  assert.ok(!told.includes('reset'))
  return 'no connection lost; every byte right'
}

export async function hotplug(scene, dimms) {
  const { vm, told } = scene
  const size = 128 * MIB
  const before = { mapped: mappedBytes(), megabytes: (await vm.run('memory')).megabytes }
  told.length = 0
  const { flowing, done } = scene.traffic(4, 48 * MIB)
  await flowing()
  for (let i = 0; i < dimms; i++) {
    await vm.qmp('object-add', { 'qom-type': 'memory-backend-memfd', id: `more${i}`, size, share: true })
    await vm.qmp('device_add', { driver: 'pc-dimm', id: `dimm${i}`, memdev: `more${i}` })
  }
  const wanted = before.megabytes + (dimms * size) / MIB - 16
  await until('memory in the guest', async () => (await vm.run('memory')).megabytes >= wanted, { everyMs: 300 })
  await done()
  // The driver's next buffers may lie in the new memory.
  await scene.traffic(4, 16 * MIB).done()
  assert.deepEqual(told, [])
  const more = mappedBytes() - before.mapped
  assert.equal(more, dimms * size)
  return `${more / MIB} MiB more in the guest and mapped here; no connection lost; every byte right`
}

/** The guest gives back what it can of the DIMMs that `hotplug` has added: it need not let go of memory that it uses. */
export async function unplug(scene, dimms) {
  const { vm, told } = scene
  const before = mappedBytes()
  told.length = 0
  const { flowing, done } = scene.traffic(4, 16 * MIB)
  await flowing()
  for (const id of dimms) await vm.qmp('device_del', { id: `dimm${id}` })
  await until('memory that goes', () => mappedBytes() < before)
  await done()
  await scene.traffic(4, 16 * MIB).done()
  assert.deepEqual(told, [])
  return `${(before - mappedBytes()) / MIB} MiB less mapped here; no connection lost; every byte right`
}

export async function guestReset(scene) {
  const { vm, device, told } = scene
  told.length = 0
  const { transfers, flowing } = scene.traffic(2, 256 * MIB)
  await flowing()
  const again = vm.event('ready', { timeoutMs: 120_000 })
  const started = performance.now()
  await vm.qmp('system_reset')
  await scene.broken(transfers)
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  await again
  await device.ready({ signal: AbortSignal.timeout(10_000) })
  assert.equal(told.filter((word) => word === 'reset').length, 1)
  await scene.traffic(2, 16 * MIB).done()
  return `old connections end when the new driver begins, after ${seconds} s; new ones work`
}

export async function ownerReset(scene) {
  const { vm, device } = scene
  const { transfers, flowing } = scene.traffic(2, 256 * MIB)
  await flowing()
  const again = vm.event('ready', { timeoutMs: 120_000 })
  const reset = vm.qmpEvent('RESET')
  await vm.qmp('system_reset')
  await reset
  const started = performance.now()
  assert.ok(device.resetConnections() >= 2)
  await scene.broken(transfers)
  const ms = (performance.now() - started).toFixed(0)
  await again
  await scene.traffic(2, 16 * MIB).done()
  return `old connections end after ${ms} ms, when resetConnections() is called; new ones work`
}

export async function qemuKilled(scene) {
  const { vm, device, told } = scene
  told.length = 0
  const { transfers, flowing } = scene.traffic(2, 256 * MIB)
  await flowing()
  await vm.kill()
  await scene.broken(transfers)
  await until('the end of the line', () => device.state === 'waiting')
  assert.ok(told.includes('stopped: disconnected'))
  assert.equal(mappedBytes(), 0)
  await assert.rejects(scene.dial(GUEST.echo), { code: 'ECONNREFUSED' })
  return 'connections end, guest memory is unmapped, dialling is refused, the device waits'
}

/** The back end in a process of its own. */
export class BackEnd {
  #child
  /** What becomes of an idle connection of the guest. */
  #fate

  constructor(scene) {
    this.scene = scene
  }

  async start() {
    const { vhostPath, hybridPath } = this.scene
    const program = fileURLToPath(new URL('back-end.mjs', import.meta.url))
    this.#child = spawn(process.execPath, [program, vhostPath, hybridPath, String(GUEST_CID)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = await once(this.#child.stdout, 'data', { signal: AbortSignal.timeout(30_000) })
    assert.equal(String(line), 'listening\n')
  }

  async kill() {
    if (this.#child === undefined) return
    const closed = once(this.#child, 'close')
    this.#child.kill('SIGKILL')
    this.#child = undefined
    await closed
  }

  async killedUnderTraffic() {
    const { scene } = this
    const waiting = scene.vm.event('waiting')
    // The guest learns that the device is gone when it is taken away.
    this.#fate = scene.vm.run('fate', { port: HOST.echo })
    this.#fate.catch(() => {})
    await waiting
    const { transfers, flowing } = scene.traffic(2, 256 * MIB)
    await flowing()
    await this.kill()
    await scene.broken(transfers)
    assert.equal((await scene.vm.qmp('query-status')).status, 'running')
    await scene.vm.run('state')
    return 'connections end; the guest runs on, without vsock'
  }

  async broughtBack() {
    const { scene } = this
    const deleted = scene.vm.qmpEvent('DEVICE_DELETED')
    await scene.vm.qmp('device_del', { id: 'vsock0' })
    await deleted
    // Linux resets its sockets when the device goes. A program that waits by epoll, as Node does, finds the socket unconnected.
    assert.deepEqual(await this.#fate, { ended: false, code: 'ENOTCONN', syscall: 'read' })
    await scene.vm.qmp('chardev-remove', { id: 'vsock' })
    await this.start()
    const addr = { type: 'unix', data: { path: scene.vhostPath } }
    await scene.vm.qmp('chardev-add', { id: 'vsock', backend: { type: 'socket', data: { addr, server: false } } })
    await scene.vm.qmp('device_add', { driver: 'vhost-user-vsock-pci', id: 'vsock0', chardev: 'vsock', bus: 'port1' })
    const answers = async () => {
      const socket = await scene.dial(GUEST.echo).catch(() => undefined)
      socket?.destroy()
      return socket !== undefined
    }
    await until('a connection', answers, { everyMs: 300, timeoutMs: 60_000 })
    await scene.traffic(4, 16 * MIB).done()
    return 'an idle connection of the guest ends with ENOTCONN; the same guest, the same services; every byte right'
  }

  async descriptorsKept() {
    const { pid } = this.#child
    const before = descriptors(pid)
    await connectMany(100, 4, () => this.scene.dial(GUEST.echo))
    await settled(before, pid)
    return `${before} before and after 100 connections`
  }
}
