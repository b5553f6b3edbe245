// The life of a machine under QEMU, all of its rules: what each state does with each event. An event without an entry cannot happen in
// that state and is a mistake of the driver (guest-life.ts).

import { type Table, type Turn, to, transition } from '@upcall/foundation/machine'

/** Where the machine is. `launch` is the number of the QEMU process that the state is about: one follows the other. */
export type Life =
  /** Nothing has been started yet. */
  | { readonly kind: 'Off' }
  /** QEMU is being started. `serves`: the kernel's own upcall service greets before the first process runs, and so before QEMU is probed. */
  | { readonly kind: 'Launching'; readonly launch: number; readonly serves: boolean }
  /** QEMU runs. The driver asks what it has, and gives it what it lacks. */
  | { readonly kind: 'Probing'; readonly launch: number; readonly serves: boolean; readonly paused: boolean }
  /** The driver knows what QEMU has. The guest's upcall service has not greeted yet. */
  | { readonly kind: 'Booting'; readonly launch: number }
  | { readonly kind: 'Booted'; readonly launch: number }
  /** The vCPUs are stopped. */
  | { readonly kind: 'Paused'; readonly launch: number; readonly serves: boolean }
  /** The monitor ended during the probe. QEMU's exit tells the reason; `why` stands in for it. */
  | { readonly kind: 'Ending'; readonly launch: number; readonly why: string }
  /** There is no guest. */
  | { readonly kind: 'Dead' }
  /** QEMU is being ended for good. */
  | { readonly kind: 'Stopping'; readonly launch: number }
  | { readonly kind: 'Stopped' }

export type LifeEvent =
  /** The caller wants a new guest. */
  | { readonly type: 'boot' }
  | { readonly type: 'launched'; readonly launch: number }
  /** QEMU did not come up. Nothing of it is left. */
  | { readonly type: 'launchFailed'; readonly launch: number; readonly why: string }
  | { readonly type: 'probed'; readonly launch: number }
  /** `monitorEnded`: the monitor's end is the reason. */
  | { readonly type: 'probeFailed'; readonly launch: number; readonly why: string; readonly monitorEnded: boolean }
  /** The guest's upcall service has greeted. */
  | { readonly type: 'greeted' }
  | { readonly type: 'paused'; readonly launch: number }
  | { readonly type: 'resumed'; readonly launch: number }
  /** The guest starts again on the same hardware. */
  | { readonly type: 'reset'; readonly launch: number }
  /** The QEMU process is gone. */
  | { readonly type: 'exited'; readonly launch: number; readonly why: string }
  /** The driver has ended QEMU, as a `close` effect asked for. */
  | { readonly type: 'closed'; readonly launch: number }
  /** The caller needs the machine no more. */
  | { readonly type: 'stop' }

export type LifeEffect =
  /** Start this QEMU once the last one is gone, and probe it. */
  | { readonly type: 'launch'; readonly launch: number }
  /** End QEMU. */
  | { readonly type: 'close'; readonly launch: number }
  /** Give up the launch that is under way. */
  | { readonly type: 'cancel' }
  | { readonly type: 'tellLaunch' }
  /** The guest is gone: what waits for it waits in vain. */
  | { readonly type: 'guestGone'; readonly why: string }
  /** A new guest, which knows nothing of what the last one was told. */
  | { readonly type: 'guestNew' }
  /** What the last QEMU had not ejected is gone with it. */
  | { readonly type: 'forgetSpares' }
  | { readonly type: 'tellReset' }
  | { readonly type: 'tellExit'; readonly why: string }
  /** QEMU is gone for good. */
  | { readonly type: 'stopped' }

export interface LifeContext extends Turn<LifeEffect> {
  /** Launches so far: the number of the last one. */
  launches: number
}

type In<K extends Life['kind']> = Extract<Life, { kind: K }>
type EventOf<T extends LifeEvent['type']> = Extract<LifeEvent, { type: T }>
type Running = In<'Probing' | 'Booting' | 'Booted' | 'Paused' | 'Ending'>

const exited = to(['Dead'], (c: LifeContext, _state: Life, { why }: EventOf<'exited'>) => die(c, why))
const bootAgain = to(['Launching'], (c: LifeContext, _state: Life) => {
  c.effects.push({ type: 'guestGone', why: 'the machine boots another guest' })
  return launchNext(c)
})
const stop = to(['Stopping'], (c: LifeContext, { launch }: Running) => {
  c.effects.push({ type: 'guestGone', why: STOPPED }, { type: 'close', launch })
  return { kind: 'Stopping', launch }
})
const end = to(['Stopped'], (c: LifeContext, _state: Life) => {
  c.effects.push({ type: 'stopped' })
  return { kind: 'Stopped' }
})

