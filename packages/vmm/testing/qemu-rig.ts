import assert from 'node:assert/strict'
import type { PciDevice } from '../src/devices.js'
import type { Hardware } from '../src/qemu/hardware.js'
import { QemuMachine, type QemuMachineOptions } from '../src/qemu/machine.js'
import { type Answer, FakeQemu } from './fake-qemu.js'

export const MIB = 2 ** 20
export const HARDWARE: Hardware = {
  ...{ machine: 'q35', accel: 'tcg', cpus: [0], maxCpus: 4, vsockSocket: '/v', pci: [] },
  memory: { boot: 512 * MIB, max: 1024 * MIB, plugged: 0 },
}
export const DISK: PciDevice = {
  ...{ id: 'data', place: { bus: 1, devfn: 0 }, status: 'adding' },
  disk: { pathOnHost: '/srv/data.img', isReadOnly: true },
}

/** CPUs 0 to 3, of which `plugged` are in. */
export function cpus(plugged: number[]): Answer {
  return () =>
    [0, 1, 2, 3].map((id) => ({
      type: 'max-x86_64-cpu',
      props: { 'socket-id': 0, 'core-id': id, 'thread-id': 0 },
      ...(plugged.includes(id) && { 'qom-path': `/machine/peripheral/cpu-${id}` }),
    }))
}

/** A machine whose QEMU is a fake, once it runs; or once it has failed as `failure` says. */
export async function start(
  answers: Record<string, Answer> = {},
  hardware: Partial<Hardware> = {},
  more: Partial<QemuMachineOptions> = {},
  failure?: RegExp,
) {
  const launches: { signal: AbortSignal }[] = []
  const qemus: FakeQemu[] = []
  const booted: Hardware[] = []
  const exits: string[] = []
  const machine = new QemuMachine({
    hardware: { ...HARDWARE, ...hardware },
    async launch(given, signal) {
      launches.push({ signal })
      booted.push(given)
      const qemu = await FakeQemu.start({ 'query-hotpluggable-cpus': cpus([0]), ...answers })
      qemus.push(qemu)
      return qemu
    },
    report: () => Promise.reject(new Error('no answer')),
    // What is expected of a guest here that neither ejects nor takes memory.
    ejectTimeoutMs: 20,
    memoryTimeoutMs: 20,
    onExit: (why) => exits.push(why),
    ...more,
  })
  if (failure) await assert.rejects(machine.launched, failure)
  else await machine.launched
  return {
    machine,
    launches,
    booted,
    exits,
    qemu: () => qemus.at(-1)!,
    [Symbol.asyncDispose]: () => machine.stop(),
  }
}
