// The relay's rules, state by state and event by event, without a stream.

import { IllegalEventError, transition } from '@upcall/foundation/machine'
import { describe, expect, it, test } from 'vitest'
import { type Direction, type DirectionEffect, type DirectionEvent, directionTable, sides } from './direction.js'
import { type Abilities, type Relay, type RelayEvent, RelayMachine, relayTable } from './machine.js'

const error = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' })
const chunk = new Uint8Array(5)

describe('a direction', () => {
  const events: Record<DirectionEvent['type'], DirectionEvent> = {
    data: { type: 'data', chunk },
    taken: { type: 'taken', length: 3 },
    end: { type: 'end' },
    flushed: { type: 'flushed' },
    refused: { type: 'refused', error },
  }
  const states: Record<Direction['kind'], Direction> = {
    Flowing: { kind: 'Flowing', taken: 1, pending: 3 },
    Ending: { kind: 'Ending', taken: 1, pending: 3 },
    Finished: { kind: 'Finished', taken: 1, pending: 3 },
    Refused: { kind: 'Refused', taken: 1, lost: 3, error },
    Dropped: { kind: 'Dropped', taken: 1, lost: 3, error },
  }
  type Row = Partial<Record<DirectionEvent['type'], [next: Direction, ...effects: DirectionEffect['type'][]]>>
  const { Finished, Refused, Dropped } = states
  const rules: Record<Direction['kind'], Row> = {
    Flowing: {
      data: [{ kind: 'Flowing', taken: 1, pending: 8 }, 'write'],
      taken: [{ kind: 'Flowing', taken: 4, pending: 0 }],
      end: [{ kind: 'Ending', taken: 1, pending: 3 }, 'end'],
      refused: [Refused, 'drain'],
    },
    Ending: {
      taken: [{ kind: 'Ending', taken: 4, pending: 0 }],
      flushed: [Finished],
      refused: [Dropped],
    },
    Finished: {
      taken: [{ kind: 'Finished', taken: 4, pending: 0 }],
      refused: [Finished],
    },
    Refused: {
      data: [{ kind: 'Refused', taken: 1, lost: 8, error }],
      taken: [Refused],
      end: [Dropped, 'end'],
      refused: [Refused],
    },
    Dropped: { taken: [Dropped], flushed: [Dropped], refused: [Dropped] },
  }
  const cases = Object.values(states).flatMap((state) => Object.values(events).map((event) => [state, event] as const))

  it.each(cases)('$kind, %o', (state, event) => {
    const c = { now: 0, to: 'far' as const, effects: [] as DirectionEffect[] }
    const rule = rules[state.kind][event.type]
    if (rule === undefined) {
      expect(() => transition(directionTable, c, state, event)).toThrow(IllegalEventError)
      return
    }
    const [next, ...effects] = rule
    expect(transition(directionTable, c, state, event)).toEqual(next)
    expect(c.effects.map(({ type }) => type)).toEqual(effects)
  })
})

const socket: Abilities = { halfClose: true, mustBeHeard: false, mayLeaveUnread: false, silenceMs: 500 }
const withoutHalfClose: Abilities = { ...socket, halfClose: false }
const pipe: Abilities = { ...socket, mustBeHeard: true }
const program: Abilities = { halfClose: true, mustBeHeard: true, mayLeaveUnread: true, silenceMs: undefined }

/** A relay to which things happen, one a millisecond apart unless said otherwise. */
function relaying(options: { near?: Abilities; far?: Abilities; lingerMs?: number } = {}) {
  const { near = socket, far = socket, lingerMs } = options
  let now = 0
  const machine = new RelayMachine({ near, far, lingerMs, stallMs: 5_000 }, now)
  const done: string[] = []
  const rig = {
    machine,
    get kind() {
      return machine.state.kind
    },
    /** What it did since it was last asked, in short. */
    did(): string[] {
      return done.splice(0)
    },
    result: undefined as unknown,
    tell(...events: RelayEvent[]) {
      for (const event of events)
        for (const effect of machine.step(event, now)) {
          if (effect.type === 'settle') rig.result = effect.result
          const side = 'side' in effect ? effect.side : 'to' in effect ? effect.to : 'from' in effect ? effect.from : ''
          done.push(side ? `${effect.type} ${side}` : effect.type)
        }
      return rig
    },
    after(ms: number) {
      now += ms
      return rig.tell({ type: 'wake' })
    },
    parted: () => rig.tell({ type: 'parted', side: 'near', error: undefined }, { type: 'parted', side: 'far', error: undefined }),
  }
  return rig
}

