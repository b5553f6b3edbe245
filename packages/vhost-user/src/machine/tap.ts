/** Which way a packet goes. */
export type PacketDirection = 'from-guest' | 'to-guest'

/**
 * Sees one packet: a copy of its 44 header bytes, and one of its payload. A payload that the header claims to be longer than a packet may
 * be (64 KiB) is cut there.
 */
export type TapListener = (direction: PacketDirection, header: Uint8Array, payload: Uint8Array) => void

/** Who wants to see the packets. It is asked once for each trip to the rings. */
export interface Tap {
  readonly listener: TapListener | undefined
}
