import type { Duplex } from 'node:stream'
import type { VsockSocket } from './socket.js'

/**
 * Joins a dialer's socket with the guest's end, both ways, with backpressure. EOF of one side ends the writing to the other and
 * leaves the way back open, unless `halfClose` is false: then the dialer's EOF closes both. Neither outlives the other.
 */
export function join(socket: VsockSocket, guest: Duplex, halfClose: boolean): void {
  socket.pipe(guest)
  guest.pipe(socket)
  // 'close' follows an error on either side and does what there is to do.
  guest.on('error', () => {})

  if (!halfClose) {
    socket.once('end', () => {
      guest.unpipe(socket)
      // What the guest still says goes nowhere, so that it can come to its end.
      guest.resume()
      socket.destroySoon()
    })
  }

  guest.once('close', () => {
    // What the guest said before it went reaches the dialer.
    if (!socket.destroyed) socket.destroySoon()
  })

  socket.once('close', () => {
    if (guest.destroyed) return
    // A dialer that ended in order may have left the guest some reading; one that broke off takes the guest's end with it.
    const complete = socket.readableEnded && !guest.writableFinished && guest.writableEnded
    if (!complete) return void guest.destroy()
    guest.once('finish', () => guest.destroy())
    guest.resume()
  })
}
