import { describe, expect, test } from 'vitest'
import { ConnectionMachine, type Event, type EventName, IllegalEventError, type StateName } from './connection.js'

const limits = { serviceByteTimeoutMs: 10_000, writeTimeoutMs: 30_000 }
const bytes = (...values: number[]) => Uint8Array.from(values)
const names = (effects: { do: string }[]) => effects.map((effect) => effect.do)

const events: { [E in EventName]: Extract<Event, { name: E }> } = {
  chunk: { name: 'chunk', chunk: bytes(0x64, 1, 2) },
  eof: { name: 'eof' },
  opened: { name: 'opened', greeting: bytes(9) },
  refused: { name: 'refused', end: { reason: 'unavailable', byte: 0x64 } },
  replied: { name: 'replied', replies: [bytes(7)] },
  failed: { name: 'failed', error: 'broken' },
  progress: { name: 'progress' },
  flushed: { name: 'flushed' },
  finished: { name: 'finished' },
  tick: { name: 'tick' },
  stop: { name: 'stop', end: { reason: 'server-closed' } },
  error: { name: 'error', error: 'reset' },
  closed: { name: 'closed' },
}

/** How each state is reached from the start, at time 0. */
const ways: { [S in StateName]: Event[] } = {
  AwaitingService: [],
  Opening: [{ name: 'chunk', chunk: bytes(0x64) }],
  Greeting: [{ name: 'chunk', chunk: bytes(0x64) }, events.opened],
  Reading: [{ name: 'chunk', chunk: bytes(0x64) }, events.opened, events.flushed],
  Handling: [{ name: 'chunk', chunk: bytes(0x64) }, events.opened, events.flushed, events.chunk],
  Writing: [{ name: 'chunk', chunk: bytes(0x64) }, events.opened, events.flushed, events.chunk, events.replied],
  Ending: [events.eof],
  Ended: [events.stop],
}

function machineIn(state: StateName): ConnectionMachine {
  const machine = new ConnectionMachine(limits, 0)
  for (const event of ways[state]) machine.on(event, 0)
  expect(machine.state.name).toBe(state)
  return machine
}

