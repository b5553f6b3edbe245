// Which of the packets that pass the rings of several devices are new: one guest's packet to another passes two rings.

/** Resets that have left one guest and are not seen at the other. More than so many at once are forgotten, the oldest first. */
const MOST_RESETS = 4096

const RST = 3

/** The fields of a virtio-vsock header that say where a packet belongs: virtio 1.2, 5.10.6. */
export interface RingPacket {
  readonly guestCid: number
  readonly direction: 'from-guest' | 'to-guest'
  readonly source: { readonly cid: bigint; readonly port: number }
  readonly destination: { readonly cid: bigint; readonly port: number }
  readonly op: number
}

/**
 * Tells the packets that were seen before, at the ring of their sender. What a guest whose device is seen, too, has sent is that. Only a
 * reset may come in a guest's name without its doing: the switch sends one for a guest that is not there or may not be reached.
 */
export class RingPackets {
  readonly #guests = new Set<bigint>()
  readonly #resets = new Set<string>()

  isNew({ guestCid, direction, source, destination, op }: RingPacket): boolean {
    this.#guests.add(BigInt(guestCid))
    const isReset = op === RST
    if (direction === 'from-guest') {
      if (isReset) this.#remember(keyOf(source, destination))
      return true
    }
    if (!this.#guests.has(source.cid) || source.cid === BigInt(guestCid)) return true
    return isReset && !this.#resets.delete(keyOf(source, destination))
  }

  #remember(key: string): void {
    this.#resets.add(key)
    if (this.#resets.size <= MOST_RESETS) return
    for (const oldest of this.#resets) {
      this.#resets.delete(oldest)
      return
    }
  }
}

function keyOf(source: RingPacket['source'], destination: RingPacket['destination']): string {
  return `${source.cid}:${source.port} ${destination.cid}:${destination.port}`
}
