// The life of a link between two networks: both say HELLO, then who lives where, then packets.

import { type Table, type Turn, to } from '@upcall/foundation/machine'
import type { Frame } from './frame.js'

/** Our HELLO is out, the peer's is not here. */
interface Greeting {
  readonly kind: 'greeting'
}

interface Up {
  readonly kind: 'up'
}

interface Over {
  readonly kind: 'over'
  readonly end: LinkEnd
}

export type LinkState = Greeting | Up | Over

/**
 * Why a link is over. `closed`: by this side. `lost`: the transport has ended. `protocol`: the peer said what it may not say. `loop`: the two
 * networks reach each other without this link, too.
 */
export interface LinkEnd {
  readonly reason: 'closed' | 'lost' | 'protocol' | 'loop'
  readonly what: string
}

export type LinkEvent =
  | { readonly type: 'hello'; readonly window: number }
  /** Any other frame. */
  | { readonly type: 'frame'; readonly frame: Exclude<Frame, { type: 'hello' }> }
  | { readonly type: 'end'; readonly end: LinkEnd }

export type LinkEffect =
  /** The peer may be told of guests and sent packets. */
  | { readonly type: 'open'; readonly window: number }
  | { readonly type: 'take'; readonly frame: Exclude<Frame, { type: 'hello' }> }
  /** Every guest that lives at the other end is gone. */
  | { readonly type: 'part' }

export const linkTable: Table<LinkState, LinkEvent, Turn<LinkEffect>> = {
  greeting: {
    hello: to(['up'], (c, _state: Greeting, { window }: { readonly window: number }) => {
      c.effects.push({ type: 'open', window })
      return { kind: 'up' }
    }),
    frame: to(['over'], (c) => over(c, { reason: 'protocol', what: 'its first word is not HELLO' })),
    end: to(['over'], (c, _state: Greeting, { end }: { readonly end: LinkEnd }) => over(c, end)),
  },
  up: {
    hello: to(['over'], (c) => over(c, { reason: 'protocol', what: 'it says HELLO twice' })),
    frame: to(['up'], (c, state: Up, { frame }: { readonly frame: Exclude<Frame, { type: 'hello' }> }) => {
      c.effects.push({ type: 'take', frame })
      return state
    }),
    end: to(['over'], (c, _state: Up, { end }: { readonly end: LinkEnd }) => over(c, end)),
  },
  over: {
    hello: to(['over'], stay),
    frame: to(['over'], stay),
    end: to(['over'], stay),
  },
}

function stay(_c: Turn<LinkEffect>, state: Over): Over {
  return state
}

function over(c: Turn<LinkEffect>, end: LinkEnd): Over {
  c.effects.push({ type: 'part' })
  return { kind: 'over', end }
}
