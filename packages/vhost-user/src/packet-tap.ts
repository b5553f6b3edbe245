import { channel } from 'node:diagnostics_channel'
import type { PacketDirection, Tap, TapListener } from './machine/tap.js'

/** What the diagnostics channel `upcall:vhost-user:packet` publishes: one packet that has passed one ring of one device. */
export interface TappedPacket {
  readonly socketPath: string
  /** The CID of the device's guest. */
  readonly guestCid: number
  /** When the device had it: milliseconds since 1970, with fractions down to microseconds. */
  readonly time: number
  readonly direction: PacketDirection
  /** The virtio header (virtio 1.2, 5.10.6), 44 bytes as they were in the ring; a hostile guest's may hold anything. */
  readonly header: Uint8Array
  /** At most 64 KiB, the most that a packet may have. */
  readonly payload: Uint8Array
}

const packets = channel('upcall:vhost-user:packet')

/** The tap of one device: publishes its packets while there is a subscriber. Nothing is kept: subscribers own the copies. */
export function packetTap(socketPath: string, guestCid: number): Tap {
  const publish: TapListener = (direction, header, payload) => {
    const time = performance.timeOrigin + performance.now()
    packets.publish({ socketPath, guestCid, time, direction, header, payload } satisfies TappedPacket)
  }
  return {
    get listener() {
      return packets.hasSubscribers ? publish : undefined
    },
  }
}
