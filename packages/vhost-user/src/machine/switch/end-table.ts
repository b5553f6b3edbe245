import { ConnectionTable } from '../connection-table.js'
import { entry } from '../entry.js'
import type { EndAddress } from './end.js'

/** The ends at one port: by the guest's CID, by the other guest's, and by the two ports. */
export class EndTable<End extends EndAddress> {
  readonly #byCid = new Map<number, Map<number, ConnectionTable<End>>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The end of the guest that sends from `cid` and `guestPort`. */
  get(cid: number, guestPort: number, peerCid: number, hostPort: number): End | undefined {
    return this.#byCid.get(cid)?.get(peerCid)?.get(hostPort, guestPort)
  }

  /** Its address is not in the table yet. */
  add(end: End): void {
    const peers = entry(this.#byCid, end.cid, () => new Map<number, ConnectionTable<End>>())
    const table = entry(peers, end.peerCid, () => new ConnectionTable<End>())
    table.add(end)
    this.#size++
  }

  /** False if it is not in the table. */
  delete(end: End): boolean {
    const peers = this.#byCid.get(end.cid)
    const table = peers?.get(end.peerCid)
    if (!table?.delete(end)) return false
    this.#size--
    if (table.size === 0) peers!.delete(end.peerCid)
    if (peers!.size === 0) this.#byCid.delete(end.cid)
    return true
  }

  /** All of them, in a list that stays as it is while the table changes. */
  all(): End[] {
    return [...this.#byCid.values()].flatMap((peers) => [...peers.values()].flatMap((table) => table.all()))
  }
}
