// The vocabulary of all state machines here. A state has a `kind`, an event and an effect have a `type`. A table says what each state
// does with each event; an event without an entry cannot happen in that state. Handlers are pure but for the context, which carries
// the machine's working memory, the time, and the list of effects that they add to.

/** What every handler gets besides the state and the event. */
export interface Turn<Effect> {
  /** The time of the event, in milliseconds. */
  now: number
  /** What the driver has to do, in order. */
  effects: Effect[]
}

export interface Transition<State extends Kinded, From, Event, Context> {
  /** The kinds of all states that it may lead to. */
  readonly to: readonly State['kind'][]
  readonly run: (context: Context, state: From, event: Event) => State
}

interface Kinded {
  readonly kind: string
}
interface Typed {
  readonly type: string
}

/** A machine's rules, all of them. */
export type Table<State extends Kinded, Event extends Typed, Context> = {
  readonly [Kind in State['kind']]: {
    readonly [Type in Event['type']]?: Transition<State, Extract<State, { kind: Kind }>, Extract<Event, { type: Type }>, Context>
  }
}

/** A transition and the kinds of state that it may lead to. The compiler holds the handler to them. */
export function to<const Kind extends string, Next extends { readonly kind: Kind }, From, Event, Context>(
  kinds: readonly Kind[],
  run: (context: Context, state: From, event: Event) => Next,
): { readonly to: readonly Kind[]; readonly run: (context: Context, state: From, event: Event) => Next } {
  return { to: kinds, run }
}

/** An event came that cannot happen in this state: a mistake of the driver. */
export class IllegalEventError extends Error {
  override readonly name = 'IllegalEventError'
  constructor(
    readonly kind: string,
    readonly type: string,
  ) {
    super(`the event ${type} cannot happen in the state ${kind}`)
  }
}

/**
 * One event: the next state. Effects are in the context.
 *
 * @throws {@link IllegalEventError} if the state has no entry for the event; nothing is changed then.
 */
export function transition<State extends Kinded, Event extends Typed, Context>(
  table: Table<State, Event, Context>,
  context: Context,
  state: State,
  event: Event,
): State {
  // The table ties each entry to its state and its event; looked up by both names at once, the compiler cannot follow.
  const row = table[state.kind as State['kind']] as { readonly [type: string]: unknown } | undefined
  const entry = row?.[event.type] as Transition<State, State, Event, Context> | undefined
  if (entry === undefined) throw new IllegalEventError(state.kind, event.type)
  return entry.run(context, state, event)
}
