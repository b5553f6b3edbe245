import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { joinStreams } from '@upcall/foundation/join'
import { Draining } from './draining.js'
import { VsockDeviceError } from './errors.js'

/** A stream into the guest, as it is joined with a host's. */
export interface Guest extends Duplex {
  /** Set by `join`: called when the connection is over, which may be long before the stream has yielded its last bytes. */
  onGone?: (() => void) | undefined
}

/** Joins streams into the guest with streams on the host, and limits the number of host streams that drain. */
export class HostStreams {
  readonly #draining: Draining<Duplex>

  /** @param max beyond so many that drain, the oldest is broken off. */
  constructor(max: number) {
    this.#draining = new Draining(max, (host, error) => this.breakOff(host, error))
  }

  /**
   * Joins both ways, with backpressure. EOF of one side ends the writing to the other and leaves the way back open.
   *
   * - A host that ends in order and closes: the guest gets everything, however slowly it reads. What the guest still sends is dropped.
   *   The same holds for a host of which only a failed write (`EPIPE`) tells that it has closed.
   * - A host that fails, or closes before its end was read: the guest's connection is reset.
   * - A guest that closes: the host gets everything and its end. What the host still sends is dropped, and if there was any of it, the
   *   host is destroyed with `EPIPE` after that.
   * - A guest that is reset, breaks the rules, or is gone before its end: the host gets what arrived, then it is broken off.
   */
  join(guest: Guest, host: Duplex): void {
    guest.onGone = () => this.#keep(host)
    guest.once('close', () => this.#keep(host))
    host.once('close', () => this.#draining.delete(host))
    joinStreams(
      { stream: guest, closeError: () => undefined, breakOff: (error) => void guest.destroy(error) },
      {
        stream: host,
        keepsTcp: true,
        closeError: ({ lost, errored }) => errored ?? (lost > 0 ? lostError() : undefined),
        breakOff: (_error, whenTaken) => whenTaken(() => this.breakOff(host, guest.errored ?? undefined)),
      },
    )
  }

  /**
   * Destroys a stream so that its other end can see that it did not end in order: a TCP socket is reset, whatever it has yet to deliver.
   * A Unix socket cannot be reset. Its other end sees the same EOF either way, unless it has written bytes that were not read here
   * (`ECONNRESET`).
   */
  breakOff(host: Duplex, error: Error | undefined): void {
    // libuv refuses a reset while an end is under way, and Node then never closes the socket.
    const ending = host.writableEnded && !host.writableFinished
    try {
      // Of the sockets that have it, those of Unix throw.
      if (error !== undefined && !ending) (host as Partial<Socket>).resetAndDestroy?.()
    } catch {}
    host.destroy(error)
  }

  #keep(host: Duplex): void {
    if (!host.destroyed) this.#draining.add(host)
  }
}

const lostError = () =>
  new VsockDeviceError({
    code: 'EPIPE',
    subject: 'joined stream',
    what: 'the guest has closed, and bytes for it were dropped',
    next: 'End the stream before the guest closes.',
  })
