import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { joinStreams } from '@upcall/foundation/join'
import { VsockDeviceError } from './errors.js'

/** A stream into the guest, as `Leavers` needs it. */
export interface Guest extends Duplex {
  /** Set by `join`: called when the connection is over, which may be long before the stream has yielded its last bytes. */
  onGone?: (() => void) | undefined
}

/**
 * Joins streams into the guest with streams on the host, and remembers the hosts whose guest is gone and that have its last words yet to
 * take: a guest must not be able to leave ever more of them behind.
 */
export class Leavers {
  readonly #max: number
  readonly #hosts = new Set<Duplex>()

  /** @param max beyond so many, the oldest is broken off. */
  constructor(max: number) {
    this.#max = max
  }

  /**
   * Both ways, with backpressure. EOF of one ends the writing to the other and leaves the way back open.
   *
   * - A host that ends in order and closes: the guest gets everything, however slowly it reads. What the guest still says goes nowhere.
   *   So it is for a host of which only a failed write (`EPIPE`) tells that it has closed.
   * - A host that fails, or closes before its end was read: the guest's connection is reset.
   * - A guest that closes: the host gets everything and its end. What the host still says goes nowhere, and if anything did, the
   *   host is destroyed with `EPIPE` after that.
   * - A guest that is reset, breaks the rules, or is gone before its end: the host gets what came, then it is broken off.
   */
  join(guest: Guest, host: Duplex): void {
    guest.onGone = () => this.#keep(host)
    guest.once('close', () => this.#keep(host))
    joinStreams(
      { stream: guest, closeError: () => undefined, breakOff: (error) => void guest.destroy(error) },
      {
        stream: host,
        closeError: ({ lost, errored }) => errored ?? (lost > 0 ? lostError() : undefined),
        breakOff: (_error, whenTaken) => whenTaken(() => this.breakOff(host, guest.errored ?? undefined)),
      },
    )
  }

  /**
   * Destroys a stream so that its other end can see that this is no orderly end: a TCP socket is reset, whatever it has yet to deliver.
   * On a Unix socket there is no such thing; its other end sees the same EOF either way, unless it has written what was not read
   * here (`ECONNRESET`).
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
    if (host.destroyed || this.#hosts.has(host)) return
    this.#hosts.add(host)
    host.once('close', () => this.#hosts.delete(host))
    const [oldest] = this.#hosts
    if (this.#hosts.size > this.#max && oldest !== undefined) this.breakOff(oldest, tooMany(this.#max))
  }
}

const lostError = () =>
  new VsockDeviceError({
    code: 'EPIPE',
    subject: 'joined stream',
    what: 'the guest has closed, and bytes for it were dropped',
    next: 'end before the guest does',
  })

const tooMany = (max: number) =>
  new VsockDeviceError({
    code: 'ECONNRESET',
    subject: 'joined stream',
    what: `the guest has gone, and ${max} streams joined later have its last bytes yet to take as well`,
    next: 'read faster, or raise maxConnections',
  })
