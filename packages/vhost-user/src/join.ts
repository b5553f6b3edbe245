import type { Duplex } from 'node:stream'

/**
 * Joins streams into the guest with streams on the host, and remembers the hosts whose guest is gone and that have its last words yet to
 * take: a guest must not be able to leave ever more of them behind.
 */
export class Leavers {
  readonly #max: number
  readonly #hosts = new Set<Duplex>()

  /** @param max beyond so many, the oldest is destroyed. */
  constructor(max: number) {
    this.#max = max
  }

  /**
   * Both ways, with backpressure. EOF of one ends the writing to the other and leaves the way back open. When the guest is gone, the host
   * first gets what it said before; a host that breaks off takes the guest's connection with it.
   */
  join(guest: Duplex, host: Duplex): void {
    guest.pipe(host)
    host.pipe(guest)
    for (const [gone, other] of [
      [guest, host],
      [host, guest],
    ] as const) {
      // 'close' follows and does what there is to do.
      gone.on('error', () => {})
      gone.once('close', () => {
        if (other.destroyed) return
        // Nobody takes what the other says any more: let it come to its end.
        other.resume()
        if (gone.readableEnded || gone === guest) other.end(() => other.destroy())
        else other.destroy()
        if (gone === guest) this.#keep(host)
      })
    }
  }

  #keep(host: Duplex): void {
    this.#hosts.add(host)
    host.once('close', () => this.#hosts.delete(host))
    const [oldest] = this.#hosts
    if (this.#hosts.size > this.#max) oldest?.destroy()
  }
}