/** State × event → next state and effects, at a time when no deadline has passed. What is missing is illegal. */
const expected: { [S in StateName]: { [E in EventName]?: string } } = {
  AwaitingService: {
    chunk: 'Opening open',
    eof: 'Ending end',
    tick: 'AwaitingService',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Opening: {
    opened: 'Greeting write',
    refused: 'Ending end',
    failed: 'Ended destroy',
    tick: 'Opening',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Greeting: {
    progress: 'Greeting',
    flushed: 'Reading',
    tick: 'Greeting',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Reading: {
    chunk: 'Handling receive',
    eof: 'Ending end',
    tick: 'Reading',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Handling: {
    replied: 'Writing write',
    failed: 'Ended destroy',
    tick: 'Handling',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Writing: {
    progress: 'Writing',
    flushed: 'Reading',
    failed: 'Ended destroy',
    tick: 'Writing',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Ending: {
    finished: 'Ended destroy',
    tick: 'Ending',
    stop: 'Ended destroy',
    error: 'Ended destroy',
    closed: 'Ended',
  },
  Ended: {
    opened: 'Ended',
    refused: 'Ended',
    replied: 'Ended',
    failed: 'Ended',
    progress: 'Ended',
    flushed: 'Ended',
    finished: 'Ended',
    tick: 'Ended',
    stop: 'Ended',
    error: 'Ended',
    closed: 'Ended',
  },
}

describe('the table', () => {
  for (const state of Object.keys(expected) as StateName[]) {
    for (const event of Object.keys(events) as EventName[]) {
      const outcome = expected[state][event]
      if (outcome === undefined) {
        test(`${state} × ${event} throws and leaves the state alone`, () => {
          const machine = machineIn(state)
          const before = machine.state
          expect(() => machine.on(events[event], 1)).toThrow(IllegalEventError)
          expect(machine.state).toBe(before)
        })
      } else {
        test(`${state} × ${event} → ${outcome}`, () => {
          const machine = machineIn(state)
          const effects = machine.on(events[event], 1)
          expect([machine.state.name, ...names(effects)].join(' ')).toBe(outcome)
        })
      }
    }
  }
})

describe('what the table carries', () => {
  test('the service byte goes to the driver, what came behind it to the service', () => {
    const machine = new ConnectionMachine(limits, 0)
    expect(machine.on(events.chunk, 0)).toEqual([{ do: 'open', byte: 0x64 }])
    expect(machine.on(events.opened, 0)).toEqual([{ do: 'write', chunks: [bytes(9)] }])
    expect(machine.on(events.flushed, 0)).toEqual([{ do: 'receive', chunk: bytes(1, 2) }])
    expect(machine.state.name).toBe('Handling')
  })

  test('an empty chunk is nothing', () => {
    for (const state of ['AwaitingService', 'Reading'] as const) {
      const machine = machineIn(state)
      expect(machine.on({ name: 'chunk', chunk: bytes() }, 0)).toEqual([])
      expect(machine.state.name).toBe(state)
    }
  })

  test('a chunk goes to the service as it is, its replies to the stream', () => {
    const machine = machineIn('Reading')
    expect(machine.on(events.chunk, 0)).toEqual([{ do: 'receive', chunk: bytes(0x64, 1, 2) }])
    expect(machine.on(events.replied, 0)).toEqual([{ do: 'write', chunks: [bytes(7)] }])
  })

  test('it reads while it awaits the service byte or a request, and at no other time', () => {
    const reading = (Object.keys(ways) as StateName[]).filter((state) => machineIn(state).reads)
    expect(reading).toEqual(['AwaitingService', 'Reading'])
  })

  test.each([
    ['Reading', 'eof', { reason: 'client' }],
    ['AwaitingService', 'eof', { reason: 'client' }],
    ['Opening', 'refused', { reason: 'unavailable', byte: 0x64 }],
    ['Opening', 'failed', { reason: 'service-error', error: 'broken' }],
    ['Handling', 'failed', { reason: 'service-error', error: 'broken' }],
    ['Writing', 'failed', { reason: 'service-error', error: 'broken' }],
    ['Reading', 'error', { reason: 'stream-error', error: 'reset' }],
    ['Reading', 'stop', { reason: 'server-closed' }],
    ['Reading', 'closed', { reason: 'client' }],
  ] as const)('%s ends by %s for its own reason', (state, event, end) => {
    const machine = machineIn(state)
    machine.on(events[event], 0)
    expect(machine.state).toMatchObject({ end })
  })

  test.each(['finished', 'stop', 'error', 'closed'] as const)('the first reason stands when %s follows', (event) => {
    const machine = machineIn('Opening')
    machine.on(events.refused, 0)
    machine.on(events[event], 1)
    expect(machine.state).toEqual({ name: 'Ended', end: { reason: 'unavailable', byte: 0x64 } })
  })
})

describe('deadlines', () => {
  test.each([
    ['AwaitingService', 10_000, 'Ending', 'service-byte-timeout'],
    ['Greeting', 30_000, 'Ended', 'write-timeout'],
    ['Writing', 30_000, 'Ended', 'write-timeout'],
    ['Ending', 30_000, 'Ended', 'client'],
  ] as const)('%s lasts %i ms and not one more', (state, deadline, next, reason) => {
    const machine = machineIn(state)
    expect(machine.deadline).toBe(deadline)
    expect(machine.on(events.tick, deadline - 1)).toEqual([])
    expect(machine.state.name).toBe(state)
    expect(names(machine.on(events.tick, deadline))).toEqual([next === 'Ended' ? 'destroy' : 'end'])
    expect(machine.state).toMatchObject({ name: next, end: { reason } })
  })

  test.each(['Greeting', 'Writing'] as const)('%s starts anew with each part that the client takes', (state) => {
    const machine = machineIn(state)
    machine.on(events.progress, 29_999)
    expect(machine.deadline).toBe(59_999)
  })

  test.each(['Opening', 'Reading', 'Handling', 'Ended'] as const)('%s has none', (state) => {
    expect(machineIn(state).deadline).toBeUndefined()
  })
})
