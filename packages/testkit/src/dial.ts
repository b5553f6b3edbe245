import type { Duplex } from 'node:stream'
import type { Dial } from '@upcall/client'
import { checkFunction, show } from './check.js'
import { checkPlan, type FaultPlan } from './fault-plan.js'
import { type FaultStream, faulty } from './faulty.js'

/**
 * A dialer whose attempts differ: the first entry is the first attempt and so on, the last entry all further ones.
 *
 * @param attempts - A dialer to hand the attempt to, an error to fail with, or `'silence'`: the attempt hangs until it is aborted.
 */
export function dialSequence(...attempts: (Dial | Error | 'silence')[]): Dial & { readonly attempts: number } {
  if (attempts.length === 0) throw new TypeError('dialSequence: needs at least one attempt')
  for (const [i, attempt] of attempts.entries()) {
    if (typeof attempt !== 'function' && !(attempt instanceof Error) && attempt !== 'silence')
      throw new TypeError(`dialSequence: attempts[${i}]: must be a dialer, an Error or 'silence', got ${show(attempt)}`)
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
 * @param plan - The faults of each connection, or a function from its number (from 1) to them.
 * @returns The dialer, with the streams that it made so far in `streams`.
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
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}
