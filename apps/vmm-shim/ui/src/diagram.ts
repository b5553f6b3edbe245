// The session's states and arrows, as docs/machines.md has them, with places of their own. Pure.

import machine from './session-machine.json'

type Point = readonly [x: number, y: number]

export interface Node {
  state: string
  x: number
  y: number
  width: number
  height: number
  /** What it is to be in this state, one sentence. */
  meaning: string
}

export interface Arrow {
  from: string
  to: string
  /** The events that may lead that way, in words. */
  on: readonly string[]
  /** An SVG path. */
  line: string
  head: string
}

export const WIDTH = 330
export const HEIGHT = 296

const NODE_HEIGHT = 28
/** The states of the way up stand below each other; those that give up and end stand beside them. */
const COLUMN = 132
const SIDE = 284
/** Rails: to the left back to the next attempt and to a clean connection, to the right to giving up and to the end. */
const [RETRY, CLEAN, FAILED, CLOSED] = [22, 54, 206, 224]
const RADIUS = 6
const HEAD = 6
const PLACES: Record<string, { x: number; y: number; width: number; meaning: string }> = {
  Due: { x: COLUMN, y: 34, width: 92, meaning: 'There is no connection. The next attempt is due soon.' },
  Dialing: { x: COLUMN, y: 89, width: 92, meaning: 'The client connects to the guest.' },
  Greeting: { x: COLUMN, y: 144, width: 92, meaning: "The client is connected, and waits for the service's greeting." },
  Ready: { x: COLUMN, y: 199, width: 92, meaning: 'The guest can be asked.' },
  Busy: { x: COLUMN, y: 254, width: 92, meaning: 'The guest was asked, and its reply is awaited.' },
  Failed: { x: SIDE, y: 34, width: 76, meaning: 'The client has given up. A reconcile tries again.' },
  Closed: { x: SIDE, y: 254, width: 76, meaning: 'The client is closed.' },
}

/** What the machine's events are, for a reader who does not know its table. */
const EVENTS: Record<string, string> = {
  wake: 'a timer ends',
  reconnect: 'it is asked to connect',
  close: 'it is closed',
  dialed: 'it is connected',
  dialFailed: 'nobody listens',
  bytes: 'bytes arrive',
  ended: 'the connection ends',
  unsent: 'nothing can be sent',
  next: 'a request waits',
  abort: 'a request is given up',
}

export const BEGINS = machine.begins

export const nodes: Node[] = machine.states.map((state) => ({ state, height: NODE_HEIGHT, ...placeOf(state) }))

export const arrows: Arrow[] = machine.arrows.map(({ from, to, on }) => {
  const points = route(placeOf(from), placeOf(to), from, to)
  return { from, to, on: on.map(wordsOf), line: rounded(points), head: headOf(points) }
})

/** Where a reader begins, and where the machine ends. */
export const START: Point = [COLUMN, 7]
export const END: Point = [SIDE, 285]

function wordsOf(event: string): string {
  const words = EVENTS[event]
  if (!words) throw new Error(`diagram.ts has no words for the event ${event}`)
  return words
}

function placeOf(state: string) {
  const place = PLACES[state]
  if (!place) throw new Error(`diagram.ts has no place for the state ${state}`)
  return place
}

function route(a: { x: number; y: number; width: number }, b: typeof a, from: string, to: string): Point[] {
  const [left, right] = [a.x - a.width / 2, a.x + a.width / 2]
  const half = NODE_HEIGHT / 2
  if (to === 'Due') {
    const y = a.y + ({ Dialing: -7, Ready: 7 }[from] ?? 0)
    return [
      [left, y],
      [RETRY, y],
      [RETRY, b.y],
      [b.x - b.width / 2, b.y],
    ] // prettier-ignore
  }
  if (from === 'Ready' && to === 'Dialing')
    return [
      [left, a.y - 7],
      [CLEAN, a.y - 7],
      [CLEAN, b.y + 7],
      [b.x - b.width / 2, b.y + 7],
    ] // prettier-ignore
  if (from === 'Failed' && to === 'Closed')
    return [
      [a.x, a.y + half],
      [b.x, b.y - half],
    ] // prettier-ignore
  if (from === 'Failed')
    return [
      [a.x - 16, a.y + half],
      [a.x - 16, b.y],
      [b.x + b.width / 2, b.y],
    ] // prettier-ignore
  if (to === 'Failed' || to === 'Closed') {
    const [rail, by] = to === 'Failed' ? [FAILED, -7] : [CLOSED, 7]
    return [
      [right, a.y + by],
      [rail, a.y + by],
      [rail, b.y + by],
      [b.x - b.width / 2, b.y + by],
    ] // prettier-ignore
  }
  // Down to the next one, or back up from a reply.
  const x = a.x + (from === 'Busy' ? 9 : to === 'Busy' ? -9 : 0)
  return from === 'Busy'
    ? [
        [x, a.y - half],
        [x, b.y + half],
      ]
    : [
        [x, a.y + half],
        [x, b.y - half],
      ] // prettier-ignore
}

/** Straight lines with round corners. It ends where the head begins. */
function rounded(points: readonly Point[]): string {
  const line = points.filter((point, at) => at === 0 || !same(point, points[at - 1]!))
  const parts = [`M${line[0]!.join(' ')}`]
  for (let at = 1; at < line.length - 1; at++) {
    const [before, corner, after] = [line[at - 1]!, line[at]!, line[at + 1]!]
    parts.push(`L${toward(corner, before, RADIUS).join(' ')}`, `Q${corner.join(' ')} ${toward(corner, after, RADIUS).join(' ')}`)
  }
  parts.push(`L${toward(line.at(-1)!, line.at(-2)!, HEAD - 1).join(' ')}`)
  return parts.join('')
}

function headOf(points: readonly Point[]): string {
  const tip = points.at(-1)!
  const before = points.findLast((point) => !same(point, tip))!
  const [x, y] = toward(tip, before, HEAD)
  const across: Point = tip[0] === before[0] ? [3.2, 0] : [0, 3.2]
  return `M${tip.join(' ')}L${x + across[0]} ${y + across[1]}L${x - across[0]} ${y - across[1]}Z`
}

function same(a: Point, b: Point): boolean {
  return a[0] === b[0] && a[1] === b[1]
}

/** The point so far from one point on the way to another. All lines are level or upright. */
function toward([x, y]: Point, [toX, toY]: Point, distance: number): Point {
  return [x + Math.sign(toX - x) * distance, y + Math.sign(toY - y) * distance]
}
