import { type Clock, systemClock } from '@upcall/foundation/clock'

/** The system's clock. Its timers do not keep the process alive: what they guard does. */
export const unheldClock: Clock = {
  now: systemClock.now,
  setTimer(ms, fn) {
    const timer = setTimeout(fn, ms).unref()
    return () => clearTimeout(timer)
  },
}
