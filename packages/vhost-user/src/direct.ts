import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Connection } from './machine/connection.js'
import type { DirectPort } from './machine/direct.js'
import type { Pieces } from './machine/pieces.js'
import type { Binding, Descriptor } from './native/binding.js'

// This file uses `_handle` of a net.Socket: its number, and what starts and stops its reading; and `_readableState`: whether it has read
// the end. CI runs it on Node 20, 22, 24 and 26.

/** What moves bytes between a socket and memory. */
type DirectBinding = Pick<
  Binding,
  'duplicate' | 'readInto' | 'writeFrom' | 'watch' | 'unwatch' | 'ref' | 'unref' | 'close' | 'READABLE' | 'PRIORITIZED'
>

export interface DirectOptions {
  readonly binding: DirectBinding
  /** Calls `tell`, which tells a connection that bytes have arrived, and sees to what comes of it. */
  arrive(tell: () => void): void
}

interface Handle {
  readonly constructor: { readonly name: string }
  readonly fd?: number
  reading?: boolean
  readStart?(): number
  readStop?(): number
  hasRef?(): boolean
}

/** A connection with fewer news than that is over soon, and not worth another descriptor. Tests set it to 0: from the beginning. */
export const tuning = { firstNews: 2 }
/** As much as libuv reads at once. */
const CHUNK = 64 * 1024
const LAST_CHUNKS = 16

/**
 * Lets the bytes of a joined socket go straight between the kernel and the guest's buffers. The two streams stay joined, and decide
 * everything else: while both are open and nothing waits in them, this reads and writes below them, by another descriptor of the socket.
 * What is not plain is left to them: the end, a failed write, bytes that the socket does not take at once, and whatever one of the two
 * has in its buffer. They see it as if they had carried all bytes.
 */
export class DirectSocket implements DirectPort {
  readonly #options: DirectOptions
  readonly #binding: DirectBinding
  readonly #connection: Connection
  readonly #guest: Duplex
  readonly #socket: Socket
  /** Once it has ended its own direction, its class wants to see what comes. */
  readonly #counts: boolean
  #descriptor: Descriptor | undefined
  #newsLeft = tuning.firstNews
  /** Who reads the socket: Node; none, until the streams have handed on what they hold; this; and then Node for good. */
  #reader: 'node' | 'none' | 'this' | 'node again' = 'node'
  #looking = false
  /** What is waited for. Errors alone: while the guest takes no bytes. */
  #watched: 'nothing' | 'bytes' | 'errors' = 'nothing'
  #closed = false
  /** The connection knows that there are bytes, and has yet to come for them. */
  #told = false

  /** Undefined for a stream that is not a plain socket: other code may be between it and its handle. */
  static between(options: DirectOptions, connection: Connection, guest: Duplex, host: Duplex): DirectSocket | undefined {
    return isPlain(host) ? new DirectSocket(options, connection, guest, host) : undefined
  }

