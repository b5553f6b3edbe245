// One accepted connection, as a table. Everything that decides what happens next stands in this file; it sees neither stream nor
// timer nor promise. The driver (../connection.ts) tells it what happened and does what it says.
import type { Disconnect } from './end.js'

export type State =
  /** Nothing is known but that somebody connected. */
  | { readonly name: 'AwaitingService'; readonly deadline: number }
  /** The byte is read, the driver looks the service up. `rest` came behind it and belongs to the service. */
  | { readonly name: 'Opening'; readonly rest: Uint8Array }
  | { readonly name: 'Greeting'; readonly rest: Uint8Array; readonly deadline: number }
  /** The service waits for bytes. */
  | { readonly name: 'Reading' }
  /** The service has a chunk. Nothing is read meanwhile: the kernel has one thread per connection. */
  | { readonly name: 'Handling' }
  /** Replies are under way. Nothing is read before the client took them. */
  | { readonly name: 'Writing'; readonly deadline: number }
  /** No more is read or answered; what is written leaves, then the stream is closed. */
  | { readonly name: 'Ending'; readonly end: Disconnect; readonly deadline: number }
  | { readonly name: 'Ended'; readonly end: Disconnect }

export type Event =
  /** At least zero bytes were read. */
  | { readonly name: 'chunk'; readonly chunk: Uint8Array }
  /** The client ended its half. It is read as a chunk is: not before what stands in front of it is answered. */
  | { readonly name: 'eof' }
  | { readonly name: 'opened'; readonly greeting: Uint8Array }
  | { readonly name: 'refused'; readonly end: Disconnect }
  | { readonly name: 'replied'; readonly replies: Iterable<Uint8Array> }
  /** The service threw. */
  | { readonly name: 'failed'; readonly error: unknown }
  /** The stream took a part of the replies after it had asked for a pause. */
  | { readonly name: 'progress' }
  /** The stream took everything and does not ask for a pause. */
  | { readonly name: 'flushed' }
  /** Everything written has left, the stream's writable side has ended. */
  | { readonly name: 'finished' }
  /** Time has passed. Spurious ones do nothing. */
  | { readonly name: 'tick' }
  /** The server wants it to end. */
  | { readonly name: 'stop'; readonly end: Disconnect }
  | { readonly name: 'error'; readonly error: unknown }
  /** The stream is gone. */
  | { readonly name: 'closed' }

export type Effect =
  /** Look the service up and open it; answer `opened`, `refused` or `failed`. */
  | { readonly do: 'open'; readonly byte: number }
  /** Give the chunk to the service; answer `replied` or `failed`. */
  | { readonly do: 'receive'; readonly chunk: Uint8Array }
  /** Write in order, pausing where the stream asks for it (`progress` after each pause); answer `flushed`. */
  | { readonly do: 'write'; readonly chunks: Iterable<Uint8Array> }
  /** End the writable side; answer `finished`. */
  | { readonly do: 'end' }
  /** Destroy the stream; `closed` follows. */
  | { readonly do: 'destroy' }

/** How long the machine waits for others, in milliseconds. */
export interface Limits {
  /** From accept to the service byte. */
  readonly serviceByteTimeoutMs: number
  /** From a write, or from the last time the client took some of it, until the client took all. */
  readonly writeTimeoutMs: number
}

export type StateName = State['name']
export type EventName = Event['name']

type Named<T extends { name: string }, N extends T['name']> = Extract<T, { name: N }>
type Step = readonly [next: State, ...effects: Effect[]]
type Context = Limits & { readonly now: number }
type Transition<S extends StateName, E extends EventName> = (event: Named<Event, E>, state: Named<State, S>, at: Context) => Step
type Table = { readonly [S in StateName]: { readonly [E in EventName]?: Transition<S, E> } }

const stay = (_event: Event, state: State): Step => [state]
const client: Disconnect = { reason: 'client' }

/** Nothing is owed to the client: what is written leaves first. */
const ending = (end: Disconnect, at: Context): Step => [
  { name: 'Ending', end, deadline: at.now + at.writeTimeoutMs },
  { do: 'end' },
]
const abandon = (end: Disconnect): Step => [{ name: 'Ended', end }, { do: 'destroy' }]

/** What may happen to any connection that has not ended. */
const live = {
  stop: ({ end }: Named<Event, 'stop'>) => abandon(end),
  error: ({ error }: Named<Event, 'error'>) => abandon({ reason: 'stream-error', error }),
  closed: (): Step => [{ name: 'Ended', end: client }],
} satisfies Table['Reading']

