import type { Duplex } from 'node:stream'
import type { Dial } from '@upcall/client'
import { onAbort } from '@upcall/foundation/abort'
import { checkFunction, wrongType } from '@upcall/foundation/check'
import { checkPlan, type FaultPlan } from './fault-plan.js'
import { type FaultStream, faulty } from './faulty.js'

/**
 * A dialer whose attempts differ: the first entry is the first attempt and so on. The last entry is used for all further attempts.
 *
 * @param attempts - A dialer that makes the attempt, an error that the attempt fails with, or `'silence'`: the attempt hangs until it is
 *   aborted.
 */
export function dialSequence(...attempts: (Dial | Error | 'silence')[]): Dial & { readonly attempts: number } {
  if (attempts.length === 0) throw new TypeError('dialSequence: attempts: must have at least one entry')
  for (const [i, attempt] of attempts.entries()) {
    if (typeof attempt !== 'function' && !(attempt instanceof Error) && attempt !== 'silence')
      wrongType(`dialSequence: attempts[${i}]`, "a dialer, an Error or 'silence'", attempt)
  }
  let count = 0
  const dial = async (options: { signal: AbortSignal }): Promise<Duplex> => {
    const attempt = attempts[Math.min(count, attempts.length - 1)]!
    count++
    if (attempt instanceof Error) throw attempt
    if (attempt === 'silence') return aborted(options.signal)
    return attempt(options)
  }
  return Object.defineProperty(dial, 'attempts', { get: () => count }) as typeof dial & { readonly attempts: number }
}

/**
 * A dialer whose connections carry faults.
 *
 * @param plan - The faults of each connection, or a function that returns them for the connection's number, from 1.
 * @returns The dialer. Its `streams` are those that it has made so far.
 */
export function faultyDial(
  dial: Dial,
  plan: FaultPlan | ((number: number) => FaultPlan | undefined),
): Dial & { readonly streams: readonly FaultStream[] } {
  checkFunction('faultyDial: dial', dial)
  if (typeof plan !== 'function') checkPlan(plan)
  const streams: FaultStream[] = []
  const dialFaulty = async (options: { signal: AbortSignal }): Promise<Duplex> => {
    const number = streams.length + 1
    const stream = faulty(await dial(options), (typeof plan === 'function' ? plan(number) : plan) ?? {})
    streams.push(stream)
    return stream
  }
  return Object.assign(dialFaulty, { streams })
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    else onAbort(signal, reject)
  })
}
