import { Session } from 'node:inspector/promises'
import type { Connection } from '../src/machine/connection.js'
import { Op, TYPE_SEQPACKET, TYPE_STREAM } from '../src/machine/packet.js'
import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE } from '../src/machine/vring.js'
import { GUEST_BASE, MEMORY_SIZE } from './fake-guest.js'
import type { FakeVm } from './fake-vm.js'
import { type Act, sendAndWithdraw } from './trial.js'

// ── bytes as a guest's program ───────────────────────────────────────────────────────────────────────────────────────────────

const PORTS = [0, 80, 5000, 2 ** 30, 2 ** 30 + 1, 2 ** 30 + 2, 0xffff_ffff]
const LENGTHS = [0, 1, 16, 43, 44, 45, 100, 4096, 65536, 0xffff_ffff]
const ADDRESSES = [
  0,
  GUEST_BASE - 1,
  GUEST_BASE,
  GUEST_BASE + 0x8_0000,
  GUEST_BASE + 0x9_0000,
  GUEST_BASE + MEMORY_SIZE - 1,
  2 ** 53,
]
const FLAGS = [0, DESC_NEXT, DESC_WRITE, DESC_INDIRECT, DESC_NEXT | DESC_WRITE, DESC_NEXT | DESC_INDIRECT]
const OPS = Object.values(Op)
const SIZES = [0, 1, 100, 4096]

/** Numbers out of bytes; past their end, zeros. */
class Reader {
  #at = 0
  constructor(readonly bytes: Uint8Array) {}
  get done(): boolean {
    return this.#at >= this.bytes.length
  }
  u8(): number {
    return this.bytes[this.#at++] ?? 0
  }
  u16(): number {
    return this.u8() | (this.u8() << 8)
  }
  /** Mostly one of `choices`, at times another number. */
  of(choices: readonly number[]): number {
    const pick = this.u8()
    return pick < 224 ? choices[pick % choices.length]! : this.u16() * (pick - 223)
  }
}

const ring = (vm: FakeVm, which: number) => ((which & 1) === 0 ? vm.guest.rx : vm.guest.tx)

const descriptor = (input: Reader) => ({
  address: input.of(ADDRESSES),
  length: input.of(LENGTHS) >>> 0,
  flags: input.of(FLAGS) & 0xffff,
  next: input.u8() % 20,
})

function host(what: number, vm: FakeVm, connection: Connection): void {
  const acts = [
    () => connection.accept(),
    () => connection.write(new Uint8Array(3000)),
    () => connection.end(),
    () => connection.close(vm.now),
    () => connection.reset(),
    () => connection.consumed(connection.read()?.length ?? 0, vm.now),
    () => connection.consumed(connection.readMessage()?.data.length ?? 0, vm.now),
    () => sendAndWithdraw(connection),
  ]
  acts[what % acts.length]!()
}

/** Each byte that stands for an act reads its parameters from the bytes after it. */
const ACTS: ((input: Reader) => Act)[] = [
  (input) => {
    const count = input.u8() % 20
    return (vm) => vm.guest.supply(count)
  },
  (input) => {
    const op = input.of(OPS) & 0xffff
    const kind = input.u8()
    const fields = {
      op,
      flags: kind & 3,
      type: (kind & 0x80) === 0 ? TYPE_STREAM : TYPE_SEQPACKET,
      sourcePort: input.of(PORTS) >>> 0,
      destinationPort: input.of(PORTS) >>> 0,
      bufferAllocation: input.of(LENGTHS) >>> 0,
      forwardCount: input.of(LENGTHS) >>> 0,
    }
    const size = SIZES[input.u8() % SIZES.length]!
    return (vm) => {
      if (vm.guest.tx.freeDescriptors >= 2) vm.guest.send(fields, new Uint8Array(size))
    }
  },
  (input) => {
    const [which, index, value] = [input.u8(), input.u8() % 20, descriptor(input)]
    return (vm) => ring(vm, which).setDescriptor(index, value)
  },
  (input) => {
    const [which, head] = [input.u8(), input.of([0, 1, 2, 15, 16])]
    return (vm) => ring(vm, which).offer(head & 0xffff)
  },
  (input) => {
    const [which, index] = [input.u8(), input.u16()]
    return (vm) => {
      ring(vm, which).availIndex = index
    }
  },
  (input) => {
    const entries = Array.from({ length: 1 + (input.u8() % 4) }, () => descriptor(input))
    const [which, length] = [input.u8(), input.of([16 * entries.length, 16, 24, 0])]
    return (vm) => {
      const table = 0x9_0000
      for (const [i, entry] of entries.entries()) {
        vm.guest.tx.view.setBigUint64(table + 16 * i, BigInt(entry.address), true)
        vm.guest.tx.view.setUint32(table + 16 * i + 8, entry.length, true)
        vm.guest.tx.view.setUint16(table + 16 * i + 12, entry.flags, true)
        vm.guest.tx.view.setUint16(table + 16 * i + 14, entry.next, true)
      }
      ring(vm, which).setDescriptor(0, { address: GUEST_BASE + table, length: length >>> 0, flags: DESC_INDIRECT, next: 0 })
      ring(vm, which).offer(0)
    }
  },
  (input) => {
    const port = input.of(PORTS) >>> 0
    return (vm, connections) => {
      const connection = vm.device.muxer.connect(port, vm.now, (port & 1) === 0 ? 'stream' : 'seqpacket')
      if (connection !== undefined) connections.push(connection)
    }
  },
  (input) => {
    const [which, what] = [input.u8(), input.u8()]
    return (vm, connections) => {
      const connection = connections[which % Math.max(1, connections.length)]
      if (connection !== undefined) host(what, vm, connection)
    }
  },
  (input) => {
    const ms = input.u8() * 50
    return (vm) => vm.advance(ms)
  },
  (input) => {
    const [at, byte] = [0x1000 + (input.u16() % 0x9000), input.u8()]
    return (vm) => {
      vm.guest.memoryBytes[at] = byte
    }
  },
]

/** What a guest does whose program these bytes are. Every byte sequence is one. */
export function* program(bytes: Uint8Array): Generator<Act> {
  const input = new Reader(bytes)
  while (!input.done) yield ACTS[input.u8() % ACTS.length]!(input)
}

// ── what was reached ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Which blocks of some scripts have run, by V8's own count. */
export class Coverage {
  readonly #session = new Session()
  readonly #seen = new Set<string>()
  readonly #wanted: (url: string) => boolean

