import type { GuestConnection, GuestSession } from '@upcall/server'
import {
  type CpuRequest,
  decodeRequest,
  encodeConnect,
  FrameDecoder,
  isWireError,
  MAGIC_VERSION,
  MESSAGE_SIZE,
  type MmioRequest,
  messageTypeName,
  overwriteReply,
  type PciRequest,
  type Request,
  readHeader,
} from '@upcall/wire'
import { type CpuAnswer, type GuestBackend, type MaybePromise, NO_REPLY, type NoReply } from './backend.js'
import { EINVAL, NO_COMMAND } from './errno.js'
import type { WireQuirks } from './quirks.js'

const NOTHING = new Uint8Array(0)

/**
 * One connection to the device manager, as the kernel's thread sees it: one request buffer and one reply buffer, both as old as the
 * connection. The kernel never clears them, and most of what a client has to be careful about follows from that.
 */
export class DeviceManagerSession implements GuestSession {
  readonly greeting: Uint8Array
  readonly #backend: GuestBackend
  readonly #connection: GuestConnection
  readonly #quirks: WireQuirks
  readonly #frames = new FrameDecoder()
  readonly #request = new Uint8Array(MESSAGE_SIZE)
  readonly #reply = encodeConnect()
  /** The reply buffer's `ret`. */
  #result = 0
  #dead = false
  /** The greeting of a connection that was opened while the guest was paused. */
  #owed: Uint8Array[] = []

  constructor(backend: GuestBackend, connection: GuestConnection, quirks: WireQuirks) {
    this.#backend = backend
    this.#connection = connection
    this.#quirks = quirks
    backend.opened?.(connection)
    const greeting = encodeConnect()
    const stopped = backend.stopped?.() !== undefined
    this.greeting = stopped ? NOTHING : greeting
    if (stopped) this.#owed.push(greeting)
  }

  receive(chunk: Uint8Array): MaybePromise<Uint8Array[]> {
    return this.#serve(this.#messages(chunk), 0, [])
  }

  close(): void {
    this.#dead = true
  }

  /** What the kernel takes for messages: the bytes of one read of at most 1024 bytes. */
  #messages(chunk: Uint8Array): Uint8Array[] {
    if (!this.#quirks.tornRequests) return this.#frames.push(chunk)
    const pieces: Uint8Array[] = []
    for (let at = 0; at < chunk.length; at += MESSAGE_SIZE) pieces.push(new Uint8Array(chunk.subarray(at, at + MESSAGE_SIZE)))
    return pieces
  }

  /** Serves in order, one at a time, in this turn as far as possible. */
  #serve(pieces: readonly Uint8Array[], from: number, replies: Uint8Array[]): MaybePromise<Uint8Array[]> {
    for (let i = from; i < pieces.length && !this.#dead; i++) {
      const reply = this.#answer(pieces[i]!)
      if (reply instanceof Promise) {
        return reply.then((reply) => {
          this.#send(reply, replies)
          return this.#serve(pieces, i + 1, replies)
        })
      }
      this.#send(reply, replies)
    }
    return replies
  }

  #send(reply: Uint8Array | NoReply, replies: Uint8Array[]): void {
    replies.push(...this.#owed.splice(0))
    if (reply === NO_REPLY) this.#dead = true
    else replies.push(reply)
  }

  #answer(piece: Uint8Array): MaybePromise<Uint8Array | NoReply> {
    return whenRunning(this.#backend, () => {
      // A short piece leaves the end of an earlier request in the buffer.
      this.#request.set(piece)
      const { magic, messageType } = readHeader(this.#request)
      if (magic !== MAGIC_VERSION) {
        return this.#write(messageType, this.#quirks.wrongMagicSucceeds ? this.#result : EINVAL)
      }
      const answer = this.#act(messageType)
      if (!(answer instanceof Promise)) return answer === NO_REPLY ? NO_REPLY : this.#reported(messageType, answer)
      // The guest may have been paused while it worked on this.
      return answer.then((answer) =>
        answer === NO_REPLY ? NO_REPLY : whenRunning(this.#backend, () => this.#reported(messageType, answer)),
      )
    })
  }

  #act(messageType: number): MaybePromise<CpuAnswer | NoReply> {
    const { cpu, mmio, pci } = this.#backend
    const type = messageTypeName(messageType)
    switch (type) {
      case 'ADD_CPU':
      case 'DEL_CPU': {
        if (cpu === undefined) break
        const request = this.#read<CpuRequest>()
        return native(type === 'ADD_CPU' ? cpu.add(request, this.#connection) : cpu.remove(request, this.#connection))
      }
      case 'ADD_MMIO':
      case 'DEL_MMIO': {
        if (mmio === undefined) break
        let request: MmioRequest
        try {
          request = this.#read()
        } catch (error) {
          if (isWireError(error) && error.code === 'SIZE') return { result: EINVAL }
          throw error
        }
        return asAnswer(type === 'ADD_MMIO' ? mmio.add(request, this.#connection) : mmio.remove(request, this.#connection))
      }
      case 'ADD_PCI':
      case 'DEL_PCI': {
        if (pci === undefined) break
        const request = this.#read<PciRequest>()
        return asAnswer(type === 'ADD_PCI' ? pci.add(request, this.#connection) : pci.remove(request, this.#connection))
      }
    }
    return { result: NO_COMMAND }
  }

  /** The request in the buffer; the header's type says which one it is. */
  #read<R extends Request>(): R {
    return decodeRequest(this.#request, this.#backend.arch) as R
  }

  #reported(messageType: number, { result, index }: CpuAnswer): Uint8Array {
    const type = messageTypeName(messageType)
    const pci = type === 'ADD_PCI' || type === 'DEL_PCI'
    // The PCI handlers set the result only when they fail.
    if (pci && result === 0 && this.#quirks.stalePciResult) return this.#write(messageType, this.#result)
    return this.#write(messageType, result, index)
  }

  #write(messageType: number, result: number, index?: number | undefined): Uint8Array {
    this.#result = result
    if (!this.#quirks.staleReplyBytes) this.#reply.fill(0)
    const { arch } = this.#backend
    if (index !== undefined && (result === 0 || this.#quirks.staleReplyBytes)) {
      // The kernel stores the index first, and takes the size back if the result is not a success.
      const value = arch === 'x86_64' ? { apicIdIndex: index } : { cpuId: index }
      const type = messageTypeName(messageType) === 'ADD_CPU' ? 'ADD_CPU' : 'DEL_CPU'
      overwriteReply({ type, result, ...value }, arch, this.#reply)
    }
    if (index === undefined || result !== 0)
      overwriteReply({ type: 'RAW', messageType, result, load: NOTHING }, arch, this.#reply)
    return this.#reply.slice()
  }
}

/** Takes the step now, or when the guest runs again. */
function whenRunning<T>(backend: GuestBackend, step: () => MaybePromise<T>): MaybePromise<T> {
  const stopped = native(backend.stopped?.())
  return stopped === undefined ? step() : stopped.then(() => whenRunning(backend, step))
}

function asAnswer(result: MaybePromise<number | NoReply>): MaybePromise<CpuAnswer | NoReply> {
  const answer = (result: number | NoReply) => (result === NO_REPLY ? NO_REPLY : { result })
  const given = native(result)
  return given instanceof Promise ? given.then(answer) : answer(given)
}

/** A backend may return promises of another kind or of another realm, as test runners make them. */
function native<T>(value: MaybePromise<T>): MaybePromise<T> {
  const then: unknown = typeof value === 'object' && value !== null && 'then' in value ? value.then : undefined
  return typeof then === 'function' ? Promise.resolve(value) : value
}