  private constructor(options: DirectOptions, connection: Connection, guest: Duplex, socket: Socket) {
    this.#options = options
    this.#binding = options.binding
    this.#connection = connection
    this.#guest = guest
    this.#socket = socket
    this.#counts = isDerived(socket)
    socket.once('close', () => this.close())
    if (this.#newsLeft === 0) this.#stopNode()
  }

  /** The connection has changed, and its stream knows. */
  news(): void {
    if (this.#closed || this.#newsLeft-- > 0) return
    this.#newsLeft = 0
    if (this.#connection.state !== 'open' || this.#connection.outputRefused) this.#giveBack()
    else if (this.#reader === 'node') this.#stopNode()
    else if (this.#reader === 'none') this.#look()
  }

  /** The two streams go on alone. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#giveBack()
    if (this.#descriptor === undefined) return
    this.#connection.attach(undefined)
    this.#binding.close(this.#descriptor)
    this.#descriptor = undefined
  }

  read({ windows, words, count, length }: Pieces): number {
    if (this.#reader !== 'this' || this.#descriptor === undefined) return 0
    if (!this.#isOurs()) {
      this.#giveBackSoon()
      return 0
    }
    try {
      const got = this.#binding.readInto(this.#descriptor, windows, words, count)
      if (got === length) return got
      this.#told = false
      // Node reads the end, too, and knows what to do.
      if (got === 0) this.#giveBackSoon()
      else this.#watch('bytes')
      return Math.max(0, got)
    } catch (error) {
      this.#fail('read', error)
      return 0
    }
  }

  write({ windows, words, count }: Pieces): number {
    if (this.#descriptor === undefined || !this.#mayWrite()) return 0
    try {
      return Math.max(0, this.#binding.writeFrom(this.#descriptor, windows, words, count))
    } catch (error) {
      // A second attempt fails alike, and it is the socket's own.
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') this.#fail('write', error)
      return 0
    }
  }

  /** Only `joinStreams` takes what the socket reads, and it wants more. */
  #isOurs(): boolean {
    const { readableFlowing, destroyed, timeout, writableEnded } = this.#socket
    if (!readableFlowing || destroyed || timeout || (writableEnded && this.#counts)) return false
    return !this.#guest.writableEnded && !this.#guest.destroyed && this.#socket.listenerCount('data') === 1
  }

  /** All that came before has been taken by the socket's kernel. */
  #mayWrite(): boolean {
    const { writable, writableLength, writableCorked, timeout } = this.#socket
    const { readableLength, readableFlowing, destroyed } = this.#guest
    if (!writable || writableLength > 0 || writableCorked > 0 || timeout) return false
    return readableLength === 0 && readableFlowing === true && !destroyed && this.#guest.listenerCount('data') === 1
  }

  /** Node reads no more, and does not know it: what it has read goes on to the guest. */
  #stopNode(): void {
    const node = handle(this.#socket)
    const { destroyed, timeout } = this.#socket
    if (node === null || destroyed || hasReadEnd(this.#socket) || timeout || !this.#open(node)) return
    node.readStop?.()
    node.reading = true
    this.#reader = 'none'
    this.#watch('errors')
    this.#socket.on('resume', this.#look)
    this.#look()
  }

  /** Whether all that Node has read has been taken by guest buffers. The streams have more to do in this turn. */
  readonly #look = (): void => {
    if (this.#looking) return
    this.#looking = true
    setImmediate(() => {
      this.#looking = false
      if (this.#reader !== 'none' || this.#closed) return
      const waits = this.#socket.readableLength + this.#guest.writableLength + this.#connection.outputPending > 0
      if (waits || !this.#socket.readableFlowing) return
      this.#socket.off('resume', this.#look)
      this.#reader = 'this'
      if (this.#isOurs()) this.#watch('bytes')
      else this.#giveBack()
    })
  }

  #open({ fd }: Handle): boolean {
    if (this.#descriptor !== undefined) return true
    try {
      this.#descriptor = this.#binding.duplicate(fd!)
    } catch {
      // Out of descriptors: without one it is slower, and that is all.
      this.close()
      return false
    }
    this.#connection.attach(this)
    return true
  }

  #watch(what: 'bytes' | 'errors'): void {
    if (this.#watched === what || this.#descriptor === undefined) return
    this.#watched = what
    const { READABLE, PRIORITIZED } = this.#binding
    const isHeld = handle(this.#socket)?.hasRef?.() ?? true
    this.#binding[isHeld ? 'ref' : 'unref'](this.#descriptor)
    this.#binding.watch(this.#descriptor, what === 'bytes' ? READABLE : PRIORITIZED, (events) => this.#ready(events))
  }

  #unwatch(): void {
    if (this.#watched !== 'nothing' && this.#descriptor !== undefined) this.#binding.unwatch(this.#descriptor)
    this.#watched = 'nothing'
  }

  /** Bytes, the end or an error. */
  #ready(events: number): void {
    const forBytes = this.#watched === 'bytes'
    const isBroken = events === 0
    // An error condition ends the watching.
    if (isBroken) this.#watched = 'nothing'
    // What the streams hold goes first. The read after that finds the rest, and then the error.
    if (isBroken && this.#reader === 'none' && !this.#socket.destroyed) return
    if (!this.#isOurs()) {
      this.#giveBack()
    } else if (!forBytes) {
      this.#break()
    } else if (this.#told) {
      // The guest has no credit or no buffers for it yet. The connection comes when it has.
      this.#watch('errors')
    } else {
      this.#told = true
      this.#options.arrive(this.#tell)
      if (isBroken && this.#told) this.#watch('errors')
    }
  }

  readonly #tell = (): void => this.#connection.arrived()

  /**
   * The socket has failed or was closed while the guest takes nothing. What came before goes first. Node is not to read it: libuv takes
   * bytes that an error follows for the last ones before the end.
   */
  #break(): void {
    const chunk = this.#waiting()
    if (chunk === undefined) {
      this.#giveBack()
      return
    }
    this.#told = false
    if (this.#reader === 'this') this.#socket.on('resume', this.#look)
    this.#reader = 'none'
    this.#socket.push(chunk)
    this.#look()
  }

  #giveBackSoon(): void {
    this.#unwatch()
    process.nextTick(() => this.#giveBack())
  }

  /**
   * Node reads again, and what is there already is read at once. If the guest takes no more, that is dropped, and the socket may be closed in
   * this turn: with bytes unread, its kernel would drop what the guest has sent as well.
   */
  #giveBack(): void {
    if (this.#reader === 'node' || this.#reader === 'node again') return
    this.#reader = 'node again'
    this.#socket.off('resume', this.#look)
    this.#told = false
    this.#unwatch()
    const node = handle(this.#socket)
    if (node === null || this.#socket.destroyed) return
    // As Node has it: a stream that wants no more for now asks for more later.
    let wantsMore = true
    for (let left = this.#connection.outputRefused ? LAST_CHUNKS : 1; left > 0 && wantsMore; left--) {
      const chunk = this.#waiting()
      if (chunk === undefined) break
      wantsMore = this.#socket.push(chunk)
    }
    node.reading = wantsMore
    if (wantsMore && !this.#socket.destroyed) node.readStart?.()
  }

  #waiting(): Buffer | undefined {
    if (this.#descriptor === undefined) return undefined
    const bytes = Buffer.allocUnsafeSlow(CHUNK)
    try {
      const got = this.#binding.readInto(this.#descriptor, [bytes], Uint32Array.of(0, 0, CHUNK), 1)
      return got > 0 ? bytes.subarray(0, got) : undefined
    } catch (error) {
      this.#fail('read', error)
      return undefined
    }
  }

  /** As Node's own reading and writing fail. The device is at work. */
  #fail(syscall: string, cause: unknown): void {
    this.#unwatch()
    const { code, errno } = cause as NodeJS.ErrnoException
    const error = Object.assign(new Error(`${syscall} ${code}`), { errno, code, syscall })
    process.nextTick(() => this.#socket.destroy(error))
  }
}

const handleOf = Object.getOwnPropertyDescriptor(Socket.prototype, '_handle')?.get

/** Also of a socket of @upcall/vsock that conceals it. */
function handle(socket: Socket): Handle | null {
  return (handleOf ? handleOf.call(socket) : (socket as unknown as { _handle: Handle | null })._handle) ?? null
}

/** Node has read the end, and may have bytes before it. `readableEnded` comes after them. */
function hasReadEnd(socket: Socket): boolean {
  return (socket as unknown as { _readableState: { ended: boolean } })._readableState.ended
}

/** A class of its own may count what comes, to see whether its peer is silent. */
function isDerived(socket: Socket): boolean {
  return Object.getPrototypeOf(socket) !== Socket.prototype
}

function isPlain(host: Duplex): host is Socket {
  if (!(host instanceof Socket) || host.connecting || host.readableEncoding !== null) return false
  const found = handle(host)
  // TLS has one of another name, with the number of the socket below it.
  if (!/^(Pipe|TCP)$/.test(found?.constructor.name ?? '') || !((found?.fd ?? -1) >= 0)) return false
  const prototype = Object.getPrototypeOf(host) as Record<string, unknown>
  const own = host as unknown as Record<string, unknown>
  const node = Socket.prototype as unknown as Record<string, unknown>
  return (
    ['read', 'push', 'unshift', 'write', '_read'].every((name) => own[name] === node[name]) &&
    ['_write', '_writev'].every((name) => prototype[name] === node[name])
  )
}
