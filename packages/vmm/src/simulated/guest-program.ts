// The guest's process: a simulated guest on a Unix socket that stands for its vsock port. Its hardware is what the VMM's process says
// over the channel of the fork, and it ends when that channel does.
import { setTimeout as delay } from 'node:timers/promises'
import { deviceManagerGuest, type SimulatedGuest, simulatedGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { listen } from '@upcall/vsock'
import { sameFunction } from '../pci-bus.js'
import type { GuestReport } from '../port.js'
import { type Faults, faultyBackend, faultyService } from './faults.js'
import type { Command, CommandMessage, GuestConfig, GuestMessage, Hardware } from './messages.js'

class Guest {
  readonly #config: GuestConfig
  readonly #kernel: SimulatedGuest
  readonly #faults: { fault: Faults['fault']; die(): void }
  #hardware: Hardware

  constructor(config: GuestConfig) {
    const { arch, kernel, cpus, maxCpus, mmio, pci } = config
    this.#config = config
    this.#hardware = config.hardware
    this.#faults = { fault: config.fault, die: () => process.kill(process.pid, 'SIGKILL') }
    this.#kernel = simulatedGuest({
      arch,
      kernel,
      cpus,
      maxCpus,
      mmio,
      pci,
      booting: true,
      hardware: {
        hasCpu: (id) => (this.#hardware === 'all' ? id < maxCpus : this.#hardware.cpus.includes(id)),
        hasPci: (bus, devfn) =>
          this.#hardware === 'all' ? bus === 0 : this.#hardware.pci.some((place) => sameFunction(place, { bus, devfn })),
      },
    })
  }

  async boot(): Promise<void> {
    const { bootMs, socket } = this.#config
    await delay(bootMs / 2)
    const service = deviceManagerGuest(faultyBackend(this.#kernel, this.#faults))
    const server = new UpcallServer({ services: [faultyService(service, this.#faults)] })
    const port = await listen({ transport: 'unix', path: socket }, { mode: 0o600 })
    port.on('connection', (stream) => server.accept(stream, { remote: 'VMM' }))
    await delay(bootMs / 2)
    this.#kernel.boot()
  }

  obey(command: Exclude<Command, { type: 'start' }>): GuestReport | undefined {
    switch (command.type) {
      case 'hardware':
        this.#hardware = command.hardware
        return undefined
      case 'pause':
        if (command.paused) this.#kernel.pause()
        else this.#kernel.resume()
        return undefined
      case 'fault':
        this.#faults.fault = command.fault
        return undefined
      case 'report': {
        const { booted, paused, crashed, cpus, mmio, pci } = this.#kernel.state
        return { booted, paused, crashed, cpus: { online: cpus.online, present: cpus.present }, mmio, pci }
      }
    }
  }
}

/** The program of a guest's process: the file that is forked calls this and does nothing else. */
export function runSimulatedGuest(): void {
  let guest: Guest | undefined
  const tell = (message: GuestMessage) => {
    // The VMM may go at any moment; 'disconnect' says so, and a failed send has nothing to add.
    process.send?.(message, () => {})
  }
  process.on('message', ({ id, command }: CommandMessage) => {
    if (command.type === 'start') {
      guest = new Guest(command.config)
      tell({ type: 'done', id })
      void guest.boot().then(() => tell({ type: 'booted' }))
    } else if (guest) {
      tell({ type: 'done', id, report: guest.obey(command) })
    }
  })
  process.on('disconnect', () => process.exit())
  // A terminal's ^C reaches the whole group. The VMM ends its guest itself.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})
}
