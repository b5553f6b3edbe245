import { describe, expect, it } from 'vitest'
import type { MessageView, OutcomeView, Snapshot } from '../../src/page/events.js'
import { latency } from './latency.js'
import { changed, EMPTY, MOST } from './model.js'
import { announcement, errnoText, unsettled, verdictOf } from './verdict.js'

const message = (seq: number, rttMs?: number): MessageView => ({
  ...{ seq, at: 0, direction: 'to-host', title: '', hex: '', length: 1024, fields: [] },
  ...(rttMs !== undefined && { rttMs }),
})

const snapshot: Snapshot = {
  about: { guest: 'simulated', arch: 'x86_64', address: '', startedAt: 1, memory: { boot: 1, max: 1, block: 1 } },
  vm: null,
  session: { kind: 'Ready', since: 0 },
  messages: [message(5), message(6)],
  outcomes: [],
  busy: [],
  console: 'a',
}

describe('the model', () => {
  it('begins with a snapshot, then takes each event in', () => {
    let model = changed(EMPTY, 'snapshot', snapshot)
    model = changed(model, 'message', message(7))
    model = changed(model, 'console', { text: 'b' })
    model = changed(model, 'session', { kind: 'Busy', since: 1 })
    expect(model.messages.map(({ seq }) => seq)).toEqual([5, 6, 7])
    expect(model).toMatchObject({ console: 'ab', session: { kind: 'Busy' }, previous: 'Ready' })
  })

  it('keeps what it has of the same program when it is connected again, and takes no message twice', () => {
    let model = changed(EMPTY, 'snapshot', { ...snapshot, messages: [message(1), message(2), message(5)] })
    model = changed(model, 'snapshot', snapshot)
    expect(model.messages.map(({ seq }) => seq)).toEqual([1, 2, 5, 6])
    model = changed(model, 'snapshot', { ...snapshot, about: { ...snapshot.about, startedAt: 2 }, messages: [message(1)] })
    expect(model.messages.map(({ seq }) => seq)).toEqual([1])
  })

  it('is bounded', () => {
    let model = changed(EMPTY, 'snapshot', snapshot)
    for (let seq = 7; seq < 7 + 2 * MOST.messages; seq++) model = changed(model, 'message', message(seq))
    model = changed(model, 'console', { text: 'x'.repeat(2 * MOST.console) })
    expect(model.messages).toHaveLength(MOST.messages)
    expect(model.messages.at(-1)!.seq).toBe(6 + 2 * MOST.messages)
    expect(model.console).toHaveLength(MOST.console)
  })
})

const fault = {
  fault_message: '',
  outcome: 'guest-error',
  errno: -17,
  errnoName: 'EEXIST',
  code: 'GUEST_ERROR',
  reconcile: false,
} as const
const outcome = (seq: number, op: string, more: Partial<OutcomeView> = {}): OutcomeView => ({
  seq,
  at: 0,
  durationMs: 1,
  op,
  status: 200,
  ...more,
})

describe('outcomes', () => {
  it('has four verdicts', () => {
    const of = (outcome: 'guest-error' | 'not-sent' | 'indeterminate') =>
      verdictOf({ status: 500, fault: { ...fault, what: '', outcome } })
    expect([verdictOf({ status: 204 }), of('guest-error'), of('not-sent'), of('indeterminate')]).toEqual([
      'done',
      'refused',
      'not done',
      'unknown',
    ])
  })

  it('is said in one sentence each: what, why, and what to do', () => {
    const refused = outcome(1, 'drive add vdb', {
      status: 502,
      fault: { ...fault, what: 'the guest has it', next: 'Remove it first.' },
    })
    expect(announcement(refused)).toBe('drive add vdb: refused. The guest has it. Remove it first.')
    expect(announcement(outcome(1, 'drive add vdb'))).toBe('drive add vdb: done.')
    expect([errnoText(fault), errnoText({ errno: -1 }), errnoText({ errno: null })]).toEqual(['−17 EEXIST', '−1', undefined])
  })

  it('offers a reconcile until one has succeeded', () => {
    const unknown = outcome(1, 'drive add vdb', {
      status: 504,
      fault: { ...fault, outcome: 'indeterminate', what: '', reconcile: true },
    })
    const failed = outcome(2, 'reconcile', { status: 503, fault: { ...fault, outcome: 'not-sent', what: '' } })
    expect(unsettled([unknown, outcome(2, 'resize'), failed])).toBe(unknown)
    expect(unsettled([unknown, outcome(2, 'reconcile'), outcome(3, 'resize')])).toBeUndefined()
  })
})

describe('latency', () => {
  it('is of the last replies alone, on a scale of round numbers', () => {
    const found = latency([message(1), message(2, 3), message(3, 1), message(4, 12)])!
    expect(found).toMatchObject({ median: 3, most: 12, last: 12, top: 20 })
    expect(found.points.map(({ ms }) => ms)).toEqual([3, 1, 12])
    expect(found.points.at(-1)!.x).toBe(300)
    expect(latency([message(1)])).toBeUndefined()
    expect(latency(Array.from({ length: 100 }, (_, at) => message(at, 0)))!.points).toHaveLength(60)
  })
})