  private constructor(wanted: (url: string) => boolean) {
    this.#wanted = wanted
  }

  static async start(wanted: (url: string) => boolean): Promise<Coverage> {
    const coverage = new Coverage(wanted)
    coverage.#session.connect()
    await coverage.#session.post('Profiler.enable')
    await coverage.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
    return coverage
  }

  get size(): number {
    return this.#seen.size
  }

  /** How many blocks ran since the last call that had never run before; counts come in powers of two, so that a loop's length is news too. */
  async news(): Promise<number> {
    const before = this.#seen.size
    const { result } = await this.#session.post('Profiler.takePreciseCoverage')
    for (const { url, functions } of result) {
      if (!this.#wanted(url)) continue
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) {
          if (count > 0) this.#seen.add(`${url}:${startOffset}-${endOffset}:${Math.ceil(Math.log2(count))}`)
        }
      }
    }
    return this.#seen.size - before
  }

  async stop(): Promise<void> {
    await this.#session.post('Profiler.stopPreciseCoverage')
    this.#session.disconnect()
  }
}

/** A child of two programs: spliced, with a few bytes changed, put in or left out. */
export function mutate(parent: Uint8Array, other: Uint8Array, random: () => number): Uint8Array {
  const below = (limit: number) => Math.floor(random() * limit)
  let bytes = [...parent]
  if (random() < 0.3) bytes = [...bytes.slice(0, below(bytes.length + 1)), ...other.slice(below(other.length + 1))]
  for (let edits = 1 + below(6); edits > 0; edits--) {
    const at = below(bytes.length + 1)
    const kind = below(4)
    if (kind === 0) bytes.splice(at, 1 + below(8))
    else if (kind === 1) bytes.splice(at, 0, ...Array.from({ length: 1 + below(8) }, () => below(256)))
    else if (kind === 2) bytes.splice(at, 1, below(256))
    else bytes.splice(at, 1, ((bytes[at] ?? 0) + (random() < 0.5 ? 1 : 255)) & 0xff)
  }
  return Uint8Array.from(bytes.slice(0, 400))
}
