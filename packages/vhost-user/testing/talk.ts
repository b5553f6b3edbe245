import { SHUTDOWN_SEND } from '../src/machine/packet.js'
import type { KernelSocket, SocketKind } from './kernel-socket.js'

/** The byte at `offset` of the stream with that seed: a mix-up of order, of streams or of directions shows. */
export const patternByte = (seed: number, offset: number): number =>
  (seed * 31 + offset * 7 + (offset >> 8) * 13 + (offset >> 16)) & 0xff

export function pattern(seed: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = patternByte(seed, offset + i)
  return bytes
}

/**
 * How a program ends. `shutdown`: it sends all, says so, reads to the end and closes. `close`: it sends all and closes, without a look at
 * what the other has to say. `abort`: a RST somewhere in between.
 */
export type Ending = 'shutdown' | 'close' | 'abort'

export interface Plan {
  readonly seed: number
  /** Lengths of its writes, or of its messages. */
  readonly writes: readonly number[]
  /** How much it reads at a time. */
  readonly appetite: number
  /** It reads nothing for so many steps at first. */
  readonly sleeps: number
  readonly ending: Ending
}

/** One program with one socket. It checks each byte that it reads against its peer's plan. */
export class Program {
  /** Bytes or messages of the peer that came, and that this program has written. */
  received = 0
  written = 0
  sawEnd = false
  done = false
  readonly socket: KernelSocket
  readonly plan: Plan
  readonly #peer: Plan
  #messages = 0
  #steps = 0
  #shut = false

  constructor(socket: KernelSocket, plan: Plan, peer: Plan) {
    this.socket = socket
    this.plan = plan
    this.#peer = peer
  }

  /** It has read all that the peer has written by its plan. */
  get complete(): boolean {
    return this.received === total(this.#peer)
  }

  /** One thing after the other; true if that was anything. */
  step(): boolean {
    if (this.done || this.socket.state === 'connecting') return false
    this.#steps++
    const before = this.received
    const sleeps = this.#steps <= this.plan.sleeps
    if (!sleeps) this.#read()
    return this.#write() || this.#end() || this.received !== before || sleeps
  }

  #read(): void {
    const { socket, plan } = this
    if (socket.kind === 'stream') this.#check(socket.read(plan.appetite))
    else {
      const message = socket.readMessage()
      if (message !== undefined) {
        const length = this.#peer.writes[this.#messages]
        const record = endsRecord(this.#peer, this.#messages)
        this.#messages++
        if (message.bytes.length !== length) throw new Error(`a message of ${length} bytes came with ${message.bytes.length}`)
        if (message.endOfRecord !== record) throw new Error(`MSG_EOR is ${message.endOfRecord}, and should be ${record}`)
        this.#check(message.bytes)
      }
    }
    if (socket.ended) this.sawEnd = true
  }

  #check(bytes: Uint8Array): void {
    for (const byte of bytes) {
      const expected = patternByte(this.#peer.seed, this.received)
      if (byte !== expected) throw new Error(`byte ${this.received} is ${byte}, and should be ${expected}`)
      this.received++
    }
  }

  #next = 0
  #write(): boolean {
    const { socket, plan } = this
    const length = plan.writes[this.#next]
    if (length === undefined || socket.refused || socket.unsent > 0) return false
    if (socket.kind === 'seqpacket' && length > socket.largestMessage)
      throw new Error(`a message of ${length} bytes cannot be sent`)
    socket.write(pattern(plan.seed, this.written, length), { endOfRecord: endsRecord(plan, this.#next) })
    this.#next++
    this.written += length
    return true
  }

  #end(): boolean {
    const { socket, plan } = this
    const through = (this.#next === plan.writes.length && socket.unsent === 0) || socket.refused
    if (plan.ending === 'abort' && this.#next >= plan.writes.length / 2) {
      socket.abort()
      return this.#close()
    }
    if (!through) return false
    if (plan.ending === 'close' || this.sawEnd) {
      socket.close()
      return this.#close()
    }
    if (this.#shut) return false
    this.#shut = true
    socket.shutdown(SHUTDOWN_SEND)
    return true
  }

  #close(): boolean {
    this.done = true
    return true
  }
}

export const total = (plan: Plan): number => plan.writes.reduce((sum, length) => sum + length, 0)
const endsRecord = (plan: Plan, message: number): boolean => (plan.seed + message) % 3 === 0

/** A plan that random numbers decide. */
export function randomPlan(
  random: () => number,
  { kind, calm = false, most = 40_000 }: { kind: SocketKind; calm?: boolean; most?: number },
): Plan {
  const below = (limit: number) => Math.floor(random() * limit)
  const sizes = kind === 'stream' ? [1, 20, 700, 5_000, 70_000] : [1, 3, 60, 1_500, 9_000]
  const writes: number[] = []
  for (let sum = 0, count = below(12); writes.length < count && sum < most; sum += writes.at(-1)!)
    writes.push(1 + below(sizes[below(sizes.length)]!))
  const endings: Ending[] = calm ? ['shutdown'] : ['shutdown', 'shutdown', 'close', 'abort']
  return {
    seed: 1 + below(250),
    writes,
    appetite: [37, 400, 4_000, 100_000][below(4)]!,
    sleeps: random() < 0.3 ? below(60) : 0,
    ending: endings[below(endings.length)]!,
  }
}
