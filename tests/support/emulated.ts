import { type Bdf, DeviceManager, parseBdf } from '@upcall/device-manager'
import { deviceManagerGuest, simulatedGuest } from '@upcall/device-manager/guest'
import { UpcallServer } from '@upcall/server'
import { duplexPair } from '@upcall/testkit'
import { QemuMachine, Slots } from '@upcall/vmm/qemu'
import type { Arch } from '@upcall/wire'
import { type Hardware, MEMORY_DEVICE, type ShimMachine } from '../../packages/vmm/src/qemu/hardware.js'
import { type Answer, FakeQemu } from '../../packages/vmm/testing/fake-qemu.js'

const MIB = 2 ** 20
const PERIPHERAL = '/machine/peripheral/'
const MAX_CPUS = 3

/** A QEMU that plugs devices into a list and ejects them at once, and a simulated guest that finds what is on the list. */
export async function emulated(type: ShimMachine) {
  let qemu!: FakeQemu
  let kernel!: ReturnType<typeof simulatedGuest>
  const servers = new Set<UpcallServer>()
  const cut = async () => {
    for (const server of servers) await server.close()
    servers.clear()
  }
  const slots = type === 'microvm' ? new Slots() : undefined
  const machine = new QemuMachine({
    slots,
    hardware: {
      ...{ machine: type, accel: 'tcg', cpus: [0], maxCpus: MAX_CPUS, vsockSocket: '/v', pci: [], args: slots?.args },
      memory: { boot: 512 * MIB, max: 1024 * MIB, plugged: 0 },
    },
    async launch(hardware) {
      const devices = new Devices(hardware)
      qemu = await FakeQemu.start(devices.answers((event, data) => qemu.emit(event, data)))
      kernel = simulatedGuest({
        ...{ arch: 'x86_64', kernel: '6.12', cpus: hardware.cpus.length, maxCpus: MAX_CPUS },
        pci: devices.places,
        hardware: {
          hasCpu: (id) => type === 'microvm' || devices.cpus.has(id),
          hasPci: (bus, devfn) => devices.places.some((place) => place.bus === bus && place.devfn === devfn),
        },
      })
      // Connections to the last kernel.
      await cut()
      return qemu
    },
    async report() {
      const { booted, paused, crashed, cpus, mmio, pci } = kernel.state
      return { booted, paused, crashed, cpus: { online: cpus.online }, mmio, pci }
    },
  })
  await machine.launched
  const manager = new DeviceManager<Arch>({
    arch: 'x86_64',
    reconnect: { maxDelayMs: 20 },
    async dial() {
      if (machine.guest === 'dead') throw Object.assign(new Error('there is no guest'), { code: 'ECONNREFUSED' })
      await machine.launched
      const [near, far] = duplexPair()
      const server = new UpcallServer({ services: [deviceManagerGuest(kernel)] })
      servers.add(server)
      server.accept(far)
      return near
    },
  })
  manager.client.on('state', ({ state }) => {
    if (state === 'ServiceConnected') machine.serves()
  })
  await manager.ready()
  return {
    machine,
    manager,
    async kill() {
      qemu.die()
      await cut()
    },
    async close() {
      await manager.close()
      await cut()
      await machine.stop()
    },
  }
}

/** What is plugged into one QEMU. */
class Devices {
  readonly cpus: Set<number>
  readonly #pci = new Map<string, Bdf>()
  #memory: number

  constructor({ cpus, pci, memory }: Hardware) {
    this.cpus = new Set(cpus)
    this.#memory = memory.plugged
    for (const { id, place } of pci) this.#pci.set(`pci-${id}`, place)
  }

  get places(): Bdf[] {
    return [...this.#pci.values()]
  }

  answers(emit: (event: string, data: object) => void): Record<string, Answer> {
    return {
      'query-hotpluggable-cpus': () =>
        Array.from({ length: MAX_CPUS }, (_, id) => ({
          ...{ type: 'max-x86_64-cpu', props: { 'socket-id': 0, 'core-id': id, 'thread-id': 0 } },
          ...(this.cpus.has(id) && { 'qom-path': `${PERIPHERAL}cpu-${id}` }),
        })),
      'query-pci': () => [
        {
          bus: 0,
          devices: [...this.#pci].map(([id, { bus, devfn }]) => ({ bus, slot: devfn >> 3, function: devfn & 7, qdev_id: id })),
        },
      ],
      'query-memory-devices': () => [{ type: 'virtio-mem', data: { id: MEMORY_DEVICE, size: this.#memory } }],
      device_add: (args) => {
        const id = String(args.id)
        if (id.startsWith('cpu-')) this.cpus.add(Number(args['core-id']))
        else this.#pci.set(id, placeOf(args))
      },
      device_del: ({ id: path }) => {
        const id = String(path).replace(PERIPHERAL, '')
        if (!this.#pci.delete(id)) throw Object.assign(new Error('not found'), { errorClass: 'DeviceNotFound' })
        setImmediate(() => emit('DEVICE_DELETED', { device: id, path }))
      },
      'qom-set': ({ property, value }) => {
        if (property === 'requested-size') this.#memory = Number(value)
      },
    }
  }
}

/** Behind a port of a q35, or at an address of a pc. */
function placeOf({ bus, addr }: Record<string, unknown>): Bdf {
  const port = /^port-(\d+)$/.exec(String(bus))?.[1]
  return port === undefined ? parseBdf(`00:${String(addr).replace('0x', '').padStart(4, '0')}`) : { bus: Number(port), devfn: 0 }
}
