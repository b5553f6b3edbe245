import { join } from 'node:path'
import type { VsockNetwork } from '../src/network.js'
import { GuestDriver } from './guest-driver.js'
import { GuestKernel } from './guest-kernel.js'
import { cleanups, folder, frontEnd } from './scene.js'
import { until } from './until.js'

// Guests with kernels of their own on real devices: a Unix socket, shared memory and eventfds each, and no VM.

const DEADLINE_MS = 20_000

export interface RealGuest {
  readonly cid: number
  readonly kernel: GuestKernel
  step(): boolean
  /** Its VMM goes. */
  close(): void
}

export const socketPathOf = (cid: number): string => join(folder, `${cid}.sock`)

/** A device of `network`, and a guest that runs on it. */
export async function realGuest(network: VsockNetwork, cid: number): Promise<RealGuest> {
  const device = await network.add({ socketPath: socketPathOf(cid), guestCid: cid })
  cleanups.push(() => device.close())
  return guestAt(cid)
}

/** A guest that runs on the device at its socket in the test's folder. */
export async function guestAt(cid: number): Promise<RealGuest> {
  const vmm = await frontEnd(socketPathOf(cid), cid)
  const driver = new GuestDriver(vmm.guest, (ring) => vmm.kick(ring === 'rx' ? 0 : 1), { room: 4096 })
  const kernel = new GuestKernel(cid, driver)
  await vmm.start()
  driver.supply()
  return { cid, kernel, step: () => kernel.step(performance.now()), close: () => vmm.close() }
}

/** Lets guests, devices and programs run until something holds. */
export function runUntil(holds: () => unknown, all: readonly { step(): boolean }[]): Promise<void> {
  return until(holds, { ms: DEADLINE_MS, step: () => all.forEach((each) => void each.step()) })
}
