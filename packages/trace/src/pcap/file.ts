import { type FileHandle, open } from 'node:fs/promises'
import { concatenate } from '@upcall/foundation/bytes'
import { textOf } from '@upcall/foundation/error'
import { TraceError } from '../error.js'
import { PcapWriter, type PcapWriterOptions } from './writer.js'

/** Bytes that may wait for the disk. What does not fit is left out. */
const MOST_WAITING = 16 << 20

export interface OpenPcapOptions extends PcapWriterOptions {
  /** The most bytes that may wait for the disk. Default 16 MiB. */
  mostWaiting?: number | undefined
  /** Writing has failed, and nothing more is written. Called once. `close` throws the same error. */
  onError?: ((error: TraceError) => void) | undefined
}

/**
 * Makes or replaces a pcap file of LINKTYPE_VSOCK. A pipe with a name works, too.
 *
 * @throws {TraceError} `OUTPUT` if it cannot be opened or its header cannot be written.
 */
export async function openPcap(path: string, options: OpenPcapOptions = {}): Promise<PcapFile> {
  const writer = new PcapWriter(options)
  let handle: FileHandle | undefined
  try {
    handle = await open(path, 'w', 0o644)
    await writeAll(handle, writer.header())
    return new PcapFile(path, handle, writer, options)
  } catch (error) {
    await handle?.close().catch(() => {})
    throw outputError(path, error, 'Check the path and the room on the disk.')
  }
}

/**
 * A pcap file that is being written. Writing never waits and never throws: each packet goes to the file at once, whole packets in
 * their order. When the disk is too slow, packets are left out and counted; when it fails, writing stops.
 */
export class PcapFile implements AsyncDisposable {
  readonly path: string
  readonly #handle: FileHandle
  readonly #writer: PcapWriter
  readonly #most: number
  readonly #onError: ((error: TraceError) => void) | undefined
  #waiting: Uint8Array[] = []
  #waitingBytes = 0
  #writing: Promise<void> | undefined
  #packets = 0
  #dropped = 0
  #error: TraceError | undefined
  /** Up to here the file has whole packets. */
  #end: number
  #closed: Promise<void> | undefined

  /** @internal Made by `openPcap`. */
  constructor(path: string, handle: FileHandle, writer: PcapWriter, { mostWaiting = MOST_WAITING, onError }: OpenPcapOptions) {
    this.path = path
    this.#handle = handle
    this.#writer = writer
    this.#most = mostWaiting
    this.#onError = onError
    this.#end = writer.header().length
  }

  /** Packets that were taken. */
  get packets(): number {
    return this.#packets
  }

  /** Packets that were left out: the disk was too slow, or failed. */
  get dropped(): number {
    return this.#dropped
  }

  /** What writing failed with. */
  get error(): TraceError | undefined {
    return this.#error
  }

  /** @param timeMs - Milliseconds since the epoch; fractions are kept to microseconds. */
  write(timeMs: number, packet: Uint8Array): void {
    const record = this.#writer.packet(timeMs, packet)
    if (this.#error !== undefined || this.#closed !== undefined || this.#waitingBytes + record.length > this.#most) {
      this.#dropped++
      return
    }
    this.#packets++
    this.#waiting.push(record)
    this.#waitingBytes += record.length
    this.#writing ??= this.#drain()
  }

  /**
   * Resolves when everything is in the file and it is closed. Idempotent.
   *
   * @throws {TraceError} `OUTPUT` if writing has failed.
   */
  close(): Promise<void> {
    this.#closed ??= this.#shut()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0 && this.#error === undefined) {
      const records = this.#waiting
      this.#waiting = []
      const bytes = concatenate(records)
      try {
        await writeAll(this.#handle, bytes)
        this.#end += bytes.length
      } catch (error) {
        this.#fail(error, records.length + this.#waiting.length)
        // No half of a packet stays. What cannot be cut (a pipe) stays as it is.
        await this.#handle.truncate(this.#end).catch(() => {})
      }
      this.#waitingBytes -= bytes.length
    }
    this.#writing = undefined
  }

  #fail(cause: unknown, lost: number): void {
    this.#error = outputError(this.path, cause, 'The packets up to here are in the file.')
    this.#packets -= lost
    this.#dropped += lost
    this.#waiting = []
    this.#onError?.(this.#error)
  }

  async #shut(): Promise<void> {
    await this.#writing
    try {
      await this.#handle.close()
    } catch (error) {
      this.#error ??= outputError(this.path, error, 'The packets may not be in the file.')
    }
    if (this.#error !== undefined) throw this.#error
  }
}

/** One write may take a part. */
async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at, bytes.length - at, null)).bytesWritten
}

function outputError(path: string, cause: unknown, next: string): TraceError {
  return new TraceError({ code: 'OUTPUT', subject: path, what: `cannot be written: ${textOf(cause)}`, next, cause })
}
