import { EventEmitter, once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bdf, DeviceManager, formatBdf, parseBdf } from '@upcall/device-manager'
import { deviceManagerGuest, type SimulatedGuest, simulatedGuest } from '@upcall/device-manager/guest'
import { SkippingClock } from '@upcall/foundation/testing/skipping-clock'
import { UpcallServer } from '@upcall/server'
import { connect, listen } from '@upcall/vsock'
import type { Arch } from '@upcall/wire'
import { tappedService } from '../../device-manager/testing/tapped-service.js'
import type { Drive, PciDevice } from '../src/devices.js'
import { VmError } from '../src/error.js'
import { nextWindow, type Window } from '../src/mmio-space.js'
import { nextFunction, readBdf } from '../src/pci-bus.js'
import type { GuestReport, Machine, Spares } from '../src/port.js'
import { type Fault, faultyBackend, faultyService } from '../src/simulated/faults.js'
import { Vm } from '../src/vm.js'

const MIB = 2 ** 20
/** Deadline of each reply. Where it is meant to pass, it is skipped. */
const REPLY_MS = 30_000

/** A directory for sockets, with a short path, that goes with the test. */
export function temporaryDirectory(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'vmm-test-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** A machine whose guest lives in this process, and a list of what was done to the hardware and asked of the guest, in order. */
class RigMachine implements Machine {
  readonly events: string[] = []
  spares: Spares = { cpus: [], pci: [] }
  resets = 0
  readonly arch: Arch
  memory = 512 * 2 ** 20
  readonly cpus = new Set<number>()
  readonly pci = new Set<string>()
  readonly drives = new Set<string>()
  readonly faults: { fault: Fault | undefined; die(): void }
  /** Makes the next plug or start fail. */
  broken = false
  /** The lowest vCPU that cannot be started. */
  brokenFrom = Number.POSITIVE_INFINITY
  memoryFails: Error | undefined
  /** Happens with the next plug or start. */
  onPlug: (() => Promise<void>) | undefined
  guest: Machine['guest'] = 'booted'
  cut: () => Promise<void> = async () => {}
  #gone = new AbortController()
  guestGone = this.#gone.signal
  kernel: SimulatedGuest
  readonly #boot: (machine: RigMachine) => SimulatedGuest

  constructor(arch: Arch, cpus: number, boot: (machine: RigMachine) => SimulatedGuest) {
    this.arch = arch
    for (let id = 0; id < cpus; id++) this.cpus.add(id)
    this.faults = { fault: undefined, die: () => {} }
    this.#boot = boot
    this.kernel = boot(this)
  }

  async startCpus(ids: readonly number[]): Promise<void> {
    if (ids.some((id) => id >= this.brokenFrom)) throw new Error(`start ${ids}: the hardware is broken`)
    await this.#plug(`start ${ids}`)
    for (const id of ids) this.cpus.add(id)
  }

  async stopCpus(ids: readonly number[]): Promise<void> {
    if (ids.length > 0) this.events.push(`stop ${ids}`)
    for (const id of ids) this.cpus.delete(id)
  }

  checkMemory(bytes: number): void {
    if (bytes % MIB !== 0)
      throw new VmError({
        code: 'INVALID',
        op: 'vm.resize',
        subject: `${bytes} bytes of memory`,
        what: 'this machine takes whole MiB',
      })
  }

  hasMemory(bytes: number): boolean {
    return bytes === this.memory
  }

  async resizeMemory(bytes: number): Promise<void> {
    if (this.memoryFails) throw this.memoryFails
    await this.#plug(`memory ${bytes}`)
    this.memory = bytes
  }

  chooseWindow(taken: readonly Window[]): Window | undefined {
    return nextWindow(this.arch, taken)
  }

  async attachDrive({ id }: Drive): Promise<void> {
    await this.#plug(`attach ${id}`)
    this.drives.add(id)
  }

  async detachDrive({ id }: Drive): Promise<void> {
    this.events.push(`detach ${id}`)
    this.drives.delete(id)
  }

  choosePlace(taken: readonly Bdf[], bdf: string | undefined): Bdf | undefined {
    return bdf === undefined ? nextFunction(taken) : readBdf(bdf)
  }

  async plugPci({ place }: PciDevice): Promise<void> {
    await this.#plug(`plug ${formatBdf(place)}`)
    this.pci.add(formatBdf(place))
  }

  async unplugPci({ place }: PciDevice): Promise<void> {
    this.events.push(`unplug ${formatBdf(place)}`)
    this.pci.delete(formatBdf(place))
  }

  async report(): Promise<GuestReport | undefined> {
    if (this.guest === 'dead') return undefined
    const { booted, paused, crashed, cpus, mmio, pci } = this.kernel.state
    return { booted, paused, crashed, cpus: { online: cpus.online, present: cpus.present }, mmio, pci }
  }

  boot(): void {
    this.events.push('boot')
    this.guest = 'booted'
    this.resets++
    this.#gone = new AbortController()
    this.guestGone = this.#gone.signal
    this.kernel = this.#boot(this)
  }

  /** Ends the guest as a crash would. */
  async kill(): Promise<void> {
    this.guest = 'dead'
    this.#gone.abort(new Error('the guest was killed'))
    await this.cut()
  }

  /** The same hardware, a fresh guest. Resolves when all connections to the last one are cut. */
  async reboot(): Promise<void> {
    this.resets++
    this.kernel = this.#boot(this)
    await this.cut()
  }

  async #plug(event: string): Promise<void> {
    if (this.broken) throw new Error(`${event}: the hardware is broken`)
    this.events.push(event)
    await this.onPlug?.()
  }
}

