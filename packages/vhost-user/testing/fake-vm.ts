import { type Budget, VsockDevice, type Work } from '../src/machine/device.js'
import type { MuxerOptions } from '../src/machine/muxer.js'
import { SplitRing } from '../src/machine/vring.js'
import { FakeGuest, GUEST_CID } from './fake-guest.js'

export const OPTIONS: MuxerOptions = {
  guestCid: GUEST_CID,
  maxConnections: 1023,
  bufferBytes: 64 * 1024,
  handshakeMs: 2_000,
  lingerMs: 8_000,
  allocate: (size) => new Uint8Array(size),
}

/** A device and a guest on the same memory, in virtual time. */
export class FakeVm {
  readonly guest: FakeGuest
  readonly device: VsockDevice
  rx: SplitRing
  tx: SplitRing
  now = 1_000

  constructor(
    options: Partial<MuxerOptions> = {},
    { size = 128, budget, memory }: { size?: number; budget?: Budget; memory?: Uint8Array } = {},
  ) {
    this.guest = new FakeGuest({ size, ...(memory && { memory }) })
    this.device = new VsockDevice({ ...OPTIONS, ...options }, budget)
    this.rx = new SplitRing(this.guest.memory, this.guest.rx.layout, this.guest.features, 0)
    this.tx = new SplitRing(this.guest.memory, this.guest.tx.layout, this.guest.features, 0)
  }

  /** Takes the rings up again after a fault, wherever the guest has them now. */
  restart(): void {
    this.rx = new SplitRing(this.guest.memory, this.guest.rx.layout, this.guest.features, this.guest.rx.availIndex)
    this.tx = new SplitRing(this.guest.memory, this.guest.tx.layout, this.guest.features, this.guest.tx.availIndex)
  }

  /** One call of `process`, unless the budget makes it several. Bounded: a device that never rests fails the test. */
  run(): Work {
    for (let turn = 0; turn < 1_000; turn++) {
      const work = this.device.process(this.rx, this.tx, this.now)
      if (!work.more) return work
    }
    throw new Error('the device does not come to rest')
  }

  /** Lets the time pass. */
  advance(ms: number): void {
    this.now += ms
    this.device.muxer.handleTimeout(this.now)
  }
}
