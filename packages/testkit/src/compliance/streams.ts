import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'

/** Bytes that differ from place to place, the same at every call. */
export function pattern(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed >>> 0 || 1
  for (let i = 0; i < length; i++) {
    // xorshift32
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state
  }
  return bytes
}

/** A short name for any number of bytes. */
export function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Resolves when the bytes have left. */
export function write(stream: Duplex, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(bytes, (error) => (error ? reject(error) : resolve()))
  })
}

/** Writes block by block, each after the one before has left. */
export async function writeBlocks(stream: Duplex, bytes: Uint8Array, blockSize = 16_384): Promise<void> {
  for (let at = 0; at < bytes.length; at += blockSize) await write(stream, bytes.subarray(at, at + blockSize))
}

/** Everything up to EOF. */
export function readAll(stream: Duplex): Promise<Buffer> {
  const all = new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.once('end', () => resolve(Buffer.concat(chunks)))
    stream.once('error', reject)
    stream.once('close', () => reject(new Error(`closed without EOF after ${Buffer.concat(chunks).length} bytes`)))
  })
  return whenAwaited(all)
}

/** Exactly `length` bytes. Later bytes stay in the stream. */
export function readExactly(stream: Duplex, length: number): Promise<Buffer> {
  const bytes = new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = []
    let got = 0
    const settle = (fn: () => void) => {
      stream.off('readable', look).off('end', onEnd).off('error', onError).off('close', onEnd)
      fn()
    }
    const look = () => {
      for (;;) {
        const chunk: Buffer | null = stream.read()
        if (chunk === null) return
        chunks.push(chunk)
        got += chunk.length
        if (got < length) continue
        const all = Buffer.concat(chunks)
        settle(() => {
          if (got > length) stream.unshift(all.subarray(length))
          resolve(all.subarray(0, length))
        })
        return
      }
    }
    const onEnd = () => settle(() => reject(new Error(`the stream ended after ${got} of ${length} bytes`)))
    const onError = (error: Error) => settle(() => reject(error))
    stream.on('readable', look).on('end', onEnd).on('error', onError).on('close', onEnd)
    look()
  })
  return whenAwaited(bytes)
}

/** Resolves when nothing more can be read: with undefined after EOF or a plain close, with the error after one. */
export function over(stream: Duplex): Promise<Error | undefined> {
  return new Promise((resolve) => {
    if (stream.errored) return resolve(stream.errored)
    if (stream.readableEnded || stream.closed) return resolve(undefined)
    stream.once('error', resolve)
    stream.once('end', () => resolve(undefined))
    stream.once('close', () => resolve(stream.errored ?? undefined))
    stream.resume()
  })
}

export function closed(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) resolve()
    else stream.once('close', () => resolve())
  })
}

/** Sends everything back, and ends when the other end does. */
export function echo(stream: Duplex): void {
  stream.pipe(stream)
}

/** One turn of the event loop. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** A failure counts where a test awaits it. A failure before that is not an unhandled rejection. */
function whenAwaited<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}
