import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DeviceManager } from '@upcall/device-manager'
import type { KernelVersion } from '@upcall/device-manager/guest'
import { connect, formatAddress, type HvsockAddress, type HybridServer, listen, listenHybrid } from '@upcall/vsock'
import { type Arch, UPCALL_PORT } from '@upcall/wire'
import { serveApi } from './api/server.js'
import { SimulatedMachine } from './guest/machine.js'
import { type Log, silentLog } from './log.js'
import { Vm } from './vm/vm.js'

export interface ShimOptions {
  /** Path of the hybrid vsock socket. */
  uds: string
  /** Path of the control API's socket. Default: no API. */
  api?: string | undefined
  arch: Arch
  /** The kernel whose behaviour the guest shows. Default `'6.1'`. */
  kernel?: KernelVersion | undefined
  /** vCPUs at boot. Default 1. */
  cpus?: number | undefined
  /** Default 8. */
  maxCpus?: number | undefined
  /** Bytes. Default 512 MiB. */
  memory?: number | undefined
  /** How long the guest boots, in milliseconds. Default 1000. */
  bootMs?: number | undefined
  /**
   * `plugged`: the guest finds only what was plugged in over the API. `all`: it finds every CPU up to `maxCpus` and every function on
   * PCI bus 0, so that a client can do without the API. Default: `plugged` with an API, else `all`.
   */
  hardware?: 'plugged' | 'all' | undefined
  /** Deadlines for the guest's replies, in milliseconds. Default: those of the device manager. */
  replyTimeouts?: { cpuMs?: number | undefined; otherMs?: number | undefined } | undefined
  /** How long a reconcile waits for the guest, in milliseconds. Default 30,000. */
  reconcileMs?: number | undefined
  /** The program of the guest's process. Default: the one beside this file. */
  guestEntry?: URL | undefined
  log?: Log | undefined
}

/** A whole demo VMM: the guest's process, the hybrid vsock socket in front of it, the VMM's own client, and the control API. */
export interface Shim extends AsyncDisposable {
  readonly vm: Vm
  readonly machine: SimulatedMachine
  readonly manager: DeviceManager<Arch>
  /** Where the guest's upcall service is reached from outside. */
  readonly address: HvsockAddress
  /** Ends everything that was started, and removes every file. Twice is once. */
  close(): Promise<void>
}

/** Starts a VMM. If anything of it cannot be started, nothing is left running. */
export async function startShim(options: ShimOptions): Promise<Shim> {
  const { uds, arch, kernel = '6.1', cpus = 1, maxCpus = 8, memory = 512 * 2 ** 20, bootMs = 1_000, log = silentLog } = options
  const { hardware = options.api === undefined ? 'all' : 'plugged', guestEntry = new URL('./guest.js', import.meta.url) } =
    options
  const address: HvsockAddress = { transport: 'hvsock', path: uds, port: UPCALL_PORT }
  const closers: (() => Promise<void> | void)[] = []
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= closeAll(closers)
    return closing
  }
  try {
    const directory = mkdtempSync(join(tmpdir(), 'vmm-'))
    closers.push(() => rmSync(directory, { recursive: true, force: true }))

    // Both sockets first: if somebody else has one of the paths, no guest is started in vain. Connections wait until they are served.
    const apiSocket =
      options.api === undefined ? undefined : await listen({ transport: 'unix', path: options.api }, { mode: 0o600 })
    if (apiSocket) closers.push(() => apiSocket.close())
    let machine: SimulatedMachine | undefined
    const hybrid = await listenHybrid({
      path: uds,
      route: (port, { signal }) => (port === UPCALL_PORT ? machine?.connect(signal) : undefined),
    })
    closers.push(() => hybrid.close())
    logConnections(hybrid, log)

    const simulated = new SimulatedMachine({
      arch,
      kernel,
      cpus,
      maxCpus,
      bootMs,
      hardware,
      directory,
      guestEntry,
      onBoot: () => log.info({ guest: simulated.pid }, 'the guest has booted'),
      onExit: (how, stderr) => log.error({ guest: simulated.pid, ...(stderr && { stderr }) }, `the guest's process ${how}`),
    })
    machine = simulated
    closers.push(() => simulated.stop())
    log.info({ guest: simulated.pid, arch, kernel }, 'the guest boots')

    const manager = new DeviceManager<Arch>({
      arch,
      dial: ({ signal }) => connect(address, { signal }),
      remote: formatAddress(address),
      replyTimeouts: options.replyTimeouts,
      // Both ends are on this machine: waiting longer than this spares nobody.
      reconnect: { maxDelayMs: 250 },
    })
    closers.push(() => manager.close())

    const vm = new Vm({ arch, cpus, maxCpus, memory, machine: simulated, manager, reconcileMs: options.reconcileMs })
    if (apiSocket) {
      const api = serveApi({ server: apiSocket, vm, log })
      closers.push(() => api.close())
    }
    return { vm, machine: simulated, manager, address, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

/** The other way round than they were opened, all of them, whatever becomes of one. */
async function closeAll(closers: (() => Promise<void> | void)[]): Promise<void> {
  const failed: unknown[] = []
  for (const close of closers.reverse()) {
    try {
      await close()
    } catch (error) {
      failed.push(error)
    }
  }
  if (failed.length > 0) throw new AggregateError(failed, `close: ${failed.map((error) => (error as Error).message).join('; ')}`)
}

function logConnections(hybrid: HybridServer, log: Log): void {
  hybrid.on('connection', ({ port, hostPort }) => log.debug({ port, hostPort }, 'vsock connection'))
  hybrid.on('refused', ({ port, reason }) => log.debug({ port, reason }, 'vsock connection refused'))
  hybrid.on('error', (error) => log.warn({ error: error.message }, 'vsock accept failed'))
}
