// How much streams have carried, and how fast. It looks at counters that are kept anyway, so the traffic is not touched.
import type { Duplex } from 'node:stream'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import type { Progress } from '../output.js'

/** Counters as they are at one moment, in bytes. */
export interface Traffic {
  sent: number
  received: number
  /** How many are open, where there may be several. */
  connections?: number
}

/** `2 connections, 3.2 MiB sent, 12 KiB received, 1.1 MiB/s`: the rate is that of both directions. */
export function trafficText({ sent, received, connections }: Traffic, bytesPerSecond: number): string {
  const open = connections === undefined ? '' : `${connections} ${connections === 1 ? 'connection' : 'connections'}, `
  return `${open}${size(sent)} sent, ${size(received)} received, ${size(bytesPerSecond)}/s`
}

/** The counters of a socket. undefined: it has none. */
export function trafficOf(socket: Duplex): Traffic | undefined {
  const { bytesRead: received, bytesWritten: sent } = socket as Partial<Record<'bytesRead' | 'bytesWritten', unknown>>
  return typeof received === 'number' && typeof sent === 'number' ? { sent, received } : undefined
}

/** Updates the progress, as often as it is seen, until it is disposed of. Without counters it says nothing. */
export function followTraffic(
  read: () => Traffic | undefined,
  subject: string,
  progress: Progress,
  clock: Clock = systemClock,
): Disposable {
  const { everyMs } = progress
  let cancel = () => {}
  if (everyMs !== undefined) wait(everyMs, read(), clock.now())
  return { [Symbol.dispose]: () => cancel() }

  function wait(ms: number, before: Traffic | undefined, since: number): void {
    cancel = clock.setTimer(ms, () => {
      const [now, time] = [read(), clock.now()]
      if (now && before) {
        const moved = now.sent - before.sent + now.received - before.received
        const bytesPerSecond = time > since ? Math.round((moved * 1000) / (time - since)) : 0
        progress.update(`${subject}: ${trafficText(now, bytesPerSecond)}`, { subject, ...now, bytesPerSecond })
      }
      wait(ms, now, time)
    })
  }
}

function size(bytes: number): string {
  let [value, unit] = [bytes, 0]
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
