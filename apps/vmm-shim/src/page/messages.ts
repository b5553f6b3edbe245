// What passes between the client and the guest, as the page shows it.

import type { ClientEvent } from '@upcall/trace'
import type { MessageView, Time } from './events.js'

/** A request whose reply is due, by its connection. */
type Titles = Map<number, string>

/** Makes views of a client's events. */
export class Messages {
  #count = 0
  readonly #asked: Titles = new Map()

  /** undefined for what is not shown: states, ends and single bytes. */
  view(event: ClientEvent, at: Time): MessageView | undefined {
    switch (event.type) {
      case 'message': {
        const { title, fields, rttMs, wrong } = event
        if (event.direction === 'to-guest') this.#asked.set(event.conn, oneSpace(title))
        return {
          ...this.#view(event, at, title),
          fields: fields.map(({ name, offset, length, value, meaning, wrong }) => ({
            ...{ name, offset, length, value, meaning },
            ...(wrong !== undefined && { wrong }),
          })),
          ...(rttMs !== undefined && { rttMs }),
          ...(wrong !== undefined && { wrong }),
        }
      }
      case 'garbage':
      case 'cut':
        return { ...this.#view(event, at, 'bytes that are not a message'), fields: [], wrong: event.what }
      default:
        return undefined
    }
  }

  /** What a reply answers: the title of its request. */
  requestOf({ conn }: ClientEvent): string | undefined {
    const title = this.#asked.get(conn)
    this.#asked.delete(conn)
    return title
  }

  #view({ direction, bytes }: ClientEvent & { bytes: Uint8Array }, at: Time, title: string): Omit<MessageView, 'fields'> {
    let end = bytes.length
    while (end > 0 && bytes[end - 1] === 0) end--
    const hex = Buffer.from(bytes.buffer, bytes.byteOffset, end).toString('hex')
    return { seq: ++this.#count, at, direction, title: oneSpace(title), hex, length: bytes.length }
  }
}

/** Titles are set in columns where they stand below each other. */
function oneSpace(title: string): string {
  return title.replace(/ +/g, ' ')
}
