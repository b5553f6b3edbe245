// Numbers as people write them.

const MIB = 2 ** 20
const GIB = 2 ** 30

/** `512 MiB`, `1.5 GiB`. */
export function bytes(count: number): string {
  if (count >= GIB && count % (GIB / 4) === 0) return `${count / GIB} GiB`
  return `${Number((count / MIB).toFixed(1))} MiB`
}

/** Reads `768`, `768M`, `1.5 GiB`; a number alone is MiB. NaN for anything else. */
export function parseBytes(text: string): number {
  const found = /^\s*(\d{1,9}(?:[.]\d{1,6})?)\s*(?:([KMGT])(?:i?B)?)?\s*$/i.exec(text)
  if (!found) return Number.NaN
  const power = { K: 1, M: 2, G: 3, T: 4 }[(found[2] ?? 'M').toUpperCase()]!
  return Number(found[1]) * 1024 ** power
}

/** The bytes of `0x2000` in short: `8 KiB`. */
export function windowSize(size: string): string {
  const count = Number(size)
  if (!(count > 0)) return size
  if (count % MIB === 0) return `${count / MIB} MiB`
  return count % 1024 === 0 ? `${count / 1024} KiB` : `${count} B`
}

/** `0.42 ms`, `12 ms`, `1.3 s`. */
export function milliseconds(ms: number): string {
  if (ms < 10) return `${ms.toFixed(2)} ms`
  if (ms < 1000) return `${Math.round(ms)} ms`
  return `${(ms / 1000).toFixed(1)} s`
}

// Made once: a formatter costs more than all that it formats.
const timeOfDay = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium', hourCycle: 'h23' })

/** `12:04:31`. */
export function clock(time: number): string {
  return timeOfDay.format(time)
}

/** How long ago, coarsely: `4 s`, `3 min`, `2 h`. */
export function ago(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`
}