const data = (to: 'near' | 'far'): RelayEvent => ({ type: 'data', to, chunk })
const taken = (to: 'near' | 'far'): RelayEvent => ({ type: 'taken', to, length: chunk.length })
const end = (to: 'near' | 'far'): RelayEvent => ({ type: 'end', to })
const flushed = (to: 'near' | 'far'): RelayEvent => ({ type: 'flushed', to })
const refused = (to: 'near' | 'far'): RelayEvent => ({ type: 'refused', to, error })
const gone = (side: 'near' | 'far'): RelayEvent => ({ type: 'gone', side })
const broken = (side: 'near' | 'far'): RelayEvent => ({ type: 'broken', side, error })
const abort: RelayEvent = { type: 'abort' }

describe('a relay that carries', () => {
  test('closes both ends when both directions have ended', () => {
    const rig = relaying().tell(data('far'), taken('far'), end('far'), flushed('far'), end('near'))
    expect([rig.kind, rig.did()]).toEqual(['Carrying', ['write far', 'end far', 'end near']])
    rig.tell(flushed('near'))
    expect([rig.kind, rig.did()]).toEqual(['Parting', ['stop', 'close near', 'close far']])
    rig.parted()
    expect([rig.kind, rig.result]).toEqual(['Parted', { toFar: 5, toNear: 0 }])
  })

  test('closes both ends when one has gone that had taken everything', () => {
    const rig = relaying().tell(data('near'), taken('near'), end('near'), gone('far')).parted()
    expect(rig.result).toEqual({ toFar: 0, toNear: 5 })
  })

  test('reports what an end that has gone had not taken', () => {
    const rig = relaying().tell(end('near'), data('far'), gone('far')).parted()
    expect(rig.result).toMatchObject({ toFar: 0, broken: { side: 'far', error: { code: 'EPIPE' } } })
  })

  test('does not report what a program leaves unread', () => {
    const rig = relaying({ far: program }).tell(end('near'), flushed('near'), data('far'), gone('far')).parted()
    expect(rig.result).toEqual({ toFar: 0, toNear: 0 })
  })

  test('hears a pipe before it closes after an end that has gone', () => {
    const ends = relaying({ near: pipe }).tell(end('near'), gone('far'))
    expect(ends.kind).toBe('Carrying')
    ends.tell(end('far')).parted()
    expect(ends.result).toEqual({ toFar: 0, toNear: 0 })

    const says = relaying({ near: pipe }).tell(end('near'), gone('far'), data('far')).parted()
    expect(says.result).toMatchObject({ broken: { side: 'far', error: { code: 'EPIPE' } } })

    const silent = relaying({ near: pipe }).tell(end('near'), gone('far')).after(499)
    expect(silent.kind).toBe('Carrying')
    expect(silent.after(1).parted().result).toEqual({ toFar: 0, toNear: 0 })
  })

  test('reads an end that takes no more to its end', () => {
    const rig = relaying().tell(data('far'), refused('far'), data('far'), data('near'), taken('near'))
    expect([rig.kind, rig.did()]).toEqual(['Carrying', ['write far', 'drain near', 'write near']])
    rig.tell(end('near'), broken('far'))
    expect(rig.did()).toEqual(['end near', 'stop', 'abandon near', 'destroy far'])
    expect(rig.parted().result).toMatchObject({ toFar: 0, toNear: 5, broken: { side: 'far' } })
  })

  test('destroys an end that breaks, and abandons the other one', () => {
    const rig = relaying().tell(broken('near'))
    expect(rig.did()).toEqual(['stop', 'destroy near', 'abandon far'])
    expect(rig.parted().result).toEqual({ toFar: 0, toNear: 0, broken: { side: 'near', error } })
  })

  test('destroys both ends on abort', () => {
    const rig = relaying().tell(data('far'), abort)
    expect(rig.did()).toEqual(['write far', 'stop', 'destroy near', 'destroy far'])
    expect(rig.parted().result).toEqual({ toFar: 0, toNear: 0, aborted: true })
  })

  test('waits for ever where there is no limit', () => {
    const rig = relaying().tell(end('far'), flushed('far'))
    expect(rig.machine.wakeAt).toBe(Number.POSITIVE_INFINITY)
    expect(rig.after(1e12).kind).toBe('Carrying')
  })

  test('closes both ends when the second direction is silent for lingerMs', () => {
    const rig = relaying({ lingerMs: 100 }).tell(end('far'), flushed('far')).after(60).tell(data('near'))
    // A slow reader is not silence.
    expect(rig.machine.wakeAt).toBe(Number.POSITIVE_INFINITY)
    rig.tell(taken('near')).after(99)
    expect([rig.kind, rig.machine.wakeAt]).toEqual(['Carrying', 160])
    expect(rig.after(1).parted().result).toEqual({ toFar: 0, toNear: 5 })
  })

  test('tries what there is for an end without half-close that has ended', () => {
    const rig = relaying({ far: withoutHalfClose }).tell(end('near'), flushed('near'))
    expect(rig.machine.wakeAt).toBe(500)
    rig.after(400).tell(data('far'))
    expect(rig.machine.wakeAt).toBe(5_400)
    rig.tell(taken('far'))
    expect(rig.machine.wakeAt).toBe(900)
    expect(rig.after(500).parted().result).toEqual({ toFar: 5, toNear: 0 })
  })

  test('reports an end without half-close that has ended and takes nothing', () => {
    const rig = relaying({ far: withoutHalfClose }).tell(end('near'), flushed('near'), data('far'), end('far')).after(5_000)
    expect(rig.did()).toContain('destroy far')
    expect(rig.parted().result).toMatchObject({ broken: { side: 'far', error: { code: 'ETIMEDOUT' } } })
  })

  test('does not count the silence of an end that comes to an end by itself', () => {
    const rig = relaying({ near: program, far: withoutHalfClose }).tell(end('near'), flushed('near'))
    expect(rig.machine.wakeAt).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('a relay that parts', () => {
  const parting = () => relaying().tell(data('far'), end('far'), end('near'), gone('near'))

  test('counts what still goes out', () => {
    expect(parting().tell(taken('far'), flushed('far')).parted().result).toEqual({ toFar: 5, toNear: 0 })
  })

  test('reports what never goes out, with the error that the end was closed with', () => {
    const rig = parting()
    rig.tell({ type: 'parted', side: 'far', error }, { type: 'parted', side: 'near', error: undefined })
    expect(rig.result).toEqual({ toFar: 0, toNear: 0, broken: { side: 'far', error } })
    expect(parting().parted().result).toMatchObject({ broken: { side: 'far', error: { code: 'ETIMEDOUT' } } })
  })

  test('ends at once on abort, which costs what has not gone out', () => {
    const rig = parting()
    rig.did()
    rig.tell({ type: 'parted', side: 'near', error: undefined }, abort)
    expect(rig.did()).toEqual(['destroy far'])
    expect(rig.tell({ type: 'parted', side: 'far', error: undefined }).result).toEqual({ toFar: 0, toNear: 0, aborted: true })
    // Nothing was lost here.
    expect(parting().tell(taken('far'), abort).parted().result).toEqual({ toFar: 5, toNear: 0 })
  })

  test('waits for both ends', () => {
    const rig = parting().tell(
      { type: 'parted', side: 'near', error: undefined },
      { type: 'parted', side: 'near', error: undefined },
    )
    expect(rig.kind).toBe('Parting')
  })
})

describe('every state and event', () => {
  const events: RelayEvent[] = [
    ...sides.flatMap((side) => [
      ...[data(side), taken(side), end(side), flushed(side), refused(side), gone(side), broken(side)],
      { type: 'parted', side, error: undefined } as const,
    ]),
    abort,
    { type: 'wake' },
  ]
  const reach: Record<Relay['kind'], () => ReturnType<typeof relaying>> = {
    Carrying: () => relaying(),
    Parting: () => relaying().tell(abort),
    Parted: () => relaying().tell(abort).parted(),
  }
  const cases = Object.values(reach).flatMap((open) => events.map((event) => [open().kind, event.type, open, event] as const))

  it.each(cases)('%s, %s: where the table says', (kind, type, open, event) => {
    const rig = open()
    // Flushed comes only after an end.
    if (kind === 'Carrying' && event.type === 'flushed') rig.tell(end(event.to))
    const entry = relayTable[kind][type]
    if (entry === undefined) expect(() => rig.tell(event)).toThrow(IllegalEventError)
    else expect(entry.to).toContain(rig.tell(event).kind)
  })

  test('what cannot happen', () => {
    const missing = cases.filter(([kind, type]) => relayTable[kind][type] === undefined).map(([kind, type]) => `${kind} ${type}`)
    expect([...new Set(missing)]).toEqual(['Carrying parted', 'Parting data', 'Parted data'])
  })
})
