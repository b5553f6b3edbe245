import { expect } from 'vitest'
import type { Connection } from '../src/machine/connection.js'
import { type Budget, type DeviceOptions, VsockDevice } from '../src/machine/device.js'
import { Op, type SocketType, typeCode } from '../src/machine/packet.js'
import type { SwitchPort } from '../src/machine/switch/port.js'
import type { Tap } from '../src/machine/tap.js'
import { SplitRing } from '../src/machine/vring.js'
import { FakeGuest, GUEST_CID, type GuestPacket, opName } from './fake-guest.js'

export const OPTIONS: DeviceOptions = {
  guestCid: GUEST_CID,
  maxConnections: 1023,
  bufferBytes: 64 * 1024,
  handshakeMs: 2_000,
  lingerMs: 8_000,
  allocate: (size) => new Uint8Array(size),
}

interface Surroundings {
  readonly size?: number
  readonly budget?: Budget
  readonly memory?: Uint8Array
  readonly port?: SwitchPort
  readonly tap?: Tap
}

/** A device and a guest on the same memory, in virtual time. */
export class FakeVm {
  readonly guest: FakeGuest
  readonly device: VsockDevice
  rx: SplitRing
  tx: SplitRing
  now = 1_000

  constructor(options: Partial<DeviceOptions> = {}, { size = 128, budget, memory, port, tap }: Surroundings = {}) {
    this.guest = new FakeGuest({ size, cid: options.guestCid, ...(memory && { memory }) })
    this.device = new VsockDevice({ ...OPTIONS, ...options }, { budget, port, tap })
    this.rx = new SplitRing(this.guest.memory, this.guest.rx.layout, this.guest.features, 0)
    this.tx = new SplitRing(this.guest.memory, this.guest.tx.layout, this.guest.features, 0)
  }

  /** Takes the rings up again after a fault, wherever the guest has them now. */
  restart(): void {
    this.rx = new SplitRing(this.guest.memory, this.guest.rx.layout, this.guest.features, this.guest.rx.availIndex)
    this.tx = new SplitRing(this.guest.memory, this.guest.tx.layout, this.guest.features, this.guest.tx.availIndex)
  }

  /** One call of `process`, unless the budget makes it several. Bounded: a device that never rests fails the test. */
  run(): void {
    for (let turn = 0; turn < 1_000; turn++) {
      if (!this.device.process(this.rx, this.tx, this.now)) return
    }
    throw new Error('the device does not come to rest')
  }

  /** Lets the time pass. */
  advance(ms: number): void {
    this.now += ms
    this.device.wake(this.now)
  }
}

export const GUEST_PORT = 5000

/** A connection from the host, after its handshake. */
export function open(
  vm: FakeVm,
  fields: { bufferAllocation?: number; forwardCount?: number } = {},
  { room = 1024, type = 'stream' as SocketType } = {},
): Connection {
  vm.guest.supply(20, room)
  vm.device.muxer.seqpacket = type === 'seqpacket'
  const connection = vm.device.muxer.connect(GUEST_PORT, vm.now, type)!
  vm.run()
  expect(vm.guest.received().map(opName)).toEqual(['REQUEST'])
  reply(vm, connection, Op.RESPONSE, fields)
  vm.run()
  expect(connection.state).toBe('open')
  vm.guest.supply(20, room)
  return connection
}

export function reply(vm: FakeVm, connection: Connection, op: number, fields = {}, payload?: Uint8Array): void {
  const { hostPort: destinationPort, guestPort: sourcePort } = connection
  vm.guest.send({ op, sourcePort, destinationPort, type: typeCode(connection.type), ...fields }, payload)
}

/** Runs the device and lists what it said. */
export function heard(vm: FakeVm): GuestPacket[] {
  vm.run()
  return vm.guest.received()
}

export function readAll(connection: Connection): number[] {
  const bytes: number[] = []
  for (let chunk = connection.read(); chunk !== undefined; chunk = connection.read()) bytes.push(...chunk)
  return bytes
}
