import { isDeepStrictEqual } from 'node:util'
import type { NetworkLink, VsockNetwork } from '@upcall/vhost-user'
import { type Address, type EndpointListener, listenEndpoint } from '@upcall/vsock'
import { cannotUse } from './cannot-use.js'
import { DialledLink, follow } from './dialled-link.js'
import type { Journal } from './journal.js'
import type { LinkKeyName } from './keys.js'
import type { DescribedLinks, LinkSettings } from './link-settings.js'

type Network = Pick<VsockNetwork, 'link'>

/** What links this process to others: the process that it dials, and a socket where any number dial it. */
export class Links {
  readonly #network: Network
  readonly #journal: Journal
  #settings: LinkSettings = { dial: undefined, listen: undefined }
  #dialled: DialledLink | undefined
  #listening: LinkListener | undefined

  constructor(network: Network, journal: Journal) {
    this.#network = network
    this.#journal = journal
  }

  /** @throws UsageError if the socket does not open. A process that does not answer is dialled again. */
  async start({ given, settings }: DescribedLinks): Promise<void> {
    this.#settings = settings
    await this.#listen().catch(cannotUse(given, 'link-listen'))
    this.#dial()
  }

  /** Makes the links what a new file says, and tells which of the two were changed. What is as before is not touched. */
  async change({ given, settings }: DescribedLinks): Promise<LinkKeyName[]> {
    const before = this.#settings
    const changed: LinkKeyName[] = []
    // A path may go from the one to the other.
    const dials = settings.dial !== before.dial
    const listens =
      !isDeepStrictEqual(settings.listen, before.listen) || (settings.listen !== undefined && this.#listening === undefined)
    this.#settings = settings
    if (dials) await this.#hangUp()
    if (listens) {
      await this.#unlisten()
      try {
        await this.#listen().catch(cannotUse(given, 'link-listen'))
        changed.push('link-listen')
      } catch (error) {
        this.#journal.failed('failed', undefined, error)
      }
    }
    if (dials) {
      this.#dial()
      changed.push('link')
    }
    return changed
  }

  /** Nothing is open when it resolves. */
  async close(): Promise<void> {
    await Promise.all([this.#hangUp(), this.#unlisten()])
  }

  #dial(): void {
    const { dial } = this.#settings
    if (dial !== undefined) this.#dialled = new DialledLink(dial, this.#network, this.#journal)
  }

  async #hangUp(): Promise<void> {
    const dialled = this.#dialled
    this.#dialled = undefined
    await dialled?.close()
  }

  async #listen(): Promise<void> {
    const { listen } = this.#settings
    if (listen !== undefined) this.#listening = await LinkListener.open(listen, this.#network, this.#journal)
  }

  async #unlisten(): Promise<void> {
    const listening = this.#listening
    this.#listening = undefined
    await listening?.close()
  }
}

/** The socket where other processes dial this one, and the links to those that have. */
class LinkListener {
  readonly #path: string
  readonly #network: Network
  readonly #journal: Journal
  readonly #links = new Set<NetworkLink>()
  #listener: EndpointListener | undefined
  #peers = 0

  private constructor(path: string, network: Network, journal: Journal) {
    this.#path = path
    this.#network = network
    this.#journal = journal
  }

  static async open(
    { path, mode }: NonNullable<LinkSettings['listen']>,
    network: Network,
    journal: Journal,
  ): Promise<LinkListener> {
    const made = new LinkListener(path, network, journal)
    const address: Address = { transport: 'unix', path }
    made.#listener = await listenEndpoint(address, { mode, halfClose: false }, (incoming) => made.#take(incoming.accept().socket))
    journal.say('link-listening', { path }, (paint) => `${paint('green', 'listening')} on ${path} for other processes`)
    return made
  }

  async close(): Promise<void> {
    const closing = this.#listener?.close()
    const links = [...this.#links]
    for (const link of links) link.close()
    await Promise.all([closing, ...links.map(({ closed }) => closed)])
  }

  #take(stream: Parameters<VsockNetwork['link']>[0]): void {
    const peer = ++this.#peers
    const link = this.#network.link(stream)
    this.#links.add(link)
    void follow(link, this.#journal, { path: this.#path, peer }).then(() => this.#links.delete(link))
  }
}
