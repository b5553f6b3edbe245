/** Packets of virtio-vsock in one direction. */
export interface Traffic {
  /** Every packet, those without payload included. */
  readonly packets: number
  /** Their payload, without headers. */
  readonly bytes: number
}

/** What a device has counted since it was made, over all the VMMs that it had. The numbers only grow. */
export interface DeviceCounters {
  readonly fromGuest: Traffic
  readonly toGuest: Traffic
  /** Connections that were begun: by the guest, and by the host or another guest. Those that were refused before do not count. */
  readonly connections: { readonly fromGuest: number; readonly toGuest: number }
  /** Packets of the guest that were thrown away: they did not come from its own CID. */
  readonly dropped: number
  /** How often bytes of the host began to wait because the guest's buffer was full. Connections between guests have credit of their own. */
  readonly creditStalls: number
  /** Interrupts of the guest: for packets to it, and for its transmit buffers that it has back. */
  readonly interrupts: { readonly rx: number; readonly tx: number }
  /** How often the guest woke the device. */
  readonly kicks: number
}

type Direction = 'fromGuest' | 'toGuest'

/** Counts, at the price of an addition. It outlives the VMMs of its device. */
export class Tally {
  readonly #traffic = { fromGuest: { packets: 0, bytes: 0 }, toGuest: { packets: 0, bytes: 0 } }
  readonly #connections = { fromGuest: 0, toGuest: 0 }
  readonly interrupts = { rx: 0, tx: 0 }
  dropped = 0
  creditStalls = 0
  kicks = 0

  /** A packet has moved. @param bytes - Of its payload. */
  moved(direction: Direction, bytes: number): void {
    const traffic = this.#traffic[direction]
    traffic.packets++
    traffic.bytes += bytes
  }

  /** A connection has begun. */
  begun(direction: Direction): void {
    this.#connections[direction]++
  }

  /** A copy of all the numbers. */
  read(): DeviceCounters {
    const { dropped, creditStalls, kicks } = this
    return {
      fromGuest: { ...this.#traffic.fromGuest },
      toGuest: { ...this.#traffic.toGuest },
      connections: { ...this.#connections },
      interrupts: { ...this.interrupts },
      ...{ dropped, creditStalls, kicks },
    }
  }
}
