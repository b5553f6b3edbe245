import { describe, expect, test } from 'vitest'
import { IllegalEventError, type Table, type Turn, to, transition } from './machine.js'

type Door = { readonly kind: 'Open'; readonly since: number } | { readonly kind: 'Shut' } | { readonly kind: 'Gone' }
type DoorEvent = { readonly type: 'push'; readonly force: number } | { readonly type: 'burn' }
type Effect = 'creak'

const table: Table<Door, DoorEvent, Turn<Effect>> = {
  Open: {
    push: to(['Shut', 'Open'], (c, state, { force }) => {
      if (force < 2) return state
      c.effects.push('creak')
      return { kind: 'Shut' }
    }),
    burn: to(['Gone'], () => ({ kind: 'Gone' })),
  },
  Shut: { push: to(['Open'], (c) => ({ kind: 'Open', since: c.now })), burn: to(['Gone'], () => ({ kind: 'Gone' })) },
  Gone: {},
}

describe('a table', () => {
  const turn = (now = 0): Turn<Effect> => ({ now, effects: [] })

  test('says what a state does with an event', () => {
    expect(transition(table, turn(7), { kind: 'Shut' }, { type: 'push', force: 1 })).toEqual({ kind: 'Open', since: 7 })
  })

  test('collects effects in the context', () => {
    const c = turn()
    expect(transition(table, c, { kind: 'Open', since: 0 }, { type: 'push', force: 2 })).toEqual({ kind: 'Shut' })
    expect(c.effects).toEqual(['creak'])
  })

  test('refuses an event that cannot happen', () => {
    expect(() => transition(table, turn(), { kind: 'Gone' }, { type: 'burn' })).toThrow(new IllegalEventError('Gone', 'burn'))
  })

  test('declares where each event may lead', () => {
    expect(table.Open.push?.to).toEqual(['Shut', 'Open'])
  })

  test('does not compile with a handler that leads elsewhere', () => {
    const wrong: Table<Door, DoorEvent, Turn<Effect>> = {
      // @ts-expect-error a handler may not return a state of a kind that it does not declare
      Open: { burn: to(['Shut'], () => ({ kind: 'Gone' })) },
      Shut: {},
      Gone: {},
    }
    expect(wrong).toBeDefined()
  })
})
