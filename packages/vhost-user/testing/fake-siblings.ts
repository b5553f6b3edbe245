import type { DeviceOptions } from '../src/machine/device.js'
import { Op, type PacketHeader } from '../src/machine/packet.js'
import { type Refusal, VsockSwitch } from '../src/machine/switch/switch.js'
import type { GuestPacket } from './fake-guest.js'
import { FakeVm, OPTIONS } from './fake-vm.js'

/** Guests on one switch, in virtual time. */
export class FakeSiblings {
  readonly refusals: Refusal[] = []
  readonly switch = new VsockSwitch({ onRefusal: (refusal) => this.refusals.push(refusal) })
  readonly vms: FakeVm[] = []

  constructor(cids: readonly number[] = [3, 4], options: Partial<DeviceOptions> = {}) {
    for (const cid of cids) this.add(cid, options)
  }

  add(cid: number, options: Partial<DeviceOptions> = {}, groups: readonly string[] = ['default']): FakeVm {
    const port = this.switch.join({ ...OPTIONS, ...options, cid, groups })
    const vm = new FakeVm({ ...options, guestCid: cid }, { port })
    this.vms.push(vm)
    return vm
  }

  /** Until there is nothing left to do. */
  run(): void {
    for (let round = 0; round < 3; round++) for (const vm of this.vms) vm.run()
  }

  advance(ms: number): void {
    for (const vm of this.vms) vm.advance(ms)
    this.run()
  }
}

export const CALLER_PORT = 1111
export const CALLEE_PORT = 2222

/** A connection from the first guest to the second, both with many receive buffers of `room` bytes. */
export function joined(
  { type = 1, room = 1024, fields = {} as Partial<PacketHeader>, callee = {} as Partial<PacketHeader> } = {},
  siblings = new FakeSiblings(),
) {
  const [a, b] = siblings.vms as [FakeVm, FakeVm]
  for (const { guest } of [a, b]) guest.supply(20, room)
  const fromA = (op: number, more: Partial<PacketHeader> = {}, payload?: Uint8Array) =>
    a.guest.send(
      { op, type, sourcePort: CALLER_PORT, destinationCid: b.guest.cid, destinationPort: CALLEE_PORT, ...fields, ...more },
      payload,
    )
  const fromB = (op: number, more: Partial<PacketHeader> = {}, payload?: Uint8Array) =>
    b.guest.send(
      { op, type, sourcePort: CALLEE_PORT, destinationCid: a.guest.cid, destinationPort: CALLER_PORT, ...callee, ...more },
      payload,
    )
  fromA(Op.REQUEST)
  siblings.run()
  const request = b.guest.received()
  fromB(Op.RESPONSE)
  siblings.run()
  const response = a.guest.received()
  for (const { guest } of [a, b]) guest.supply(20, room)
  const heard = (vm: FakeVm): GuestPacket[] => {
    siblings.run()
    return vm.guest.received()
  }
  return { siblings, a, b, fromA, fromB, request, response, heard }
}
