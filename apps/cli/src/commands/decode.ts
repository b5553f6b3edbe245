import { looksLikeCapture, type MessageKind, MessageReader, type Piece, StreamCutter } from '@upcall/trace'
import { type Command, Option } from 'commander'
import type { Action, Context } from '../context.js'
import { decodeCapture } from '../decode/capture.js'
import { BOUNDARY, HexReader, looksLikeHex, SNIFF_BYTES } from '../decode/hex.js'
import { decodedText } from '../decode/text.js'
import { UsageError } from '../errors.js'
import { Exit } from '../exit.js'
import { linesOf, readInput } from '../input.js'
import { hostArchOf, parseInteger } from '../options.js'

type Format = 'auto' | 'hex' | 'raw' | 'pcap'

interface DecodeOptions {
  format: Format
  direction: 'auto' | MessageKind
  port?: number
}

/** A message has 2048 digits. A line of a dump, with everything around its digits, is far shorter than this. */
const LONGEST_LINE = 1 << 20

export function addDecodeCommand(program: Command, action: Action): void {
  program
    .command('decode')
    .description('print each message of a capture, a hex text or a raw stream in one readable line')
    .argument('[file]', 'what to read; without it, or for -, stdin')
    .addOption(
      new Option('--format <format>', 'how the input is written').choices(['auto', 'hex', 'raw', 'pcap']).default('auto'),
    )
    .addOption(
      new Option('--direction <direction>', 'whose messages they are; auto: each message tells by its type and size')
        .choices(['auto', 'request', 'reply'])
        .default('auto'),
    )
    .addOption(
      new Option('--port <n>', 'of a capture: only the connections of which one end has this port').argParser(parseInteger),
    )
    .addHelpText(
      'after',
      `
Hex text is plain digits, or the output of xxd or hexdump -C. A message that is written short is filled up with zeros.
A raw stream may begin with the CONNECT or OK line of hybrid vsock, and with the service byte. --arch is needed only for
CPU replies of another architecture than this machine's, if no CPU request comes before them.

A capture is pcap or pcapng with vsock packets: of upcall trace --pcap, of vsockmon, or of Wireshark. Each connection has
a number, and each reply its round-trip time. A packet that cannot be read is reported in its place. A capture that is
still being written ends with what there is.

Exit status: 0 everything was read, 2 a part could not be read.

Examples:
  $ upcall decode capture.bin
  $ upcall decode --port 219 upcall.pcap
  $ echo 00014d44 02000000 07000000 00000000 0028 | upcall decode
  $ upcall --json decode --direction request capture.bin | jq -c .operation`,
    )
    .action(action(decode))
}

async function decode(context: Context, { format, direction, port }: DecodeOptions, file?: string): Promise<void> {
  const { io, options, output, exit } = context
  const sniffed = await sniff(readInput(file, io), format)
  const about = { arch: options.arch, fallbackArch: hostArchOf() ?? ('x86_64' as const) }
  if (sniffed.kind === 'pcap') {
    if (direction !== 'auto') throw new UsageError('--direction', 'is not for captures', 'Their packets have directions.')
    return decodeCapture(context, bytesOf(sniffed), file ?? 'stdin', { ...about, port })
  }
  if (port !== undefined) throw new UsageError('--port', 'is only for captures, pcap or pcapng')
  const reader = new MessageReader({ ...about, direction: direction === 'auto' ? undefined : direction })
  for await (const piece of piecesOf(sniffed)) {
    const decoded = reader.read(piece)
    if ('error' in decoded) exit.add(Exit.invalid)
    // Even what cannot be read is part of the answer, in its place among the rest.
    await output.result(decoded, (paint) => decodedText(decoded, paint))
    if (io.signal.aborted) return
  }
}

async function* piecesOf(sniffed: Sniffed): AsyncGenerator<Piece> {
  const cutter = new StreamCutter()
  if (sniffed.kind !== 'hex') {
    for await (const chunk of bytesOf(sniffed)) yield* cutter.push(chunk)
    yield* cutter.end(false)
    return
  }
  const reader = new HexReader()
  for await (const { number, text } of linesOf(bytesOf(sniffed), LONGEST_LINE)) {
    if (text === undefined)
      throw new UsageError(`line ${number}`, `longer than ${LONGEST_LINE} bytes`, 'For a raw stream pass --format raw.')
    for (const bytes of reader.read(text, number)) yield* bytes === BOUNDARY ? cutter.end(true) : cutter.push(bytes)
  }
  yield* cutter.end(true)
}

interface Sniffed {
  start: Buffer
  kind: Exclude<Format, 'auto'>
  rest: AsyncGenerator<Buffer>
}

/** Looks at the first bytes of the input and gives them back with the rest. */
async function sniff(input: AsyncGenerator<Buffer>, format: Format): Promise<Sniffed> {
  let start: Buffer = Buffer.alloc(0)
  if (format !== 'auto') return { start, kind: format, rest: input }
  while (start.length < SNIFF_BYTES) {
    const { value, done } = await input.next()
    if (done) break
    start = Buffer.concat([start, value])
  }
  // The magic of pcapng is line ends, with which a text may begin, too.
  const hex = looksLikeHex(start.subarray(0, SNIFF_BYTES))
  return { start, kind: hex ? 'hex' : looksLikeCapture(start) ? 'pcap' : 'raw', rest: input }
}

async function* bytesOf({ start, rest }: Sniffed): AsyncGenerator<Buffer> {
  yield start
  yield* rest
}
