import { rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { messageFor } from '@upcall/foundation/error'
import { lstatOf } from '@upcall/foundation/stat'
import type { Accelerator, ImageOptions } from '@upcall/qemu'
import { createVsockDevice, type VhostUserVsock } from '@upcall/vhost-user'
import { type OwnKernel, prepareLaunch, QemuMachine, type ShimMachine, Slots } from '@upcall/vmm/qemu'
import { addonPath, connect, listen } from '@upcall/vsock'
import { DEFAULT_MEMORY, openShim, type Shim, type ShimOptions } from '../shim.js'
import { Agent } from './agent.js'
import { ImageProgress } from './image-progress.js'

export interface QemuShimOptions extends Omit<ShimOptions, 'arch'> {
  /** Default `q35`. */
  machine?: ShimMachine | undefined
  /** Default `tcg`. */
  accel?: Accelerator | undefined
  /** The most memory there can be, in bytes. Default: four times `memory`. */
  maxMemory?: number | undefined
  /** Default: the default image, whose program serves upcalls and says what the guest has. */
  own?: OwnKernel | undefined
  /** Added to the kernel's command line. */
  append?: string | undefined
  /** The guest's CID. Default 3. */
  cid?: number | undefined
  /** Where QEMU serves a QMP monitor of its own. */
  monitor?: string | undefined
  /** The program, a name or a path. Default `qemu-system-x86_64`. */
  program?: string | undefined
  /** Where the default image is kept. Default: the user's cache. */
  cacheDir?: string | undefined
  /** Everything the guest's console prints. */
  console?: ((text: string) => void) | undefined
  /** What becomes of the default image, if it has to be made. Default: it is logged. */
  onProgress?: ImageOptions['onProgress']
  /** The bundled program of the default image. Default: the one beside this file. */
  agentEntry?: URL | undefined
  /** Sources of the kernel module that a microvm's default image needs. Default: those beside this file. */
  moduleSource?: URL | undefined
  signal?: AbortSignal | undefined
}

export interface QemuShim extends Shim<QemuMachine> {
  /** The program in the default image. */
  readonly agent: Agent
}

/** A guest that is emulated on a busy host may take its time for everything. */
const HANDSHAKE_MS = 10_000
const READY_MS = 10_000
const BUDGET_MS = 180_000
const RECONCILE_MS = 120_000
const GUEST_CID = 3
/** How often the log tells of a download. */
const LOG_MS = 10_000

/** Starts a VMM with a real guest under QEMU, whose virtio-vsock device is in this process. */
export async function startQemuShim(options: QemuShimOptions): Promise<QemuShim> {
  const { uds, cpus = 1, maxCpus = 8, memory = DEFAULT_MEMORY, machine: type = 'q35', accel = 'tcg' } = options
  const { maxMemory = 4 * memory, cid = GUEST_CID, agentEntry = new URL('./agent.js', import.meta.url) } = options
  const { moduleSource = new URL('./upcall-mmio/', import.meta.url) } = options
  const { cacheDir = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'upcall', 'guest') } = options
  let device!: VhostUserVsock
  const agent = new Agent((port, { signal }) => device.connect(port, { signal }))
  const shim = await openShim<QemuMachine>(
    { reconcileMs: RECONCILE_MS, ...options, arch: 'x86_64' },
    {
      ...{ handshakeMs: HANDSHAKE_MS, readyMs: READY_MS, budgetMs: BUDGET_MS },
      async start({ directory, closers, log }) {
        if (options.monitor !== undefined) closers.push(await reservePath(options.monitor))
        const launch = await prepareLaunch({
          ...options,
          ...{ cacheDir, directory, agentEntry, moduleSource, vsockAddon: addonPath, microvm: type === 'microvm' },
          console: (text) => {
            options.console?.(text)
            options.watcher?.prints(text)
          },
          onProgress: options.onProgress ?? new ImageProgress(LOG_MS, (step) => log.info({ step }, 'the guest image')).on,
          onRestart: ({ attempt, afterMs }) =>
            log.warn({ attempt, ms: Math.round(afterMs) }, 'the boot went silent and is started again'),
        })
        const vsockSocket = join(directory, 'vsock.sock')
        device = await createVsockDevice({
          socketPath: vsockSocket,
          guestCid: cid,
          handshakeTimeoutMs: HANDSHAKE_MS,
          onConnection: (port, { signal }) => connect({ transport: 'unix', path: `${uds}_${port}` }, { signal }),
        })
        closers.push(() => device.close())
        device.on('stopped', ({ reason, error }) => {
          if (error) log.error({ reason, error: messageFor(error) }, 'the vsock device stopped')
        })
        const slots = type === 'microvm' ? new Slots() : undefined
        const machine = new QemuMachine({
          slots,
          hardware: {
            ...{ machine: type, accel, maxCpus, vsockSocket, monitor: options.monitor, pci: [], args: slots?.args },
            cpus: Array.from({ length: cpus }, (_, id) => id),
            memory: { boot: memory, max: maxMemory, plugged: 0 },
          },
          launch,
          report: () => agent.report(),
          onLaunch: (pid) => log.info({ qemu: pid }, 'QEMU runs'),
          onReset: () => log.warn({ qemu: machine.pid }, 'the guest was reset'),
          onExit: (why) => log.error({ qemu: machine.pid }, why),
        })
        closers.push(() => machine.stop())
        log.info({ machine: type, accel, cpus, maxCpus, memory }, 'the guest boots')
        return machine
      },
      route: (_, port, signal) => device.connect(port, { signal }),
      onManager(manager, machine) {
        manager.client.on('state', ({ state }) => {
          if (state === 'ServiceConnected') machine.serves()
        })
        // A guest that was away for longer than the client kept trying.
        device.on('running', () => {
          if (manager.state === 'ReconnectError') manager.client.reconnect()
        })
      },
    },
  )
  return Object.assign(shim, { agent })
}

/**
 * For QEMU's own monitor. QEMU takes away whatever is at the path, and leaves its socket behind when it is killed.
 *
 * @returns what removes the socket.
 * @throws VsockError if something else is there, or there is a listener.
 */
async function reservePath(path: string): Promise<() => void> {
  const placeholder = await listen({ transport: 'unix', path }, { mode: 0o600 })
  await placeholder.close()
  return () => {
    if (lstatOf(path)?.isSocket()) rmSync(path, { force: true })
  }
}
