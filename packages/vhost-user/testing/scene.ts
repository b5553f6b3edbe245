import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect } from 'vitest'
import { Op } from '../src/machine/packet.js'
import { createVsockDevice, type VhostUserVsock, type VhostUserVsockOptions } from '../src/vhost-user-vsock.js'
import { addonIfBuilt } from './addon.js'
import { FakeFrontEnd } from './fake-front-end.js'
import { type GuestPacket, opName } from './fake-guest.js'
import { until } from './until.js'

// For tests of the whole package: a device on a real socket, and a VMM without a VM at the other end.

export const binding = addonIfBuilt()

/** The test's own folder, and the device's socket in it. */
export let folder: string
export let path: string
/** Run after the test, last first. */
export const cleanups: (() => unknown)[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vhost-user-'))
  path = join(folder, 'vsock.sock')
})
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  rmSync(folder, { recursive: true })
})

export async function deviceAt(options: Partial<VhostUserVsockOptions> = {}): Promise<VhostUserVsock> {
  const device = await createVsockDevice({ socketPath: path, guestCid: 42, ...options })
  cleanups.push(() => device.close())
  return device
}

export async function frontEnd(socketPath = path, cid?: number): Promise<FakeFrontEnd> {
  const vmm = new FakeFrontEnd(binding!, socketPath, cid)
  cleanups.push(() => vmm.close())
  await vmm.negotiate()
  return vmm
}

/** A device with a guest whose driver runs and has given it receive buffers. */
export async function running(
  options: Partial<VhostUserVsockOptions> = {},
): Promise<{ device: VhostUserVsock; vmm: FakeFrontEnd }> {
  const device = await deviceAt(options)
  const vmm = await frontEnd(device.socketPath)
  vmm.guest.supply(60)
  await vmm.start()
  expect(device.state).toBe('running')
  return { device, vmm }
}

/** The next packets from the device, at least one. */
export async function heard(vmm: FakeFrontEnd): Promise<GuestPacket[]> {
  let packets: GuestPacket[] = []
  const arrived = () => {
    packets = vmm.guest.received()
    vmm.guest.tx.takeUsed()
    vmm.guest.rx.usedEvent = vmm.guest.rx.usedIndex
    return packets.length > 0
  }
  await until(arrived, { ms: 5_000, what: 'a packet from the device' })
  return packets
}

/** A packet from the guest in answer to a packet that it got. */
export function say(vmm: FakeFrontEnd, to: GuestPacket, op: number, fields = {}, payload?: Uint8Array): void {
  const { sourcePort, destinationPort } = to.header
  vmm.guest.send({ op, sourcePort: destinationPort, destinationPort: sourcePort, ...fields }, payload)
  vmm.kick(1)
}

export async function connected(device: VhostUserVsock, vmm: FakeFrontEnd, port = 5000) {
  const connecting = device.connect(port)
  const [request] = await heard(vmm)
  expect(opName(request!)).toBe('REQUEST')
  say(vmm, request!, Op.RESPONSE)
  const stream = await connecting
  // Every test's end cuts what is still open.
  stream.on('error', () => {})
  return { stream, request: request! }
}
