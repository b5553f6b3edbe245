import type { ClientTrace, StateName, UpcallClient } from '@upcall/client'
import type { Sample } from '../catalog.js'

type Client = UpcallClient<unknown, unknown>

const STATES: readonly StateName[] = ['WaitingServer', 'WaitingService', 'ServiceConnected', 'ServiceBusy', 'ReconnectError']

/** The sessions of this process that are not closed. They are held weakly: a client that is dropped without close() may be collected. */
export class Sessions {
  readonly #known = new WeakSet<Client>()
  readonly #sessions = new Set<{ readonly client: WeakRef<Client>; readonly remote: string }>()
  readonly #gone = new FinalizationRegistry<{ readonly client: WeakRef<Client>; readonly remote: string }>((session) => {
    this.#sessions.delete(session)
  })

  see({ client, remote }: ClientTrace): void {
    if (this.#known.has(client)) return
    this.#known.add(client)
    const session = { client: new WeakRef(client), remote }
    this.#sessions.add(session)
    this.#gone.register(client, session)
  }

  /** How many there are in each state; with `perRemote` for each remote. */
  states(perRemote: boolean): Sample[] {
    const counts = new Map<string, Map<StateName, number>>(perRemote ? [] : [['', zeros()]])
    for (const session of this.#sessions) {
      const state = session.client.deref()?.state
      // It stays known, so that what is still to be heard of it does not bring it back.
      if (state === undefined || state === 'Closed') {
        this.#sessions.delete(session)
        continue
      }
      const remote = perRemote ? session.remote : ''
      const states = counts.get(remote) ?? zeros()
      counts.set(remote, states.set(state, states.get(state)! + 1))
    }
    return [...counts].flatMap(([remote, states]) =>
      [...states].map(([state, value]) => ({ labels: perRemote ? { state, remote } : { state }, value })),
    )
  }
}

const zeros = () => new Map(STATES.map((state) => [state, 0]))
