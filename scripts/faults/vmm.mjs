import { faultsIn } from './faults-in.mjs'

const vmm = faultsIn('vmm')

export default [
  vmm(
    'a QEMU that cannot be looked at goes on',
    'qemu/life.ts',
    "      c.effects.push({ type: 'close', launch })\n      return monitorEnded",
    '      return monitorEnded',
  ),
  vmm(
    "a QEMU's end is its successor's",
    'qemu/life.ts',
    "if ('launch' in event && event.launch !== launchOf(life)) return life",
    '',
  ),
  vmm('a QEMU is launched beside its predecessor', 'qemu/guest-life.ts', '      await last?.close()\n', ''),
  vmm(
    'a service that greets early is not heard',
    'qemu/life.ts',
    "greeted: to(['Probing'], (_c, state) => ({ ...state, serves: true })),",
    "greeted: to(['Probing'], same),",
  ),
  vmm(
    'memory that the guest was asked for is forgotten',
    'qemu/inventory.ts',
    'return bytes === this.memory && this.requested === this.plugged',
    'return bytes === this.memory',
  ),
  vmm(
    "a microvm's vCPU is lost with its guest",
    'qemu/machine.ts',
    "if (this.guest === 'dead' && this.#type !== 'microvm') continue",
    "if (this.guest === 'dead') continue",
  ),
  vmm(
    'a PCI device that may have been plugged in is forgotten',
    'qemu/machine.ts',
    'if (mayBeDone(error)) await this.unplugPci(device)',
    '',
  ),
  vmm(
    'a machine is stopped by killing its QEMU',
    'qemu/life.ts',
    "{ type: 'close', launch })\n  return { kind: 'Stopping'",
    "{ type: 'cancel' })\n  return { kind: 'Stopping'",
  ),
  vmm('a comma ends a path', 'qemu/hardware.ts', "return text.replaceAll(',', ',,')", 'return text'),
  vmm(
    'a drive waits for another guest than it was plugged into',
    'vm.ts',
    'await this.#manager.addMmio(window, { signal })',
    'await this.#manager.addMmio(window)',
  ),
  vmm(
    'a reset guest is the same guest',
    'qemu/life.ts',
    "c.effects.push({ type: 'guestGone', why: 'the guest was reset' }, { type: 'guestNew' }, { type: 'tellReset' })",
    "c.effects.push({ type: 'tellReset' })",
  ),
  vmm(
    'a window that is refused once is not told of again',
    'reconciler.ts',
    'if (!refused) this.#settledResets = resets',
    'this.#settledResets = resets',
  ),
  vmm(
    'an aarch64 guest takes another vCPU offline than the spare one',
    'reconciler.ts',
    'id !== Math.max(...online)',
    'id > Math.max(...online)',
  ),
  vmm('what a failed reconcile has done is never told', 'reconciler.ts', 'return { ...done,', 'return { restarted, settled: [],'),
  vmm('an unplug that is under way is not waited for', 'qemu/plugging.ts', " || error.reason !== 'unplug-in-progress'", ''),
  vmm(
    'an unplug without an event is not seen',
    'qemu/plugging.ts',
    "return await qmp.execute('qom-list', { path }).then(() => false, isNotFound)",
    'return false',
  ),
  vmm('a window that the guest may use is taken away', 'vm.ts', 'guest !== undefined && !guest.mmio.some', '!guest?.mmio.some'),
  vmm(
    'vCPUs that were added before a failure stay',
    'cpus.ts',
    'throw await this.takeBack(about, before.length, error)',
    'throw error',
  ),
  vmm(
    'what the guest has let go of by itself cannot be removed',
    'change.ts',
    'if (!isGone(error, guest ?? undefined)) throw error',
    'throw error',
  ),
  vmm('a vCPU that is online already is a failure', 'change.ts', 'if (guest && arrival.isThere(guest)) {', 'if (false) {'),
  vmm(
    'a device is plugged in before the state is saved',
    'change.ts',
    '    await saved(context)\n    await plugged',
    '    await plugged',
  ),
  vmm(
    'the guest lets go before the state is saved',
    'change.ts',
    "  entry.status = 'removing'\n  try {\n    await saved(context)",
    "  entry.status = 'removing'\n  try {",
  ),
  vmm(
    'what is under way is saved as certain',
    'snapshot.ts',
    "return status === 'present' ? 'present' : 'unknown'",
    "return 'present'",
  ),
  vmm(
    'a guest that was reset while no controller looked is not told of its windows',
    'vm.ts',
    '    vm.#reconciler.announceAll()\n',
    '',
  ),
  vmm('a snapshot may name an id twice', 'snapshot.ts', 'if (all.has(entry.id)) wrongValue', 'if (false) wrongValue'),
  vmm(
    'a caller that gives up is not heard',
    'vm.ts',
    'options.signal ? AbortSignal.any([guestGone, options.signal]) : guestGone',
    'guestGone',
  ),
]
