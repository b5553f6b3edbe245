import { PassThrough } from 'node:stream'
import { DeviceManager } from '@upcall/device-manager'
import { simulatedGuest } from '@upcall/device-manager/guest'
import { simulatedDial } from '@upcall/testkit'
import { connect, listenHybrid } from '@upcall/vsock'
import { Registry } from 'prom-client'
import { Op } from '../../vhost-user/src/machine/packet.js'
import { cleanups, connected, folder, heard, running, say } from '../../vhost-user/testing/scene.js'
import { collectMetrics, type PrometheusMetrics } from '../src/prometheus.js'

/**
 * A process in which everything that is counted happens at least once: requests, a reconnect, handshakes that fail, and a vsock device with
 * the front end of its own tests. A recovery depends on chance, so it is the one thing that is only said.
 */
export async function realRun(): Promise<PrometheusMetrics> {
  const metrics = await collectMetrics({ register: new Registry() })
  cleanups.push(() => metrics[Symbol.dispose]())
  await talkToGuest()
  await failHandshakes()
  await runDevice()
  return metrics
}

async function talkToGuest(): Promise<void> {
  const dial = simulatedDial(simulatedGuest({ kernel: '6.1', arch: 'x86_64' }))
  const manager = new DeviceManager({ arch: 'x86_64', dial })
  cleanups.push(() => dial.close())
  cleanups.push(() => manager.close())
  await manager.addMmio({ base: 0xd000_0000n, size: 0x1000n, irq: 5 })
  await manager.removeMmio({ base: 0xf000_0000n, size: 0x1000n, irq: 5 }).catch(() => {})
  const abort = new AbortController()
  const given = manager.addMmio({ base: 0xd000_2000n, size: 0x1000n, irq: 6 }, { signal: abort.signal })
  abort.abort()
  await given.catch(() => {})
  await manager.ready()
}

async function failHandshakes(): Promise<void> {
  const path = `${folder}/vm.vsock`
  const hybrid = await listenHybrid({ path, route: (port) => (port === 1 ? new PassThrough() : undefined) })
  cleanups.push(() => hybrid.close())
  await connect(`hvsock://${path}:2`).catch(() => {})
}

async function runDevice(): Promise<void> {
  const { device, vmm } = await running({ policy: { toGuest: { allow: [{ peer: 'host', ports: [5000] }] } } })
  const { stream, request } = await connected(device, vmm)
  stream.write('bytes')
  await heard(vmm)
  say(vmm, request, Op.CREDIT_UPDATE)
  await device.connect(6000).catch(() => {})
}
