// What the pages know: collects it from the shim, keeps the last of it, and tells those who listen.

import type { Clock } from '@upcall/client'
import type { DeviceManager } from '@upcall/device-manager'
import { type ClientEvent, traceClient } from '@upcall/trace'
import type { Reconciled, Vm } from '@upcall/vmm'
import type { Arch } from '@upcall/wire'
import type { Change, ChangeAnswer, ChangeWatcher } from '../api/changes.js'
import { type VmBody, vmBody } from '../api/view.js'
import { adviceFor } from './advice.js'
import type { About, MessageView, OutcomeView, PageEvents, SessionView, Snapshot, Time } from './events.js'
import { Messages } from './messages.js'
import { Ring } from './ring.js'
import { followSession } from './session.js'

const MESSAGES = 50
const OUTCOMES = 20
/** Characters. */
const CONSOLE = 64 * 1024
/** How often the guest is asked what it has, while a page is open. */
const LOOK_MS = 2_000

/** Tells one event to all pages. */
export type Tell = <Name extends keyof PageEvents>(name: Name, data: PageEvents[Name]) => void

export interface FeedOptions {
  about: About
  clock: Clock
  wall: () => Time
  tell: Tell
  /** Whether a page is open. Otherwise the guest is not asked. */
  isWatched: () => boolean
}

/** One shim as its pages see it. */
export class Feed {
  readonly changes: ChangeWatcher = {
    began: (change) => this.#began(change),
    ended: (change, answer) => this.#ended(change, answer),
  }
  readonly #options: FeedOptions
  readonly #messages = new Ring<MessageView>(MESSAGES)
  readonly #outcomes = new Ring<OutcomeView>(OUTCOMES)
  readonly #views = new Messages()
  readonly #busy = new Set<Change>()
  readonly #subscriptions: Disposable[] = []
  #session: SessionView
  #console = ''
  #outcomeCount = 0
  #vm: Vm | undefined
  #vmBody: VmBody | null = null
  #looking: 'no' | 'yes' | 'again' = 'no'
  #cancelLook = () => {}
  #closed = false

  constructor(options: FeedOptions) {
    this.#options = options
    this.#session = { kind: 'Due', since: options.wall() }
  }

  manages(manager: DeviceManager<Arch>): void {
    const { wall, tell } = this.#options
    const { client } = manager
    this.#subscriptions.push(
      followSession(client, wall, (session) => {
        const previous = this.#session.kind
        this.#session = session
        tell('session', session)
        // A request and its reply alone change nothing that the change's end does not tell: a resize has hundreds of them.
        if (!isBusyOrReady(previous) || !isBusyOrReady(session.kind)) this.look()
      }),
      traceClient(client, (event) => this.#message(event), { arch: manager.arch }),
    )
  }

  serves(vm: Vm): void {
    this.#vm = vm
    this.look()
    this.#lookLater()
  }

  prints(text: string): void {
    this.#console = (this.#console + text).slice(-CONSOLE)
    this.#options.tell('console', { text: text.slice(-CONSOLE) })
  }

  snapshot(): Snapshot {
    return {
      about: this.#options.about,
      vm: this.#vmBody,
      session: this.#session,
      messages: this.#messages.values,
      outcomes: this.#outcomes.values,
      busy: this.#busyNames,
      console: this.#console,
    }
  }

  /** Asks what the VM has now, and tells if it is something else than before. At most one question is under way. */
  look(): void {
    if (this.#vm === undefined || this.#closed) return
    if (this.#looking !== 'no') {
      this.#looking = 'again'
      return
    }
    this.#looking = 'yes'
    const done = () => {
      const again = this.#looking === 'again'
      this.#looking = 'no'
      if (again) this.look()
    }
    this.#look(this.#vm).then(done, done)
  }

  close(): void {
    this.#closed = true
    this.#cancelLook()
    for (const subscription of this.#subscriptions.splice(0)) subscription[Symbol.dispose]()
  }

  /** A guest that cannot be asked now is shown as it was; the session's state tells why. */
  async #look(vm: Vm): Promise<void> {
    const body = vmBody(await vm.view())
    if (this.#closed || JSON.stringify(body) === JSON.stringify(this.#vmBody)) return
    this.#vmBody = body
    this.#options.tell('vm', body)
  }

  #lookLater(): void {
    this.#cancelLook = this.#options.clock.setTimer(LOOK_MS, () => {
      if (this.#options.isWatched()) this.look()
      this.#lookLater()
    })
  }

  #message(event: ClientEvent): void {
    const { about, wall, tell } = this.#options
    const view = this.#views.view(event, wall())
    if (view === undefined) return
    this.#messages.push(view)
    tell('message', view)
    if (view.direction === 'to-guest') return
    const request = this.#views.requestOf(event)
    // A simulated guest has no console. What its upcall server did is what its kernel would print.
    if (about.guest === 'simulated')
      this.prints(
        `[${secondsSince(about.startedAt, view.at)}] upcall: ${request === undefined ? '' : `${request} -> `}${view.title}\n`,
      )
  }

  #began(change: Change): void {
    this.#busy.add(change)
    this.#options.tell('busy', this.#busyNames)
    this.look()
  }

  #ended(change: Change, { status, durationMs, error, result }: ChangeAnswer): void {
    const { wall, tell } = this.#options
    const outcome: OutcomeView = {
      ...{ seq: ++this.#outcomeCount, at: wall(), durationMs, op: change.name, status },
      ...(error !== undefined && { fault: adviceFor(error) }),
      ...(change.op === 'reconcile' && result !== undefined && { reconciled: result as Reconciled }),
    }
    this.#outcomes.push(outcome)
    if (this.#busy.delete(change)) tell('busy', this.#busyNames)
    tell('outcome', outcome)
    this.look()
  }

  get #busyNames(): string[] {
    return [...this.#busy].map(({ name }) => name)
  }
}

function isBusyOrReady(kind: SessionView['kind']): boolean {
  return kind === 'Busy' || kind === 'Ready'
}

/** As a kernel writes it: `   12.345`. */
function secondsSince(start: Time, at: Time): string {
  return ((at - start) / 1000).toFixed(3).padStart(9)
}
