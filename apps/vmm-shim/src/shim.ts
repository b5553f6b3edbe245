import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/client'
import { DeviceManager, type ReplyTimeouts } from '@upcall/device-manager'
import { messageFor, textOf } from '@upcall/foundation/error'
import { type Machine, Vm, VmError } from '@upcall/vmm'
import { formatAddress, type HvsockAddress, type HybridProfile, type HybridServer, listenHybrid } from '@upcall/vsock'
import { type Arch, UPCALL_PORT } from '@upcall/wire'
import { openApi } from './api/app.js'
import { type Log, silentLog } from './log.js'
import type { ShimWatcher } from './watcher.js'

/** What every shim is made with, whatever its guest is. */
export interface ShimOptions {
  /** Path of the hybrid vsock socket. */
  uds: string
  /** Which VMM's hybrid vsock to follow to the letter. Default: none, see `listenHybrid`. */
  vsockProfile?: HybridProfile | undefined
  /** Path of the control API's socket. Default: no API. */
  api?: string | undefined
  arch: Arch
  /** vCPUs at boot. Default 1. */
  cpus?: number | undefined
  /** Default 8. */
  maxCpus?: number | undefined
  /** Bytes. Default 512 MiB. */
  memory?: number | undefined
  /** Deadlines for the guest's replies, in milliseconds. Default: those of the device manager. */
  replyTimeouts?: ReplyTimeouts | undefined
  /** Time as the client of the guest sees it. Default: the platform's. */
  clock?: Clock | undefined
  /** How long a reconcile waits for the guest, in milliseconds. Default 30,000. */
  reconcileMs?: number | undefined
  log?: Log | undefined
  /** Watches all of it, and is closed with it. */
  watcher?: ShimWatcher | undefined
}

export const DEFAULT_MEMORY = 512 * 2 ** 20

/** A whole demo VMM: the guest, the hybrid vsock socket in front of it, the VMM's own client, and the control API. */
export interface Shim<M extends Machine> extends AsyncDisposable {
  readonly vm: Vm
  readonly machine: M
  readonly manager: DeviceManager<Arch>
  /** Where the guest's upcall service is reached from outside. */
  readonly address: HvsockAddress
  /** Ends everything that was started, and removes every file. Idempotent. */
  close(): Promise<void>
}

/** What a kind of guest brings. */
export interface GuestParts<M extends Machine> {
  /** Makes the machine, whose guest boots from then on. What it adds to `closers` is closed last to first. */
  start(context: { directory: string; closers: (() => Promise<void> | void)[]; log: Log }): Promise<M> | M
  /** The guest's end of a vsock port; undefined or a rejection closes the connection that asks. */
  route(machine: M, port: number, signal: AbortSignal): Promise<Duplex | undefined> | Duplex | undefined
  /** How long a connection may take to be handed over, in milliseconds. Default 2000. */
  handshakeMs?: number | undefined
  /** How long a change waits for a connection that is being made again, in milliseconds. Default 500. */
  readyMs?: number | undefined
  /** How long the client keeps trying before it gives the guest up, in milliseconds. Default 30,000. */
  budgetMs?: number | undefined
  /** Hears of the client before anything happens. */
  onManager?: ((manager: DeviceManager<Arch>, machine: M) => void) | undefined
}

/** Starts a VMM. If anything of it cannot be started, nothing is left running. */
export async function openShim<M extends Machine>(options: ShimOptions, parts: GuestParts<M>): Promise<Shim<M>> {
  const { uds, arch, cpus = 1, maxCpus = 8, log = silentLog, watcher } = options
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

    // Both sockets first: if one of the paths is in use, no guest is started in vain. Requests wait until the VM is there.
    const api =
      options.api === undefined
        ? undefined
        : await openApi({ transport: 'unix', path: options.api }, { log, changes: watcher?.changes })
    if (api) closers.push(() => api.close())
    let machine: M | undefined
    const hybrid = await listenHybrid({
      path: uds,
      profile: options.vsockProfile,
      route: (port, { signal }) => (machine ? parts.route(machine, port, signal) : undefined),
      handshakeTimeoutMs: parts.handshakeMs,
    })
    closers.push(() => hybrid.close())
    logConnections(hybrid, log)
    const guest = await parts.start({ directory, closers, log })
    machine = guest

    const manager = new DeviceManager<Arch>({
      arch,
      // The guest's end directly: this program need not dial its own socket.
      dial: ({ signal }) => dialGuest(() => parts.route(guest, UPCALL_PORT, signal)),
      timeouts: { dialMs: parts.handshakeMs },
      remote: formatAddress(address),
      replyTimeouts: options.replyTimeouts,
      ...(options.clock && { clock: options.clock }),
      // Both ends are on this machine: a longer wait spares nothing.
      reconnect: { maxDelayMs: 250, budgetMs: parts.budgetMs },
    })
    closers.push(() => manager.close())
    parts.onManager?.(manager, machine)
    watcher?.manages(manager)

    const vm = new Vm({ cpus, maxCpus, machine, manager, reconcileTimeoutMs: options.reconcileMs, readyTimeoutMs: parts.readyMs })
    api?.serve(vm)
    watcher?.serves(vm)
    // First of all: nothing is to be asked of a VM that is being closed.
    closers.push(async () => {
      await Promise.all([api?.close(), watcher?.close()])
    })
    return { vm, machine, manager, address, close, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close().catch((failed: AggregateError) => {
      throw new AggregateError([error, ...failed.errors], `${messageFor(error)}; ${messageFor(failed)}`)
    })
    throw error
  }
}

/** The guest may boot or restart, so that a later attempt may succeed whatever the reason was. */
async function dialGuest(route: () => Promise<Duplex | undefined> | Duplex | undefined): Promise<Duplex> {
  const fields = { code: 'NOT_READY', op: 'connect', subject: `port ${UPCALL_PORT}`, retryable: true } as const
  let stream: Duplex | undefined
  try {
    stream = await route()
  } catch (cause) {
    throw new VmError({ ...fields, what: textOf(cause), cause })
  }
  if (stream === undefined) throw new VmError({ ...fields, what: 'there is no listener in the guest' })
  return stream
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
  if (failed.length > 0) throw new AggregateError(failed, `close: ${failed.map(messageFor).join('; ')}`)
}

function logConnections(hybrid: HybridServer, log: Log): void {
  hybrid.on('connection', ({ port, hostPort }) => log.debug({ port, hostPort }, 'vsock connection'))
  hybrid.on('refused', ({ port, reason }) => log.debug({ port, reason }, 'vsock connection refused'))
  hybrid.on('error', (error) => log.warn({ error: messageFor(error) }, 'vsock accept failed'))
}
