// Server-sent events: one answer that never ends for each open page.

import type { ServerResponse } from 'node:http'
import type { Clock } from '@upcall/client'
import { SECURITY_HEADERS } from './guard.js'

/** What may wait for a slow reader. Its connection is closed beyond that; the next one begins with everything at once. */
const MAX_WAITING = 1 << 20
/** Something is sent so often, so that the program notices a reader that is gone. */
const HEARTBEAT_MS = 15_000
const RETRY_MS = 1_000

/** The open pages. Owns their connections. */
export class EventStreams {
  readonly #clock: Clock
  readonly #max: number
  readonly #open = new Map<ServerResponse, () => void>()

  /** @param max - How many pages may be open at once. */
  constructor(clock: Clock, max: number) {
    this.#clock = clock
    this.#max = max
  }

  get size(): number {
    return this.#open.size
  }

  get isFull(): boolean {
    return this.#open.size >= this.#max
  }

  /** Takes an answer over. It ends when the page goes, does not read, or `close()` is called. */
  add(response: ServerResponse): void {
    response.writeHead(200, {
      ...SECURITY_HEADERS,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      connection: 'close',
    })
    let cancel = () => {}
    const beat = () => {
      this.#write(response, ': \n\n')
      cancel = this.#clock.setTimer(HEARTBEAT_MS, beat)
    }
    this.#open.set(response, () => cancel())
    response.on('error', () => {}).once('close', () => this.#drop(response))
    response.write(`retry: ${RETRY_MS}\n\n`)
    cancel = this.#clock.setTimer(HEARTBEAT_MS, beat)
  }

  /** To one page. */
  send(response: ServerResponse, name: string, data: object): void {
    this.#write(response, textOf(name, data))
  }

  /** To all pages. */
  tell(name: string, data: object): void {
    if (this.#open.size === 0) return
    const text = textOf(name, data)
    for (const response of [...this.#open.keys()]) this.#write(response, text)
  }

  close(): void {
    for (const response of [...this.#open.keys()]) this.#drop(response)
  }

  #write(response: ServerResponse, text: string): void {
    if (!this.#open.has(response)) return
    if (response.writableLength > MAX_WAITING) this.#drop(response)
    else response.write(text)
  }

  #drop(response: ServerResponse): void {
    this.#open.get(response)?.()
    this.#open.delete(response)
    response.destroy()
  }
}

function textOf(name: string, data: object): string {
  // JSON has no newline outside of its strings, and escapes those inside.
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
}
