import { channel } from 'node:diagnostics_channel'
import type { DeviceCounters, DeviceState } from '@upcall/vhost-user'
import type { ObservedDevice } from '../src/observe/devices.js'

/** A device that counts what a test says, and tells what a test says. To the guest goes twice what comes from it. */
export class FakeDevice implements ObservedDevice {
  readonly guestCid: number
  state: DeviceState = 'running'
  connections = 0
  #packets = 0
  #bytes = 0
  #stalls = 0

  constructor(guestCid: number) {
    this.guestCid = guestCid
  }

  get counters(): DeviceCounters {
    return {
      fromGuest: { packets: this.#packets, bytes: this.#bytes },
      toGuest: { packets: 2 * this.#packets, bytes: 2 * this.#bytes },
      connections: { fromGuest: 0, toGuest: 0 },
      interrupts: { rx: 0, tx: 0 },
      creditStalls: this.#stalls,
      dropped: 0,
      kicks: 0,
    }
  }

  count({ packets = 0, bytes = 0, stalls = 0 }: { packets?: number; bytes?: number; stalls?: number }): void {
    this.#packets += packets
    this.#bytes += bytes
    this.#stalls += stalls
  }

  tell(message: { readonly type: string; readonly [field: string]: unknown }): void {
    channel('upcall:vhost-user').publish({ device: this, ...message })
  }
}
