import type { Duplex } from 'node:stream'

/**
 * Joins a stream into the guest with a stream on the host, both ways, with backpressure. EOF of one ends the writing to the other and
 * leaves the way back open. When the guest is gone, the host first gets what it said before; a host that breaks off takes the guest's
 * connection with it.
 */
export function join(guest: Duplex, host: Duplex): void {
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
    })
  }
}
