import { onAbort } from '@upcall/foundation/abort'
import { backoffDelay } from '@upcall/foundation/backoff'
import { systemClock } from '@upcall/foundation/clock'
import { errnoOf, textOf } from '@upcall/foundation/error'
import type { NetworkLink, VsockNetwork } from '@upcall/vhost-user'
import { connect } from '@upcall/vsock'
import type { Journal } from './journal.js'

/** The hub may be started after this process, or again. Its Unix socket costs little to ask. */
const PACE = { minDelayMs: 100, maxDelayMs: 5_000, random: Math.random }
/** A link that lasts this long was a good one: after its loss, the delays are short again. */
const GOOD_MS = 10_000

/** A link to the process that listens on a path: dialled for as long as it is wanted, and again after each loss. */
export class DialledLink {
  readonly #path: string
  readonly #network: Pick<VsockNetwork, 'link'>
  readonly #journal: Journal
  readonly #wanted = new AbortController()
  readonly #working: Promise<void>

  constructor(path: string, network: Pick<VsockNetwork, 'link'>, journal: Journal) {
    this.#path = path
    this.#network = network
    this.#journal = journal
    this.#working = this.#work()
  }

  /** Resolves when the link is over and nothing dials any more. */
  async close(): Promise<void> {
    this.#wanted.abort()
    await this.#working
  }

  async #work(): Promise<void> {
    const { signal } = this.#wanted
    let attempt = 0
    while (!signal.aborted) {
      const link = await this.#dial(attempt === 0)
      const started = systemClock.now()
      if (link !== undefined) await this.#serve(link)
      const wasGood = link !== undefined && systemClock.now() - started >= GOOD_MS
      attempt = wasGood ? 1 : attempt + 1
      await pause(backoffDelay(PACE, attempt), signal)
    }
  }

  /** @param isFirst - Its failure is told. Those after it say nothing new. */
  async #dial(isFirst: boolean): Promise<NetworkLink | undefined> {
    const { signal } = this.#wanted
    try {
      const socket = await connect({ transport: 'unix', path: this.#path }, { signal })
      if (!signal.aborted) return this.#network.link(socket)
      socket.destroy()
    } catch (error) {
      if (isFirst && !signal.aborted) this.#sayWaiting(error)
    }
    return undefined
  }

  async #serve(link: NetworkLink): Promise<void> {
    const { signal } = this.#wanted
    const unlisten = onAbort(signal, () => link.close())
    await follow(link, this.#journal, { path: this.#path })
    unlisten()
  }

  #sayWaiting(error: unknown): void {
    const path = this.#path
    const what = textOf(error)
    const fault = { code: errnoOf(error), what }
    this.#journal.say('link-waiting', { path, error: fault }, () => `link to ${path}: ${what}; dialling until it answers`)
  }
}

/** Tells when a link is up, and why it is over. Resolves after that. @param from - `peer`: which one of those that have dialled. */
export async function follow(link: NetworkLink, journal: Journal, from: { path: string; peer?: number }): Promise<void> {
  const name = from.peer === undefined ? `link to ${from.path}` : `link ${from.peer} on ${from.path}`
  if (await link.opened) journal.say('link-up', from, (paint) => `${name} is ${paint('green', 'up')}`)
  const { reason, what } = await link.closed
  journal.say('link-over', { ...from, reason, what }, () => `${name} is over: ${what} (${reason})`)
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const end = () => {
      cancel()
      unlisten()
      resolve()
    }
    const cancel = systemClock.setTimer(ms, end)
    const unlisten = onAbort(signal, end)
  })
}
