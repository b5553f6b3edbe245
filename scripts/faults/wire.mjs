import { faultsIn } from './faults-in.mjs'

const wire = faultsIn('wire')

export default [
  wire(
    'the magic is written big-endian',
    'bytes.ts',
    'bytes[at] = value\n  bytes[at + 1] = value >>> 8',
    'bytes[at + 1] = value\n  bytes[at] = value >>> 8',
  ),
  wire('the upper half of a u64 is lost', 'bytes.ts', 'Number(value >> 32n)', '0'),
  wire('u32s are read signed', 'bytes.ts', 'return getI32(bytes, at) >>> 0', 'return getI32(bytes, at)'),
  wire('a wrong magic is accepted', 'header.ts', 'if (header.magic !== MAGIC_VERSION) {', 'if (header.magic === 0) {'),
  wire(
    'a message of another length is accepted',
    'header.ts',
    'if (bytes.length !== MESSAGE_SIZE)',
    'if (bytes.length < MESSAGE_SIZE)',
  ),
  wire("the greeting's flags are not looked at", 'header.ts', 'if (flags !== 0) throw', 'if (false) throw'),
  wire("the greeting's size is not looked at", 'header.ts', 'if (size !== 0) throw', 'if (false) throw'),
  wire("the caller's buffer is not cleared", 'header.ts', 'return targetMessage(into).fill(0)', 'return targetMessage(into)'),
  wire('a buffer that is too short is accepted', 'header.ts', 'if (into.length < MESSAGE_SIZE)', 'if (into.length < 16)'),
  wire(
    'fact-2: an index that is not declared is read',
    'reply.ts',
    'if (size === 0) return { type, result }',
    'if (size === 1) return { type, result }',
  ),
  wire('a reply may declare any size', 'reply.ts', 'if (size !== 0) throw wrongSize', 'if (false) throw wrongSize'),
  wire(
    'fact-2: a reply is written over the whole buffer',
    'reply.ts',
    'const bytes = targetMessage(into)',
    'const bytes = blankMessage(into)',
  ),
  wire('fact-5: count 0 is sent', 'request.ts', 'apicIds.length < 1 || apicIds', 'apicIds'),
  wire(
    'fact-5: count 0 is sent on aarch64',
    'request.ts',
    "integer(request.count, 'count', 1, MAX_CPUS)",
    "integer(request.count, 'count', 0, MAX_CPUS)",
  ),
  wire('fact-7: duplicate ids are sent', 'request.ts', 'if (first >= 0) throw', 'if (false) throw'),
  wire(
    'a hole in the ids is sent as id 0',
    'request.ts',
    'for (const [i, id] of apicIds.entries()) {',
    'for (const [i, id] of apicIds.entries()) {\n    if (!(i in apicIds)) continue',
  ),
  wire(
    'fact-11: aarch64 requests are read as on x86_64',
    'request.ts',
    "if (arch === 'aarch64') return { type, count }",
    'if (false) return { type, count }',
  ),
  wire('fact-13: irq 0 is refused on aarch64', 'request.ts', "irq === 0 && arch === 'x86_64'", 'irq === 0'),
  wire('fact-13: irq 0 is sent on x86_64', 'request.ts', "irq === 0 && arch === 'x86_64'", 'false'),
  wire('a window may end beyond 2^64', 'request.ts', 'if (base + size > 1n << 64n) {', 'if (base + size > 1n << 65n) {'),
  wire(
    'a window may not end at the last byte',
    'request.ts',
    'if (base + size > 1n << 64n) {',
    'if (base + size >= 1n << 64n) {',
  ),
  wire("an MMIO request's size is not looked at", 'request.ts', 'if (size !== MMIO_SIZE)', 'if (false)'),
  wire(
    'what is decoded from a Buffer is a view of it',
    'bytes.ts',
    'return new Uint8Array(bytes.subarray(from, to))',
    'return bytes.slice(from, to)',
  ),
  wire(
    'frames share one buffer',
    'frames.ts',
    'this.#partial = new Uint8Array(this.size)\n        this.#pending = 0',
    'this.#pending = 0',
  ),
  wire('pending bytes are forgotten', 'frames.ts', 'this.#pending += piece.length', 'this.#pending = piece.length'),
  wire('a message may be of no size', 'frames.ts', "integer(size, 'size', 1, MAX_SIZE)", 'size'),
  wire(
    'a load is overwritten before it is copied',
    'header.ts',
    'load.buffer === into?.buffer ? copyOf(load, 0, load.length) : load',
    'load',
  ),
]
