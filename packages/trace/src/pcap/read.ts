import { ByteSource } from './bytes.js'
import { type CapturedPacket, captureError } from './captured.js'
import { isPcap, readPcap, viewOf } from './classic.js'
import { readPcapng, SECTION_HEADER } from './ng.js'

/** How many bytes `looksLikeCapture` needs. */
export const CAPTURE_MAGIC_BYTES = 4

/** Whether an input that begins with these bytes is pcap or pcapng. */
export function looksLikeCapture(start: Uint8Array): boolean {
  return start.length >= CAPTURE_MAGIC_BYTES && isCapture(viewOf(start).getUint32(0))
}

function isCapture(magic: number): boolean {
  return isPcap(magic) || magic === SECTION_HEADER
}

/**
 * The packets of a pcap or pcapng file, one at a time: both byte orders, microseconds and nanoseconds, and any resolution that pcapng
 * has. A packet that cannot be used has a `problem`, and the next ones follow. The memory is bounded, and each byte is read once.
 *
 * @throws {TraceError} `CAPTURE` for an input that is not a capture, or in which nothing can be found any more.
 */
export async function* readCapture(input: AsyncIterable<Uint8Array>): AsyncGenerator<CapturedPacket> {
  const source = new ByteSource(input)
  try {
    const start = await source.take(CAPTURE_MAGIC_BYTES)
    if (!looksLikeCapture(start)) throw captureError(0, 'neither pcap nor pcapng begins like this')
    const magic = viewOf(start).getUint32(0)
    yield* magic === SECTION_HEADER ? readPcapng(source) : readPcap(source, magic)
  } finally {
    await source.close()
  }
}
