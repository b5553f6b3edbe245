import { IllegalEventError } from '@upcall/foundation/machine'
import { describe, expect, test } from 'vitest'
import { ConnectionMachine } from './connection-machine.js'
import type { ConnectionEvent, EventOf, EventType } from './event.js'
import type { Kind } from './state.js'
import { table } from './table.js'

const limits = { serviceByteTimeoutMs: 10_000, writeTimeoutMs: 30_000 }
const bytes = (...values: number[]) => Uint8Array.from(values)
const types = (effects: { type: string }[]) => effects.map((effect) => effect.type)

const events: { [E in EventType]: EventOf<E> } = {
  chunk: { type: 'chunk', chunk: bytes(0x64, 1, 2) },
  eof: { type: 'eof' },
  opened: { type: 'opened', greeting: bytes(9) },
  refused: { type: 'refused', end: { reason: 'unavailable', byte: 0x64 } },
  answered: { type: 'answered' },
  reply: { type: 'reply', bytes: bytes(7) },
  replied: { type: 'replied' },
  failed: { type: 'failed', error: 'broken' },
  taken: { type: 'taken' },
  finished: { type: 'finished' },
  wake: { type: 'wake' },
  stop: { type: 'stop', end: { reason: 'server-closed' } },
  error: { type: 'error', error: 'reset' },
  closed: { type: 'closed' },
}

const opened: ConnectionEvent[] = [{ type: 'chunk', chunk: bytes(0x64) }, events.opened, events.taken]
/** How each state is reached from the start, at time 0. */
const ways: { [K in Kind]: ConnectionEvent[] } = {
  Selecting: [],
  Opening: opened.slice(0, 1),
  Greeting: opened.slice(0, 2),
  Reading: opened,
  Handling: [...opened, events.chunk],
  Replying: [...opened, events.chunk, events.answered],
  Writing: [...opened, events.chunk, events.answered, events.reply],
  Ending: [events.eof],
  Ended: [events.stop],
}

function machineIn(kind: Kind): ConnectionMachine {
  const machine = new ConnectionMachine(limits, 0)
  for (const event of ways[kind]) machine.step(event, 0)
  expect(machine.state.kind).toBe(kind)
  return machine
}

const live = { stop: 'Ended destroy', error: 'Ended destroy', closed: 'Ended' }
const over = Object.keys(events).filter((type) => type !== 'eof')

/** State × event → next state and effects, at a time when no deadline has passed. Whatever is missing is illegal. */
const expected: { [K in Kind]: { [E in EventType]?: string } } = {
  Selecting: { ...live, chunk: 'Opening open', eof: 'Ending end', wake: 'Selecting' },
  Opening: { ...live, opened: 'Greeting write', refused: 'Ending end', failed: 'Ended destroy', wake: 'Opening' },
  Greeting: { ...live, taken: 'Reading', wake: 'Greeting' },
  Reading: { ...live, chunk: 'Handling receive', eof: 'Ending end', wake: 'Reading' },
  Handling: { ...live, answered: 'Replying next', failed: 'Ended destroy', wake: 'Handling' },
  Replying: { ...live, reply: 'Writing write', replied: 'Reading', failed: 'Ended destroy', wake: 'Replying' },
  Writing: { ...live, taken: 'Replying next', wake: 'Writing' },
  Ending: { ...live, chunk: 'Ending', finished: 'Ended destroy', wake: 'Ending' },
  Ended: Object.fromEntries(over.map((type) => [type, 'Ended'])),
}

describe('the table', () => {
  for (const state of Object.keys(expected) as Kind[]) {
    for (const event of Object.keys(events) as EventType[]) {
      const outcome = expected[state][event]
      if (outcome === undefined) {
        test(`${state} × ${event} throws and leaves the state alone`, () => {
          const machine = machineIn(state)
          const before = machine.state
          expect(() => machine.step(events[event], 1)).toThrow(IllegalEventError)
          expect(machine.state).toBe(before)
        })
      } else {
        test(`${state} × ${event} → ${outcome}`, () => {
          const machine = machineIn(state)
          const effects = machine.step(events[event], 1)
          expect([machine.state.kind, ...types(effects)].join(' ')).toBe(outcome)
        })
      }
    }
  }
})

