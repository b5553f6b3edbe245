import { joinMessages } from '@upcall/foundation/join-messages'
import type { MessageSocket } from '@upcall/foundation/message-socket'
import { Draining } from './draining.js'
import type { GuestMessages } from './message-stream.js'

/** Whether a handler has answered with a message socket, and not with a stream. */
export function isMessageSocket(host: object): host is MessageSocket {
  return 'receive' in host && 'send' in host
}

/** Joins connections of messages with message sockets on the host, and limits the number of those that drain. */
export class HostMessages {
  readonly #draining: Draining<MessageSocket>

  /** @param max beyond so many that drain, the oldest is broken off. */
  constructor(max: number) {
    this.#draining = new Draining(max, (host, error) => host.destroy(error))
  }

  /** Joins both ways: see `joinMessages`. */
  join(guest: GuestMessages, host: MessageSocket): void {
    let kept = false
    const keep = () => {
      if (!kept) this.#draining.add(host)
      kept = true
    }
    guest.onGone = keep
    // Where both had ended, the guest's socket closes in order, and may do so before the host has taken its last message.
    void guest.closed.then(keep)
    void joinMessages(guest, host).then(() => this.#draining.delete(host))
  }
}
