// How much a stream has carried, and how fast, for a terminal. It looks at the socket's own counters, so the traffic is not touched.
import type { Duplex } from 'node:stream'
import type { Progress } from '../output.js'

const EVERY_MS = 250

interface Counters {
  bytesRead: number
  bytesWritten: number
}

/** `3.2 MiB sent, 12 KiB received, 1.1 MiB/s`: the rate is that of both directions since `before`. */
export function trafficText(now: Counters, before: Counters, ms: number): string {
  const moved = now.bytesRead - before.bytesRead + (now.bytesWritten - before.bytesWritten)
  const rate = ms > 0 ? (moved * 1000) / ms : 0
  return `${size(now.bytesWritten)} sent, ${size(now.bytesRead)} received, ${size(rate)}/s`
}

/** Updates the progress until it is disposed of. A stream without counters says nothing. */
export function followTraffic(socket: Duplex, peer: string, progress: Progress): Disposable {
  const counters = (): Counters | undefined => {
    const { bytesRead, bytesWritten } = socket as Partial<Counters>
    return typeof bytesRead === 'number' && typeof bytesWritten === 'number' ? { bytesRead, bytesWritten } : undefined
  }
  let [before, at] = [counters(), performance.now()]
  const timer = setInterval(() => {
    const [now, time] = [counters(), performance.now()]
    if (now && before) progress.update(`${peer}: ${trafficText(now, before, time - at)}`)
    ;[before, at] = [now, time]
  }, EVERY_MS).unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
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
