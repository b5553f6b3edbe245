import type { KernelVersion } from '@upcall/device-manager/guest'
import { SimulatedMachine } from '@upcall/vmm/simulated'
import { UPCALL_PORT } from '@upcall/wire'
import { DEFAULT_MEMORY, openShim, type Shim, type ShimOptions } from '../shim.js'

export interface SimulatedShimOptions extends ShimOptions {
  /** The kernel whose behaviour the guest shows. Default `'6.1'`. */
  kernel?: KernelVersion | undefined
  /** How long the guest boots, in milliseconds. Default 1000. */
  bootMs?: number | undefined
  /**
   * `plugged`: the guest finds only what was plugged in over the API. `all`: it finds every CPU up to `maxCpus` and every function on
   * PCI bus 0, so that a client can do without the API. Default: `plugged` with an API or a watcher, else `all`.
   */
  hardware?: 'plugged' | 'all' | undefined
  /** The program of the guest's process. Default: the one beside this file. */
  guestEntry?: URL | undefined
}

/** Starts a VMM whose guest is simulated in a process of its own. */
export function startShim(options: SimulatedShimOptions): Promise<Shim<SimulatedMachine>> {
  const { arch, kernel = '6.1', cpus = 1, maxCpus = 8, memory = DEFAULT_MEMORY, bootMs = 1_000 } = options
  const {
    hardware = (options.api ?? options.watcher) === undefined ? 'all' : 'plugged',
    guestEntry = new URL('./guest.js', import.meta.url),
  } = options
  return openShim(options, {
    start({ directory, closers, log }) {
      const machine = new SimulatedMachine({
        ...{ arch, kernel, cpus, maxCpus, memory, bootMs, hardware, directory, guestEntry },
        onBoot: () => log.info({ guest: machine.pid }, 'the guest has booted'),
        onExit: (how, stderr) => log.error({ guest: machine.pid, ...(stderr && { stderr }) }, `the guest's process ${how}`),
      })
      closers.push(() => machine.stop())
      log.info({ guest: machine.pid, arch, kernel }, 'the guest boots')
      return machine
    },
    route: (machine, port, signal) => (port === UPCALL_PORT ? machine.connect(signal) : undefined),
  })
}
