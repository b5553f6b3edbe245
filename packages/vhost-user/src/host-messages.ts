import { joinMessages } from '@upcall/foundation/join-messages'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { tooManyError } from './errors.js'
import type { GuestMessages } from './message-stream.js'

/** Whether a handler has answered with a message socket, and not with a stream. */
export function isMessageSocket(host: object): host is MessageSocket {
  return 'receive' in host && 'send' in host
}

/**
 * Joins connections of messages with message sockets on the host. It remembers the host's sockets that drain: their guest is gone, and they
 * have its last messages yet to take. Their number is limited, or a guest could leave ever more of them.
 */
export class HostMessages {
  readonly #max: number
  readonly #draining = new Set<MessageSocket>()

  /** @param max beyond so many that drain, the oldest is broken off. */
  constructor(max: number) {
    this.#max = max
  }

  /** Joins both ways: see `joinMessages`. */
  join(guest: GuestMessages, host: MessageSocket): void {
    let kept = false
    const keep = () => {
      if (!kept) this.#keep(host)
      kept = true
    }
    guest.onGone = keep
    // Where both had ended, the guest's socket closes in order, and may do so before the host has taken its last message.
    void guest.closed.then(keep)
    void joinMessages(guest, host).then(() => this.#draining.delete(host))
  }

  #keep(host: MessageSocket): void {
    this.#draining.add(host)
    const [oldest] = this.#draining
    if (this.#draining.size <= this.#max || oldest === undefined) return
    this.#draining.delete(oldest)
    oldest.destroy(tooManyError(this.#max))
  }
}
