/** A queue that each member is in at most once, and that any member may leave. The line knows its members; they know nothing of it. */
export class Line<T> {
  readonly #members = new Set<T>()
  #order: T[] = []

  get size(): number {
    return this.#order.length
  }

  get first(): T | undefined {
    return this.#order[0]
  }

  /** A new member goes to the end. A member that is in the line keeps its place. */
  join(member: T): void {
    if (this.#members.has(member)) return
    this.#members.add(member)
    this.#order.push(member)
  }

  leave(member: T): void {
    if (!this.#members.delete(member)) return
    if (this.#order[0] === member) this.#order.shift()
    else this.#order.splice(this.#order.indexOf(member), 1)
  }

  /** The first member goes to the end. */
  turn(): void {
    if (this.#order.length > 1) this.#order.push(this.#order.shift()!)
  }

  /** Empties the line and returns its members in their order. */
  takeAll(): readonly T[] {
    const all = this.#order
    if (all.length === 0) return all
    this.#order = []
    this.#members.clear()
    return all
  }
}
