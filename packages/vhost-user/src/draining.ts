import { tooManyError } from './errors.js'

/** What drains on the host: its guest is gone, and it has the guest's last bytes yet to take. A guest could leave ever more of them. */
export class Draining<Host> {
  readonly #max: number
  readonly #breakOff: (host: Host, error: Error) => void
  readonly #hosts = new Set<Host>()

  /** @param breakOff what happens to the oldest if there are more than `max`. */
  constructor(max: number, breakOff: (host: Host, error: Error) => void) {
    this.#max = max
    this.#breakOff = breakOff
  }

  /** It drains. Idempotent. */
  add(host: Host): void {
    this.#hosts.add(host)
    const [oldest] = this.#hosts
    if (this.#hosts.size <= this.#max || oldest === undefined) return
    this.#hosts.delete(oldest)
    this.#breakOff(oldest, tooManyError(this.#max))
  }

  /** It has all. */
  delete(host: Host): void {
    this.#hosts.delete(host)
  }
}
