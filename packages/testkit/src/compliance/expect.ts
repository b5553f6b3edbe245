import { ok, strictEqual } from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import type { Scope } from './scope.js'
import { pattern, readExactly, write } from './streams.js'

/** Sends `length` bytes and expects the same ones back. */
export async function roundTrip<A>(scope: Scope<A>, stream: Duplex, length: number): Promise<void> {
  const bytes = pattern(length, length)
  const back = readExactly(stream, length)
  await scope.until(Promise.all([write(stream, bytes), back]))
  ok(bytes.equals(await back), `${length} bytes came back changed`)
}

/** A check for `rejects`: the error's `code` is one of these. */
export function coded(...codes: string[]): (error: unknown) => true {
  return (error) => {
    const { code } = error as { code?: unknown }
    ok(codes.includes(code as string), `code is ${String(code)}, expected ${codes.join(' or ')}: ${String(error)}`)
    return true
  }
}

/** A check for `rejects`: code ABORTED, the signal's reason as cause. */
export function aborted(reason: unknown): (error: unknown) => true {
  return (error) => {
    coded('ABORTED')(error)
    strictEqual((error as Error).cause, reason, 'cause is the reason of the signal')
    return true
  }
}
