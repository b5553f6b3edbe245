import { faultsIn } from './faults-in.mjs'

const shim = faultsIn('vmm-shim', ['vmm-shim'], 'apps')

export default [
  shim(
    'a QEMU that cannot be looked at goes on',
    'qemu/machine.ts',
    '      await qemu.close()\n      throw error',
    '      throw error',
  ),
  shim(
    "a QEMU's end is its successor's",
    'qemu/machine.ts',
    'const isCurrent = () => this.#qemu === qemu && !this.#dead',
    'const isCurrent = () => true',
  ),
  shim("a launch's failure is its successor's", 'qemu/machine.ts', 'if (this.launched === launched) this.#die', 'this.#die'),
  shim('a QEMU is launched beside its predecessor', 'qemu/machine.ts', '    await last?.close()\n', ''),
  shim(
    'a service that greets early is not heard',
    'qemu/machine.ts',
    '    this.#serves = true',
    '    if (this.#up) this.#serves = true',
  ),
  shim(
    'memory that the guest was asked for is forgotten',
    'qemu/machine.ts',
    'return bytes === this.memory && this.#requested === this.#plugged',
    'return bytes === this.memory',
  ),
  shim(
    "a microvm's vCPU is lost with its guest",
    'qemu/machine.ts',
    "if (this.#dead && this.#type !== 'microvm') continue",
    'if (this.#dead) continue',
  ),
  shim(
    'a PCI device that may have been plugged in is forgotten',
    'qemu/machine.ts',
    'if (mayBeDone(error)) await this.unplugPci(device)',
    '',
  ),
  shim(
    'a machine is stopped by killing its QEMU',
    'qemu/machine.ts',
    '    await this.#qemu?.close()\n    this.#stop',
    '    this.#stop',
  ),
  shim('a comma ends a path', 'qemu/hardware.ts', "return text.replaceAll(',', ',,')", 'return text'),
  shim('vCPUs that were added before a failure stay', 'vm/vm.ts', 'else await this.#takeBack(present.length, error)', ''),
  shim(
    'a drive waits for another guest than it was plugged into',
    'vm/vm.ts',
    'await this.#manager.addMmio(window, { signal })',
    'await this.#manager.addMmio(window)',
  ),
  shim(
    'a reset guest is the same guest',
    'qemu/machine.ts',
    "      this.#gone.abort(new Error('the guest was reset'))\n      this.#gone = new AbortController()\n",
    '',
  ),
  shim(
    'a window that is refused once is not told of again',
    'vm/reconciler.ts',
    'if (!refused) this.#settledResets = resets',
    'this.#settledResets = resets',
  ),
  shim(
    'what a failed reconcile has done is never told',
    'vm/reconciler.ts',
    'return { ...done,',
    'return { restarted, settled: [],',
  ),
  shim(
    'a guest is believed whatever it says',
    'qemu/agent.ts',
    'if (result.success) return result.output',
    'return value as AgentReport',
  ),
  shim(
    'a connection is idle although a request is under way',
    'api/server.ts',
    'if (--this.#requests === 0) this.#wait()',
    'this.#wait()',
  ),
  shim(
    'an unplug that is under way is not waited for',
    'qemu/plugging.ts',
    '|| !/in the process of unplug/.test(error.message)',
    '',
  ),
  shim(
    'an unplug that nobody heard of is not seen',
    'qemu/plugging.ts',
    "return await qmp.execute('qom-list', { path }).then(() => false, isNotFound)",
    'return false',
  ),
  shim('what the guest has let go of by itself cannot be removed', 'vm/vm.ts', 'if (!knowsNone ||', 'if (true ||'),
  shim(
    'a window that the guest may use is taken away',
    'vm/vm.ts',
    'guest !== undefined && !guest.mmio.some',
    '!guest?.mmio.some',
  ),
  shim('a vCPU that is as it was to be is a failure', 'vm/vm.ts', 'if (done === undefined) throw error', 'throw error'),
]
