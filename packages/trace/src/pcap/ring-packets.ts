// Which of the packets that pass the rings of several devices are new: one guest's packet to another passes two rings.

/** Flows from one guest to another that are remembered. Of more, that with the longest silence is forgotten. */
const MOST_FLOWS = 16_384

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
 * Tells the packets that were seen before, at the ring of their sender. What comes to a guest on a flow that was seen to leave another is
 * that. Only a reset may come in a guest's name without its doing: the switch sends it for a guest that is not there or may not be reached.
 */
export class RingPackets {
  /** In the order of their last packets; whether a reset was the last. */
  readonly #flows = new Map<string, boolean>()

  isNew({ guestCid, direction, source, destination, op }: RingPacket): boolean {
    const flow = `${source.cid}:${source.port} ${destination.cid}:${destination.port}`
    if (direction === 'from-guest') {
      this.#remember(flow, op === RST)
      return true
    }
    const wasReset = source.cid === BigInt(guestCid) ? undefined : this.#flows.get(flow)
    if (wasReset === undefined) return true
    if (op !== RST) return false
    return !(wasReset && this.#flows.delete(flow))
  }

  #remember(flow: string, isReset: boolean): void {
    this.#flows.delete(flow)
    this.#flows.set(flow, isReset)
    if (this.#flows.size > MOST_FLOWS) this.#flows.delete(this.#flows.keys().next().value!)
  }
}