test('every transition declares where it leads', () => {
  for (const kind of Object.keys(expected) as Kind[])
    for (const type of Object.keys(events) as EventType[]) {
      const [next] = expected[kind][type]?.split(' ') ?? []
      expect([kind, type, next === undefined || table[kind][type]!.to.includes(next as never)]).toEqual([kind, type, true])
    }
})

describe('what the table carries', () => {
  test('the service byte goes to the driver, what came after it to the service', () => {
    const machine = new ConnectionMachine(limits, 0)
    expect(machine.step(events.chunk, 0)).toEqual([{ type: 'open', byte: 0x64 }])
    expect(machine.step(events.opened, 0)).toEqual([{ type: 'write', bytes: bytes(9) }])
    expect(machine.step(events.taken, 0)).toEqual([{ type: 'receive', chunk: bytes(1, 2) }])
    expect(machine.state.kind).toBe('Handling')
  })

  test('an empty chunk is nothing', () => {
    for (const state of ['Selecting', 'Reading'] as const) {
      const machine = machineIn(state)
      expect(machine.step({ type: 'chunk', chunk: bytes() }, 0)).toEqual([])
      expect(machine.state.kind).toBe(state)
    }
  })

  test('a chunk goes to the service as it is, its replies to the stream', () => {
    const machine = machineIn('Reading')
    expect(machine.step(events.chunk, 0)).toEqual([{ type: 'receive', chunk: bytes(0x64, 1, 2) }])
    expect(machine.step(events.answered, 0)).toEqual([{ type: 'next' }])
    expect(machine.step(events.reply, 0)).toEqual([{ type: 'write', bytes: bytes(7) }])
  })

  test('it reads while it awaits the service byte or a request, and at no other time', () => {
    const reading = (Object.keys(ways) as Kind[]).filter((state) => machineIn(state).reads)
    expect(reading).toEqual(['Selecting', 'Reading'])
  })

  test.each([
    ['Reading', 'eof', { reason: 'client' }],
    ['Selecting', 'eof', { reason: 'client' }],
    ['Opening', 'refused', { reason: 'unavailable', byte: 0x64 }],
    ['Opening', 'failed', { reason: 'service-error', error: 'broken' }],
    ['Handling', 'failed', { reason: 'service-error', error: 'broken' }],
    ['Replying', 'failed', { reason: 'service-error', error: 'broken' }],
    ['Reading', 'error', { reason: 'stream-error', error: 'reset' }],
    ['Reading', 'stop', { reason: 'server-closed' }],
    ['Reading', 'closed', { reason: 'client' }],
  ] as const)('%s ends by %s for its own reason', (state, event, end) => {
    const machine = machineIn(state)
    machine.step(events[event], 0)
    expect(machine.state).toMatchObject({ end })
  })

  test.each(['finished', 'stop', 'error', 'closed'] as const)('the first reason stands when %s follows', (event) => {
    const machine = machineIn('Opening')
    machine.step(events.refused, 0)
    machine.step(events[event], 1)
    expect(machine.state).toEqual({ kind: 'Ended', end: { reason: 'unavailable', byte: 0x64 } })
  })
})

describe('deadlines', () => {
  test.each([
    ['Selecting', 10_000, 'Ending', 'service-byte-timeout'],
    ['Greeting', 30_000, 'Ended', 'write-timeout'],
    ['Writing', 30_000, 'Ended', 'write-timeout'],
    ['Ending', 30_000, 'Ended', 'client'],
  ] as const)('%s lasts %i ms and not one more', (state, deadline, next, reason) => {
    const machine = machineIn(state)
    expect(machine.wakeAt).toBe(deadline)
    expect(machine.step(events.wake, deadline - 1)).toEqual([])
    expect(machine.state.kind).toBe(state)
    expect(types(machine.step(events.wake, deadline))).toEqual([next === 'Ended' ? 'destroy' : 'end'])
    expect(machine.state).toMatchObject({ kind: next, end: { reason } })
  })

  test('each reply has a time of its own, and the service has any time to make it', () => {
    const machine = machineIn('Writing')
    machine.step(events.taken, 29_999)
    expect(machine.wakeAt).toBe(Number.POSITIVE_INFINITY)
    machine.step(events.reply, 100_000)
    expect(machine.wakeAt).toBe(130_000)
  })

  test.each(['Opening', 'Reading', 'Handling', 'Replying', 'Ended'] as const)('%s has none', (state) => {
    expect(machineIn(state).wakeAt).toBe(Number.POSITIVE_INFINITY)
  })
})
