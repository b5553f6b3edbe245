import { IllegalEventError } from '@upcall/foundation/machine'
import { describe, expect, it } from 'vitest'
import { guestOf, type Life, type LifeContext, LifeCycle, type LifeEvent, launchOf, lifeTable, stepLife } from './life.js'

const LAUNCH = 3
const launch = LAUNCH
const why = 'it ended'

const states: Record<string, Life> = {
  Off: { kind: 'Off' },
  Launching: { kind: 'Launching', launch, serves: false },
  'Launching, serves': { kind: 'Launching', launch, serves: true },
  Probing: { kind: 'Probing', launch, serves: false, paused: false },
  'Probing, serves': { kind: 'Probing', launch, serves: true, paused: false },
  'Probing, paused': { kind: 'Probing', launch, serves: false, paused: true },
  'Probing, serves, paused': { kind: 'Probing', launch, serves: true, paused: true },
  Booting: { kind: 'Booting', launch },
  Booted: { kind: 'Booted', launch },
  Paused: { kind: 'Paused', launch, serves: false },
  'Paused, serves': { kind: 'Paused', launch, serves: true },
  Ending: { kind: 'Ending', launch, why: 'the monitor ended' },
  Dead: { kind: 'Dead' },
  Stopping: { kind: 'Stopping', launch },
  Stopped: { kind: 'Stopped' },
}
const events = {
  boot: { type: 'boot' },
  launched: { type: 'launched', launch },
  launchFailed: { type: 'launchFailed', launch, why },
  probed: { type: 'probed', launch },
  probeFailed: { type: 'probeFailed', launch, why, monitorEnded: false },
  monitorEnded: { type: 'probeFailed', launch, why, monitorEnded: true },
  greeted: { type: 'greeted' },
  paused: { type: 'paused', launch },
  resumed: { type: 'resumed', launch },
  reset: { type: 'reset', launch },
  exited: { type: 'exited', launch, why },
  closed: { type: 'closed', launch },
  stop: { type: 'stop' },
} as const satisfies Record<string, LifeEvent>
type EventName = keyof typeof events

/** What comes of it: the next state, and the effects. An event that is left out cannot happen. */
const NEXT = 'Launching: launch'
const AGAIN = 'Launching: guestGone guestNew forgetSpares launch'
const RESET = 'guestGone guestNew tellReset'
const DEAD = 'Dead: guestGone tellExit'
const STOPPING = 'Stopping: guestGone close'
const STOPPED = 'Stopped: stopped'
const probing = {
  boot: '=',
  probeFailed: 'Dead: close guestGone tellExit',
  monitorEnded: 'Ending: close',
  exited: DEAD,
  stop: STOPPING,
}
const live = { boot: AGAIN, exited: DEAD, stop: STOPPING }
const expected: Record<string, Partial<Record<EventName, string>>> = {
  Off: { boot: NEXT },
  Launching: {
    ...{ boot: '=', launched: 'Probing: tellLaunch', launchFailed: DEAD, greeted: 'Launching, serves' },
    stop: 'Stopping: guestGone cancel',
  },
  'Launching, serves': {
    ...{ boot: '=', launched: 'Probing, serves: tellLaunch', launchFailed: DEAD, greeted: '=' },
    stop: 'Stopping: guestGone cancel',
  },
  Probing: {
    ...{ ...probing, probed: 'Booting', greeted: 'Probing, serves', paused: 'Probing, paused', resumed: '=' },
    reset: `=: ${RESET}`,
  },
  'Probing, serves': {
    ...{ ...probing, probed: 'Booted', greeted: '=', paused: 'Probing, serves, paused', resumed: '=' },
    reset: `Probing: ${RESET}`,
  },
  'Probing, paused': {
    ...{ ...probing, probed: 'Paused', greeted: 'Probing, serves, paused', paused: '=', resumed: 'Probing' },
    reset: `=: ${RESET}`,
  },
  'Probing, serves, paused': {
    ...{ ...probing, probed: 'Paused, serves', greeted: '=', paused: '=', resumed: 'Probing, serves' },
    reset: `Probing, paused: ${RESET}`,
  },
  Booting: { ...live, greeted: 'Booted', paused: 'Paused', resumed: '=', reset: `=: ${RESET}` },
  Booted: { ...live, greeted: '=', paused: 'Paused, serves', resumed: '=', reset: `Booting: ${RESET}` },
  Paused: { ...live, greeted: 'Paused, serves', paused: '=', resumed: 'Booting', reset: `=: ${RESET}` },
  'Paused, serves': { ...live, greeted: '=', paused: '=', resumed: 'Booted', reset: `Paused: ${RESET}` },
  Ending: { ...live, greeted: '=', closed: DEAD },
  Dead: { boot: 'Launching: guestNew forgetSpares launch', greeted: '=', stop: STOPPED },
  Stopping: {
    ...{ launched: '=: close', launchFailed: STOPPED, probed: '=', probeFailed: '=', monitorEnded: '=', greeted: '=' },
    ...{ paused: '=', resumed: '=', reset: '=', exited: STOPPED, closed: STOPPED, stop: '=' },
  },
  Stopped: { greeted: '=', stop: '=' },
}

