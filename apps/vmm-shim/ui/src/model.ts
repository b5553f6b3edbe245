// What the page knows, and how each event changes it. Pure.

import type { MessageView, OutcomeView, PageEvents, Snapshot } from '../../src/page/events.js'

/** How much the page keeps. The program keeps less, so a page that reconnects begins with fewer. */
export const MOST = { messages: 400, outcomes: 100, console: 64 * 1024 }

export interface Model extends Omit<Snapshot, 'about'> {
  about: Snapshot['about'] | null
  /** The state that the session was in before. */
  previous: Snapshot['session']['kind'] | null
}

export const EMPTY: Model = {
  about: null,
  vm: null,
  session: { kind: 'Due', since: 0 },
  previous: null,
  messages: [],
  outcomes: [],
  busy: [],
  console: '',
}

type Changes = { [Name in keyof PageEvents]: (model: Model, data: PageEvents[Name]) => Partial<Model> }

const changes: Changes = {
  // What the page has from before a lost connection stays, as far as it is of the same program.
  snapshot: (model, data) => {
    if (model.about?.startedAt !== data.about.startedAt) return { ...data, previous: null }
    return {
      ...data,
      messages: merged(model.messages, data.messages, MOST.messages),
      outcomes: merged(model.outcomes, data.outcomes, MOST.outcomes),
    }
  },
  vm: (_model, vm) => ({ vm }),
  session: (model, session) => ({ session, previous: model.session.kind === session.kind ? model.previous : model.session.kind }),
  message: (model, message) => ({ messages: merged(model.messages, [message], MOST.messages) }),
  outcome: (model, outcome) => ({ outcomes: merged(model.outcomes, [outcome], MOST.outcomes) }),
  busy: (_model, busy) => ({ busy }),
  console: (model, { text }) => ({ console: (model.console + text).slice(-MOST.console) }),
}

export const EVENTS = Object.keys(changes) as (keyof PageEvents)[]

export function changed<Name extends keyof PageEvents>(model: Model, name: Name, data: PageEvents[Name]): Model {
  return { ...model, ...changes[name](model, data) }
}

/** Each once, in order, the last ones. */
function merged<Item extends MessageView | OutcomeView>(known: readonly Item[], more: readonly Item[], most: number): Item[] {
  const last = known.at(-1)?.seq ?? 0
  return [...known, ...more.filter(({ seq }) => seq > last)].slice(-most)
}
