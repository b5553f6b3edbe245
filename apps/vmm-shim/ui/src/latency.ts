// Round-trip times as a line. Pure.

import type { MessageView } from '../../src/page/events.js'

export interface Latency {
  /** Within a box of `WIDTH` by `HEIGHT`; oldest first. */
  points: { x: number; y: number; ms: number }[]
  median: number
  most: number
  last: number
  /** The top of the scale, in milliseconds. */
  top: number
}

export const WIDTH = 300
export const HEIGHT = 60
const POINTS = 60

/** Of the last replies; undefined if there is not one. */
export function latency(messages: readonly MessageView[]): Latency | undefined {
  const times = messages.flatMap(({ rttMs }) => (rttMs === undefined ? [] : [rttMs])).slice(-POINTS)
  if (times.length === 0) return undefined
  const sorted = [...times].sort((a, b) => a - b)
  const most = sorted.at(-1)!
  const top = roundUp(most)
  const step = WIDTH / (POINTS - 1)
  const from = WIDTH - (times.length - 1) * step
  const points = times.map((ms, at) => ({ x: from + at * step, y: HEIGHT - (ms / top) * HEIGHT, ms }))
  return { points, median: sorted[(sorted.length - 1) >> 1]!, most, last: times.at(-1)!, top }
}

/** The next of 1, 2, 5, 10, 20, 50, … */
function roundUp(ms: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(ms, 0.01)))
  return [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= ms) ?? 10 * power
}
