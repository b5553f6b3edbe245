import type { Duplex } from 'node:stream'
import { MessagePort } from 'node:worker_threads'
import { wrongType } from '@upcall/foundation/check'
import type { Clock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { Alarm } from './alarm.js'
import type { TrunkLink } from './machine/trunk/link.js'
import type { LinkEnd } from './machine/trunk/link-life.js'
import type { Trunks } from './machine/trunk/trunks.js'

export type { LinkEnd } from './machine/trunk/link-life.js'

/** A link from one network to another, as `network.link()` returns it. */
export interface NetworkLink extends Disposable {
  /** The peer has answered, and the two networks tell each other of their guests. */
  readonly isUp: boolean
  /** Resolves with true when the link is up, and with false when it is over before that. Never rejects. */
  readonly opened: Promise<boolean>
  /** Resolves with the reason when the link is over. Never rejects. */
  readonly closed: Promise<LinkEnd>
  /** Ends it: connections over it are reset, and the transport is closed. Idempotent. */
  close(): void
}

/** What carries the bytes of a link. */
interface Transport {
  /** False if no more is to be sent before `onDrain`. */
  send(bytes: Uint8Array): boolean
  close(): void
}

interface TransportHandlers {
  readonly onBytes: (bytes: Uint8Array) => void
  readonly onDrain: () => void
  readonly onEnd: (end: LinkEnd) => void
}

/** Runs one end of a link: passes bytes between the machine and the transport, and wakes it. */
export class LinkDriver implements NetworkLink {
  readonly opened: Promise<boolean>
  readonly closed: Promise<LinkEnd>
  readonly #link: TrunkLink
  readonly #clock: Clock
  readonly #transport: Transport
  readonly #alarm: Alarm
  readonly #resolve: (end: LinkEnd) => void
  readonly #settleOpened: (isUp: boolean) => void
  #planned = false
  /** The transport has enough for now. */
  #full = false
  #over = false

  /** @throws TypeError for anything but a MessagePort or a Duplex. */
  constructor(trunks: Trunks, clock: Clock, transport: unknown) {
    this.#clock = clock
    let resolve!: (end: LinkEnd) => void
    this.closed = new Promise((done) => {
      resolve = done
    })
    this.#resolve = resolve
    let settleOpened!: (isUp: boolean) => void
    this.opened = new Promise((done) => {
      settleOpened = done
    })
    this.#settleOpened = settleOpened
    const open = opener(transport)
    this.#alarm = new Alarm(clock, () => {
      this.#link.wake(clock.now())
      this.#flush()
    })
    this.#link = trunks.link(() => this.#plan())
    this.#transport = open({
      onBytes: (bytes) => {
        this.#link.receive(bytes, clock.now())
        this.#follow()
      },
      onDrain: () => {
        this.#full = false
        this.#plan()
      },
      onEnd: (end) => this.#close(end),
    })
    this.#plan()
  }

  get isUp(): boolean {
    return this.#link.isUp
  }

  close(): void {
    this.#close({ reason: 'closed', what: 'by this side' })
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #close(end: LinkEnd): void {
    this.#link.close(end, this.#clock.now())
    this.#follow()
  }

  /** What a callback does to several guests goes out at once. */
  #plan(): void {
    if (this.#planned || this.#over) return
    this.#planned = true
    process.nextTick(() => {
      this.#planned = false
      this.#flush()
    })
  }

  #flush(): void {
    while (!this.#full) {
      const bytes = this.#link.next(this.#clock.now())
      if (bytes === undefined) break
      this.#full = !this.#transport.send(bytes)
    }
    this.#follow()
  }

  /** After everything that happens to the link: is it over, and when does it want to be woken? */
  #follow(): void {
    const { end, isUp, wakeAt } = this.#link
    if (isUp) this.#settleOpened(true)
    if (end !== undefined) this.#finish(end)
    else this.#alarm.set(wakeAt)
  }

  #finish(end: LinkEnd): void {
    if (this.#over) return
    this.#over = true
    this.#alarm.cancel()
    this.#transport.close()
    this.#settleOpened(false)
    this.#resolve(end)
  }
}

function opener(transport: unknown): (handlers: TransportHandlers) => Transport {
  if (transport instanceof MessagePort) return (handlers) => overPort(transport, handlers)
  if (isDuplex(transport)) return (handlers) => overStream(transport, handlers)
  return wrongType('transport', 'a MessagePort or a Duplex', transport)
}

const isDuplex = (value: unknown): value is Duplex =>
  typeof value === 'object' && value !== null && 'write' in value && 'on' in value && 'destroy' in value

/** The peer's thread gets the bytes without a copy. Each side bounds what waits by its window. */
function overPort(port: MessagePort, { onBytes, onEnd }: TransportHandlers): Transport {
  const lost = () => onEnd({ reason: 'lost', what: 'the other side has closed the port, or its thread has ended' })
  port.on('message', (message: unknown) => {
    if (message instanceof Uint8Array) onBytes(message)
    else onEnd({ reason: 'protocol', what: 'a message that is not bytes' })
  })
  port.on('messageerror', (error) => onEnd({ reason: 'protocol', what: textOf(error) }))
  port.on('close', lost)
  return {
    send: (bytes) => {
      port.postMessage(bytes, [bytes.buffer as ArrayBuffer])
      return true
    },
    close: () => port.close(),
  }
}

function overStream(stream: Duplex, { onBytes, onDrain, onEnd }: TransportHandlers): Transport {
  stream.on('data', (bytes: unknown) => {
    if (bytes instanceof Uint8Array) onBytes(bytes)
    else onEnd({ reason: 'protocol', what: 'the stream does not carry bytes' })
  })
  stream.on('drain', onDrain)
  stream.on('end', () => onEnd({ reason: 'lost', what: 'the other side has ended the stream' }))
  stream.on('error', (error) => onEnd({ reason: 'lost', what: textOf(error) }))
  const closed = () => onEnd({ reason: 'lost', what: 'the stream was closed' })
  stream.on('close', closed)
  if (stream.destroyed) process.nextTick(closed)
  return { send: (bytes) => stream.write(bytes), close: () => void stream.destroy() }
}
