// One direction of a relay: what its source says, and what its sink takes of it. Pure.

import { type Table, type Turn, to } from '@upcall/foundation/machine'

/** The two ends of a relay. A direction is named by the end that it leads to. */
export type Side = 'near' | 'far'

export const sides: readonly Side[] = ['near', 'far']

export function otherSide(side: Side): Side {
  return side === 'near' ? 'far' : 'near'
}

/** Bytes that the sink has taken, and bytes that were read of the source and handed to it. */
interface Counts {
  readonly taken: number
  readonly pending: number
}

/** A sink that takes no more, why, and the bytes that it will never have. */
interface Refusal {
  readonly taken: number
  readonly lost: number
  readonly error: Error
}

export type Direction =
  /** The source has more to say. */
  | ({ readonly kind: 'Flowing' } & Counts)
  /** The source has ended. Its last bytes and EOF are on their way. */
  | ({ readonly kind: 'Ending' } & Counts)
  /** EOF has gone out, after everything else. A sink that closed early leaves bytes pending. */
  | ({ readonly kind: 'Finished' } & Counts)
  /** The sink takes no more. What the source still says is read and dropped, so that the source comes to its end. */
  | ({ readonly kind: 'Refused' } & Refusal)
  /** The same, and the source has ended. */
  | ({ readonly kind: 'Dropped' } & Refusal)

export type DirectionEvent =
  | { readonly type: 'data'; readonly chunk: Uint8Array }
  /** The sink has taken the oldest of the chunks that it was given. */
  | { readonly type: 'taken'; readonly length: number }
  /** The source has ended. */
  | { readonly type: 'end' }
  /** All that was written has gone out, EOF included, or never will: the sink has closed. */
  | { readonly type: 'flushed' }
  /** The sink takes no more. */
  | { readonly type: 'refused'; readonly error: Error }

export type DirectionEffect =
  | { readonly type: 'write'; readonly to: Side; readonly chunk: Uint8Array }
  /** Send EOF; `flushed` follows. */
  | { readonly type: 'end'; readonly to: Side }
  /** Read what the other end says, although this end takes nothing of it. */
  | { readonly type: 'drain'; readonly from: Side }

export interface DirectionTurn extends Turn<DirectionEffect> {
  readonly to: Side
}

export const initialDirection: Direction = { kind: 'Flowing', taken: 0, pending: 0 }

export const directionTable: Table<Direction, DirectionEvent, DirectionTurn> = {
  Flowing: {
    data: to(['Flowing'], (c, state, { chunk }) => {
      c.effects.push({ type: 'write', to: c.to, chunk })
      return { ...state, pending: state.pending + chunk.length }
    }),
    taken: to(['Flowing'], (_c, state, { length }) => ({ ...state, ...take(state, length) })),
    end: to(['Ending'], (c, { taken, pending }) => {
      c.effects.push({ type: 'end', to: c.to })
      return { kind: 'Ending', taken, pending }
    }),
    refused: to(['Refused'], (c, { taken, pending }, { error }) => {
      // Backpressure may have paused it.
      c.effects.push({ type: 'drain', from: otherSide(c.to) })
      return { kind: 'Refused', taken, lost: pending, error }
    }),
  },
  Ending: {
    taken: to(['Ending'], (_c, state, { length }) => ({ ...state, ...take(state, length) })),
    flushed: to(['Finished'], (_c, { taken, pending }) => ({ kind: 'Finished', taken, pending })),
    refused: to(['Dropped'], (_c, { taken, pending }, { error }) => ({ kind: 'Dropped', taken, lost: pending, error })),
  },
  Finished: {
    // A write that was under way when its stream was closed may still succeed.
    taken: to(['Finished'], (_c, state, { length }) => ({ ...state, ...take(state, length) })),
    refused: to(['Finished'], (_c, state) => state),
  },
  Refused: {
    data: to(['Refused'], (_c, state, { chunk }) => ({ ...state, lost: state.lost + chunk.length })),
    taken: to(['Refused'], (_c, state) => state),
    end: to(['Dropped'], (c, { taken, lost, error }) => {
      // A peer that has only shut down its reading side may wait for EOF before it ends.
      c.effects.push({ type: 'end', to: c.to })
      return { kind: 'Dropped', taken, lost, error }
    }),
    refused: to(['Refused'], (_c, state) => state),
  },
  Dropped: {
    taken: to(['Dropped'], (_c, state) => state),
    flushed: to(['Dropped'], (_c, state) => state),
    refused: to(['Dropped'], (_c, state) => state),
  },
}

function take({ taken, pending }: Counts, length: number): Counts {
  return { taken: taken + length, pending: pending - length }
}

/** The source has said everything. */
export function hasEnded({ kind }: Direction): boolean {
  return kind !== 'Flowing' && kind !== 'Refused'
}

/** The sink has something to take: bytes, or EOF. */
export function isBusy(direction: Direction): boolean {
  return direction.kind === 'Ending' || (direction.kind === 'Flowing' && direction.pending > 0)
}

/** Bytes that were read of the source and that the sink has not taken. */
export function untaken(direction: Direction): number {
  return 'lost' in direction ? direction.lost : direction.pending
}

/** Nothing that the source may still say changes what is known of it: it has ended, or has lost bytes already. */
export function isHeard(direction: Direction): boolean {
  return hasEnded(direction) || (direction.kind === 'Refused' && direction.lost > 0)
}
