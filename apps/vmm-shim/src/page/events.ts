// What the page is told, as server-sent events: the one contract of src/page and ui. Types alone, so that the page can import it.

import type { Kind } from '@upcall/client'
import type { Reconciled } from '@upcall/vmm'
import type { FaultBody } from '../api/fault.js'
import type { VmBody } from '../api/view.js'

/** Milliseconds since the epoch. */
export type Time = number

/** What does not change while the program runs. */
export interface About {
  guest: 'simulated' | 'qemu'
  arch: 'x86_64' | 'aarch64'
  /** Where the guest's upcall service is reached: `hvsock://…`. */
  address: string
  startedAt: Time
  /** Bytes. A memory size is a multiple of `block`, from the size at boot up to `max`. */
  memory: { boot: number; max: number; block: number }
}

export interface SessionView {
  /** A state of the client's table; see docs/machines.md. */
  kind: Kind
  since: Time
  /** Why it is in `Due` or `Failed`; otherwise absent. */
  cause?: string
}

/** One field of a message. The bytes from `offset` up to `offset + length` are its. */
export interface FieldView {
  name: string
  offset: number
  length: number
  /** The value as people write it: `0xd0000000`, `-19 ENODEV`. */
  value: string
  /** What the field means, one sentence. */
  meaning: string
  /** What is wrong with it, if something is. */
  wrong?: string
}

/** One piece of the conversation with the guest. */
export interface MessageView {
  /** Counts up from 1. */
  seq: number
  at: Time
  direction: 'to-guest' | 'to-host'
  /** In a few words: `ADD_MMIO 0xd0000000+0x1000 irq 5`. */
  title: string
  /** Its first bytes in hexadecimal. All bytes from there up to `length` are zeros. */
  hex: string
  length: number
  fields: FieldView[]
  /** Of a reply: from its request to it. */
  rttMs?: number
  /** What breaks the protocol, if something does. */
  wrong?: string
}

/** A change that the page or the API asked for, and what became of it. */
export interface OutcomeView {
  seq: number
  at: Time
  durationMs: number
  /** In a few words: `drive add disk1`. */
  op: string
  status: number
  /** Of a failure. */
  fault?: FaultBody & {
    /** `ENODEV`. */
    errnoName?: string
    what: string
    /** What to do now, one or two sentences. */
    next?: string
    /** Whether a reconcile settles it. */
    reconcile: boolean
  }
  /** Of a reconcile that was done. */
  reconciled?: Reconciled
}

/** Everything at once: the first event of each connection. */
export interface Snapshot {
  about: About
  vm: VmBody | null
  session: SessionView
  /** The last ones, oldest first. */
  messages: MessageView[]
  outcomes: OutcomeView[]
  /** Changes under way, in a few words each. */
  busy: string[]
  /** The end of what the guest's console printed. */
  console: string
}

/** Event name → data, in JSON. */
export interface PageEvents {
  snapshot: Snapshot
  vm: VmBody
  session: SessionView
  message: MessageView
  outcome: OutcomeView
  busy: string[]
  /** What the console printed since the last one. */
  console: { text: string }
}