export const lifeTable: Table<Life, LifeEvent, LifeContext> = {
  Off: { boot: to(['Launching'], launch) },
  Launching: {
    // A guest is on its way.
    boot: to(['Launching'], same),
    launched: to(['Probing'], (c, { launch, serves }) => {
      c.effects.push({ type: 'tellLaunch' })
      return { kind: 'Probing', launch, serves, paused: false }
    }),
    launchFailed: to(['Dead'], (c, _state, { why }) => die(c, why)),
    greeted: to(['Launching'], (_c, state) => ({ ...state, serves: true })),
    stop: to(['Stopping'], (c, { launch }) => {
      c.effects.push({ type: 'guestGone', why: STOPPED }, { type: 'cancel' })
      return { kind: 'Stopping', launch }
    }),
  },
  Probing: {
    boot: to(['Probing'], same),
    probed: to(['Booting', 'Booted', 'Paused'], (_c, { launch, serves, paused }) =>
      paused ? { kind: 'Paused', launch, serves } : { kind: serves ? 'Booted' : 'Booting', launch },
    ),
    probeFailed: to(['Ending', 'Dead'], (c, { launch }, { why, monitorEnded }) => {
      c.effects.push({ type: 'close', launch })
      return monitorEnded ? { kind: 'Ending', launch, why } : die(c, why)
    }),
    greeted: to(['Probing'], (_c, state) => ({ ...state, serves: true })),
    paused: to(['Probing'], (_c, state) => ({ ...state, paused: true })),
    resumed: to(['Probing'], (_c, state) => ({ ...state, paused: false })),
    reset: to(['Probing'], (c, state) => {
      reset(c)
      return { ...state, serves: false }
    }),
    exited,
    stop,
  },
  Booting: {
    boot: bootAgain,
    greeted: to(['Booted'], (_c, { launch }) => ({ kind: 'Booted', launch })),
    paused: to(['Paused'], (_c, { launch }) => ({ kind: 'Paused', launch, serves: false })),
    resumed: to(['Booting'], same),
    reset: to(['Booting'], (c, state) => {
      reset(c)
      return state
    }),
    exited,
    stop,
  },
  Booted: {
    boot: bootAgain,
    greeted: to(['Booted'], same),
    paused: to(['Paused'], (_c, { launch }) => ({ kind: 'Paused', launch, serves: true })),
    resumed: to(['Booted'], same),
    reset: to(['Booting'], (c, { launch }) => {
      reset(c)
      return { kind: 'Booting', launch }
    }),
    exited,
    stop,
  },
  Paused: {
    boot: bootAgain,
    // The service greeted before the vCPUs stopped.
    greeted: to(['Paused'], (_c, state) => ({ ...state, serves: true })),
    paused: to(['Paused'], same),
    resumed: to(['Booting', 'Booted'], (_c, { launch, serves }) => ({ kind: serves ? 'Booted' : 'Booting', launch })),
    reset: to(['Paused'], (c, state) => {
      reset(c)
      return { ...state, serves: false }
    }),
    exited,
    stop,
  },
  Ending: {
    boot: bootAgain,
    greeted: to(['Ending'], same),
    exited,
    closed: to(['Dead'], (c, { why }) => die(c, why)),
    stop,
  },
  Dead: {
    boot: to(['Launching'], launchNext),
    // A greeting of the guest that died.
    greeted: to(['Dead'], same),
    stop: end,
  },
  Stopping: {
    // The launch was over before it could be given up.
    launched: to(['Stopping'], (c, state) => {
      c.effects.push({ type: 'close', launch: state.launch })
      return state
    }),
    launchFailed: end,
    // The probe ends with QEMU.
    probed: to(['Stopping'], same),
    probeFailed: to(['Stopping'], same),
    greeted: to(['Stopping'], same),
    paused: to(['Stopping'], same),
    resumed: to(['Stopping'], same),
    reset: to(['Stopping'], same),
    exited: end,
    closed: end,
    stop: to(['Stopping'], same),
  },
  Stopped: {
    greeted: to(['Stopped'], same),
    stop: to(['Stopped'], same),
  },
}

/** One machine's life, for the driver that runs it. */
export class LifeCycle {
  readonly wakeAt = Number.POSITIVE_INFINITY
  readonly #context: LifeContext = { now: 0, effects: [], launches: 0 }
  #state: Life = { kind: 'Off' }

  get state(): Life {
    return this.#state
  }

  step(event: LifeEvent | { readonly type: 'wake' }, now: number): readonly LifeEffect[] {
    if (event.type === 'wake') return []
    this.#context.now = now
    this.#state = stepLife(this.#context, this.#state, event)
    return this.#context.effects.splice(0)
  }
}

/** One event: the next state; effects are in the context. An event of another launch than the state's comes too late and means nothing. */
export function stepLife(c: LifeContext, life: Life, event: LifeEvent): Life {
  if ('launch' in event && event.launch !== launchOf(life)) return life
  return transition(lifeTable, c, life, event)
}

/** The QEMU that the state is about; undefined if it is about none. */
export function launchOf(life: Life): number | undefined {
  return 'launch' in life ? life.launch : undefined
}

/** The guest, as the outside sees it. */
export function guestOf(life: Life): 'booting' | 'booted' | 'paused' | 'dead' {
  switch (life.kind) {
    case 'Launching':
    case 'Booting':
    case 'Ending':
      return 'booting'
    case 'Probing':
      return life.paused ? 'paused' : 'booting'
    case 'Booted':
      return 'booted'
    case 'Paused':
      return 'paused'
    default:
      return 'dead'
  }
}

const STOPPED = 'the machine is stopped'

function same<S extends Life>(_c: LifeContext, state: S): S {
  return state
}

function launch(c: LifeContext): In<'Launching'> {
  const number = ++c.launches
  c.effects.push({ type: 'launch', launch: number })
  return { kind: 'Launching', launch: number, serves: false }
}

function launchNext(c: LifeContext): In<'Launching'> {
  c.effects.push({ type: 'guestNew' }, { type: 'forgetSpares' })
  return launch(c)
}

/** The hardware stays. The guest on it knows nothing of what it was told. */
function reset(c: LifeContext): void {
  c.effects.push({ type: 'guestGone', why: 'the guest was reset' }, { type: 'guestNew' }, { type: 'tellReset' })
}

function die(c: LifeContext, why: string): In<'Dead'> {
  c.effects.push({ type: 'guestGone', why }, { type: 'tellExit', why })
  return { kind: 'Dead' }
}