export interface Rig extends AsyncDisposable {
  readonly vm: Vm
  readonly machine: RigMachine
  readonly manager: DeviceManager<Arch>
  /** The directory of its sockets. */
  readonly directory: string
  /** Another client of the same guest, which the rig closes at its end. */
  readonly connect: () => DeviceManager<Arch>
  /** Waits until the guest is asked the next time, and then lets the deadline of its reply pass. */
  readonly loseReply: () => Promise<void>
}

export interface RigOptions {
  arch?: Arch | undefined
  cpus?: number | undefined
  maxCpus?: number | undefined
  /** How long a reconcile may take, in milliseconds. */
  reconcileMs?: number | undefined
  /** Decides before each request whether and how the guest is broken. */
  onRequest?: ((what: string, machine: RigMachine) => void) | undefined
}

/** A VM over a real socket, with its guest in this process. */
export async function makeRig(options: RigOptions = {}): Promise<Rig> {
  const { arch = 'x86_64', cpus = 1, maxCpus = 8, reconcileMs = 20_000, onRequest } = options
  const temporary = temporaryDirectory()
  const address = { transport: 'unix', path: join(temporary.path, 'guest.sock') } as const
  const machine = new RigMachine(arch, cpus, ({ cpus, pci }) =>
    simulatedGuest({
      pci: [...pci].map((bdf) => parseBdf(bdf)),
      ...{ arch, cpus: cpus.size, maxCpus, kernel: '6.12' },
      hardware: { hasCpu: (id) => cpus.has(id), hasPci: (bus, devfn) => pci.has(formatBdf({ bus, devfn })) },
    }),
  )
  const requests = new EventEmitter()
  const service = () => {
    const { kernel, faults, events } = machine
    const told = <T extends unknown[], R>(what: string, ask: (...args: T) => R) => {
      return (...args: T): R => {
        events.push(what)
        onRequest?.(what, machine)
        return ask(...args)
      }
    }
    const faulty = faultyBackend(kernel, faults)
    const { cpu, mmio, pci } = faulty
    const backend = {
      ...faulty,
      cpu: cpu && { add: told('ADD_CPU', cpu.add), remove: told('DEL_CPU', cpu.remove) },
      mmio: mmio && { add: told('ADD_MMIO', mmio.add), remove: told('DEL_MMIO', mmio.remove) },
      pci: pci && { add: told('ADD_PCI', pci.add), remove: told('DEL_PCI', pci.remove) },
    }
    // The guest has got the request by then, though it may be paused and not look at it.
    return tappedService(faultyService(deviceManagerGuest(backend), faults), () => setImmediate(() => requests.emit('request')))
  }
  const servers = new Set<UpcallServer>()
  machine.cut = async () => {
    for (const server of servers) await server.close()
    servers.clear()
  }
  const port = await listen(address)
  port.on('connection', (stream) => {
    if (machine.guest === 'dead') return void stream.destroy()
    const server = new UpcallServer({ services: [service()] })
    servers.add(server)
    server.accept(stream)
  })
  const clock = new SkippingClock()
  const managers: DeviceManager<Arch>[] = []
  const connectTo = () => {
    const manager = new DeviceManager<Arch>({
      arch,
      dial: ({ signal }) => connect(address, { signal }),
      replyTimeouts: { cpuMs: REPLY_MS, otherMs: REPLY_MS },
      clock,
      reconnect: { maxDelayMs: 20 },
    })
    managers.push(manager)
    return manager
  }
  const manager = connectTo()
  await manager.ready({ timeoutMs: 20_000 })
  const vm = new Vm({ cpus, maxCpus, machine, manager, reconcileTimeoutMs: reconcileMs })
  return {
    vm,
    machine,
    manager,
    directory: temporary.path,
    connect: connectTo,
    async loseReply() {
      await once(requests, 'request')
      clock.skip(REPLY_MS)
    },
    async [Symbol.asyncDispose]() {
      for (const each of managers) await each.close()
      await machine.cut()
      await port.close()
      temporary[Symbol.dispose]()
    },
  }
}
