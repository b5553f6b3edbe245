import type { ConnectionPorts } from './connection.js'

/** Connections by both of their ports. */
export class ConnectionTable<T extends ConnectionPorts> {
  /** By host port, then by guest port. */
  readonly #byHostPort = new Map<number, Map<number, T>>()
  #size = 0

  get size(): number {
    return this.#size
  }

  hasHostPort(port: number): boolean {
    return this.#byHostPort.has(port)
  }

  get(hostPort: number, guestPort: number): T | undefined {
    return this.#byHostPort.get(hostPort)?.get(guestPort)
  }

  /** Its ports are not in the table yet. */
  add(connection: T): void {
    const { hostPort, guestPort } = connection
    const peers = this.#byHostPort.get(hostPort)
    if (peers === undefined) this.#byHostPort.set(hostPort, new Map([[guestPort, connection]]))
    else peers.set(guestPort, connection)
    this.#size++
  }

  /** False if it is not in the table, or another one has its ports by now. */
  delete(connection: T): boolean {
    const { hostPort, guestPort } = connection
    const peers = this.#byHostPort.get(hostPort)
    if (peers?.get(guestPort) !== connection) return false
    peers.delete(guestPort)
    if (peers.size === 0) this.#byHostPort.delete(hostPort)
    this.#size--
    return true
  }

  /** All of them, in a list that stays as it is while the table changes. */
  all(): T[] {
    return [...this.#byHostPort.values()].flatMap((peers) => [...peers.values()])
  }
}