const failed = ({ error }: Named<Event, 'failed'>) => abandon({ reason: 'service-error', error })
const late =
  <S extends { deadline: number } & State>(end: Disconnect) =>
  (_event: Event, state: S, at: Context): Step =>
    at.now < state.deadline ? [state] : abandon(end)

export const table: Table = {
  AwaitingService: {
    ...live,
    chunk: ({ chunk }, state) =>
      chunk.length === 0
        ? [state]
        : [
            { name: 'Opening', rest: chunk.subarray(1) },
            { do: 'open', byte: chunk[0]! },
          ],
    eof: (_event, _state, at) => ending(client, at),
    tick: (_event, state, at) => (at.now < state.deadline ? [state] : ending({ reason: 'service-byte-timeout' }, at)),
  },
  Opening: {
    ...live,
    opened: ({ greeting }, { rest }, at) => [
      { name: 'Greeting', rest, deadline: at.now + at.writeTimeoutMs },
      { do: 'write', chunks: [greeting] },
    ],
    refused: ({ end }, _state, at) => ending(end, at),
    failed,
    tick: stay,
  },
  Greeting: {
    ...live,
    progress: (_event, { rest }, at) => [{ name: 'Greeting', rest, deadline: at.now + at.writeTimeoutMs }],
    flushed: (_event, { rest }) =>
      rest.length === 0 ? [{ name: 'Reading' }] : [{ name: 'Handling' }, { do: 'receive', chunk: rest }],
    tick: late({ reason: 'write-timeout' }),
  },
  Reading: {
    ...live,
    chunk: ({ chunk }, state) => (chunk.length === 0 ? [state] : [{ name: 'Handling' }, { do: 'receive', chunk }]),
    eof: (_event, _state, at) => ending(client, at),
    tick: stay,
  },
  Handling: {
    ...live,
    replied: ({ replies }, _state, at) => [
      { name: 'Writing', deadline: at.now + at.writeTimeoutMs },
      { do: 'write', chunks: replies },
    ],
    failed,
    tick: stay,
  },
  Writing: {
    ...live,
    progress: (_event, _state, at) => [{ name: 'Writing', deadline: at.now + at.writeTimeoutMs }],
    flushed: () => [{ name: 'Reading' }],
    // Replies may be made while they are written.
    failed,
    tick: late({ reason: 'write-timeout' }),
  },
  Ending: {
    ...live,
    // The reason for which it ends stands, whatever happens on the way out.
    stop: (_event, { end }) => abandon(end),
    error: (_event, { end }) => abandon(end),
    closed: (_event, { end }) => [{ name: 'Ended', end }],
    finished: (_event, { end }) => abandon(end),
    tick: (_event, state, at) => (at.now < state.deadline ? [state] : abandon(state.end)),
  },
  // What was under way when it ended comes back here.
  Ended: {
    opened: stay,
    refused: stay,
    replied: stay,
    failed: stay,
    progress: stay,
    flushed: stay,
    finished: stay,
    tick: stay,
    stop: stay,
    error: stay,
    closed: stay,
  },
}

/** The driver told the machine of something that cannot happen now: a bug on this side, never the client's doing. */
export class IllegalEventError extends Error {
  override readonly name = 'IllegalEventError'
  constructor(state: StateName, event: EventName) {
    super(`connection machine: ${event} cannot happen in ${state}`)
  }
}

export class ConnectionMachine {
  readonly #limits: Limits
  #state: State

  /** @param now - When the connection was accepted, in milliseconds on any clock; the same for every later `now`. */
  constructor(limits: Limits, now: number) {
    this.#limits = limits
    this.#state = { name: 'AwaitingService', deadline: now + limits.serviceByteTimeoutMs }
  }

  get state(): State {
    return this.#state
  }

  /** Whether the stream is to be read now. */
  get reads(): boolean {
    return this.#state.name === 'AwaitingService' || this.#state.name === 'Reading'
  }

  /** When to send `tick` at the latest; undefined if nothing is waited for. */
  get deadline(): number | undefined {
    return 'deadline' in this.#state ? this.#state.deadline : undefined
  }

  /**
   * @returns What is to be done now, in order.
   * @throws {@link IllegalEventError}; the state is then as it was.
   */
  on(event: Event, now: number): Effect[] {
    const row: { readonly [E in EventName]?: unknown } = table[this.#state.name]
    // The table's type ties each entry to its state and event; looked up by both names at once, TypeScript cannot follow.
    const transition = row[event.name] as ((event: Event, state: State, at: Context) => Step) | undefined
    if (transition === undefined) throw new IllegalEventError(this.#state.name, event.name)
    const [next, ...effects] = transition(event, this.#state, { ...this.#limits, now })
    this.#state = next
    return effects
  }
}