const context = (): LifeContext => ({ now: 0, effects: [], launches: LAUNCH })
const names = Object.keys(states)
const pairs = names.flatMap((state) => (Object.keys(events) as EventName[]).map((event) => [state, event] as const))

/** `Booted`, or `=` for the same state, and then the effects. */
function outcome(before: Life, after: Life, c: LifeContext): string {
  // A launch has the next number.
  const known = { ...after, ...(launchOf(after) === LAUNCH + 1 && { launch }) }
  const name =
    after === before || same(before, known) ? '=' : names.find((each) => same(states[each]!, known) || isDead(each, known))!
  const effects = c.effects.map(({ type }) => type).join(' ')
  return effects === '' ? name : `${name}: ${effects}`
}
const same = (a: object, b: object) => JSON.stringify(a) === JSON.stringify(b)
const isDead = (name: string, { kind }: { kind: string }) => name === kind && kind === 'Ending'

describe('the life of a guest', () => {
  it.each(pairs)('%s, %s', (state, event) => {
    const c = context()
    const before = states[state]!
    const wanted = expected[state]![event]
    const step = () => stepLife(c, before, events[event])
    // What is about a launch means nothing where there is none.
    const isStale = 'launch' in events[event] && launchOf(before) === undefined
    if (isStale) expect(outcome(before, step(), c)).toBe('=')
    else if (wanted === undefined) expect(step).toThrow(IllegalEventError)
    else expect(outcome(before, step(), c)).toBe(wanted)
  })

  it.each(pairs)('%s, %s of another launch, changes nothing', (state, event) => {
    const late = events[event]
    if (!('launch' in late)) return
    const c = context()
    expect(stepLife(c, states[state]!, { ...late, launch: LAUNCH - 1 })).toBe(states[state])
    expect(c.effects).toEqual([])
  })

  it('leads where the table says', () => {
    for (const [state, event] of pairs) {
      const entry = (lifeTable[states[state]!.kind] as Record<string, { to: readonly string[] } | undefined>)[events[event].type]
      const wanted = expected[state]![event]?.split(/[:,]/)[0]
      if (entry) expect(entry.to).toContain(wanted === '=' ? states[state]!.kind : wanted)
    }
  })

  it('is seen from outside as booting, booted, paused or dead', () => {
    expect(Object.fromEntries(names.map((name) => [name, guestOf(states[name]!)]))).toEqual({
      ...{ Off: 'dead', Launching: 'booting', 'Launching, serves': 'booting', Probing: 'booting', 'Probing, serves': 'booting' },
      ...{ 'Probing, paused': 'paused', 'Probing, serves, paused': 'paused', Booting: 'booting', Booted: 'booted' },
      ...{ Paused: 'paused', 'Paused, serves': 'paused', Ending: 'booting', Dead: 'dead', Stopping: 'dead', Stopped: 'dead' },
    })
  })

  it('tells why a guest is gone', () => {
    const c = context()
    stepLife(c, states.Booted!, events.exited)
    expect(c.effects).toEqual([
      { type: 'guestGone', why },
      { type: 'tellExit', why },
    ])
    const ending = context()
    stepLife(ending, states.Ending!, events.closed)
    expect(ending.effects).toContainEqual({ type: 'tellExit', why: 'the monitor ended' })
  })

  it('numbers its launches, and hands out its effects once', () => {
    const cycle = new LifeCycle()
    expect(cycle.step({ type: 'boot' }, 0)).toEqual([{ type: 'launch', launch: 1 }])
    expect(cycle.step({ type: 'launchFailed', launch: 1, why }, 0).map(({ type }) => type)).toEqual(['guestGone', 'tellExit'])
    expect(cycle.step({ type: 'boot' }, 0).at(-1)).toEqual({ type: 'launch', launch: 2 })
    expect(cycle.step({ type: 'wake' }, 0)).toEqual([])
    expect(cycle.state).toEqual({ kind: 'Launching', launch: 2, serves: false })
  })
})
