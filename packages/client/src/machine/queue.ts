import type { Ticket } from './session.js'

/**
 * What waits to be sent, first in first out. However many wait, an operation takes no longer than the logarithm of their number, on average:
 * the limit of a queue is the user's.
 */
export class TicketQueue {
  /** In their order; undefined where one has gone. Before `#first` all have. */
  #slots: (Ticket | undefined)[] = []
  #first = 0
  /** By id, the slot of each that waits, counted with those that were cut off. */
  readonly #places = new Map<number, number>()
  #cut = 0
  /** A heap with the next deadline on top. Some may have gone. */
  #deadlines: Ticket[] = []

  get length(): number {
    return this.#places.size
  }

  get first(): Ticket | undefined {
    return this.#slots[this.#first]
  }

  /** When the first of them has waited too long; infinite if none will. */
  get nextDeadline(): number {
    for (let top = this.#deadlines[0]; top !== undefined; top = this.#deadlines[0]) {
      if (this.#places.has(top.id)) return top.deadline
      pop(this.#deadlines)
    }
    return Number.POSITIVE_INFINITY
  }

  push(ticket: Ticket): void {
    this.#places.set(ticket.id, this.#cut + this.#slots.length)
    this.#slots.push(ticket)
    this.#remember(ticket)
  }

  /** Puts one that was taken back to the head. */
  unshift(ticket: Ticket): void {
    if (this.#first > 0) this.#slots[--this.#first] = ticket
    else {
      this.#slots.unshift(ticket)
      this.#cut--
    }
    this.#places.set(ticket.id, this.#cut + this.#first)
    this.#remember(ticket)
  }

  shift(): Ticket | undefined {
    return this.first && this.remove(this.first.id)
  }

  remove(id: number): Ticket | undefined {
    const place = this.#places.get(id)
    if (place === undefined) return undefined
    const ticket = this.#slots[place - this.#cut]
    this.#slots[place - this.#cut] = undefined
    this.#places.delete(id)
    while (this.#first < this.#slots.length && this.#slots[this.#first] === undefined) this.#first++
    // Half of the slots at a time, so that each ticket is moved once on average.
    if (this.#first * 2 >= this.#slots.length) {
      this.#slots = this.#slots.slice(this.#first)
      this.#cut += this.#first
      this.#first = 0
    }
    return ticket
  }

  /** Takes those whose deadline is over, in their order. */
  takeExpired(now: number): Ticket[] {
    const expired: { place: number; ticket: Ticket }[] = []
    while (this.nextDeadline <= now) {
      const ticket = this.#deadlines[0]!
      expired.push({ place: this.#places.get(ticket.id)!, ticket })
      this.remove(ticket.id)
    }
    return expired.sort((a, b) => a.place - b.place).map(({ ticket }) => ticket)
  }

  takeAll(): Ticket[] {
    const all = this.#slots.filter((ticket) => ticket !== undefined)
    this.#slots = []
    this.#first = 0
    this.#places.clear()
    this.#deadlines = []
    return all
  }

  #remember(ticket: Ticket): void {
    if (ticket.deadline === Number.POSITIVE_INFINITY) return
    // What has gone is forgotten when it is the most, not when its deadline comes.
    if (this.#deadlines.length > 2 * this.length + 16) {
      const waiting = this.#deadlines.filter(({ id }) => this.#places.has(id))
      this.#deadlines = []
      for (const each of waiting) push(this.#deadlines, each)
    }
    push(this.#deadlines, ticket)
  }
}

function push(heap: Ticket[], ticket: Ticket): void {
  let at = heap.length
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (heap[parent]!.deadline <= ticket.deadline) break
    heap[at] = heap[parent]!
    at = parent
  }
  heap[at] = ticket
}

function pop(heap: Ticket[]): void {
  const last = heap.pop()!
  if (heap.length === 0) return
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && heap[child + 1]!.deadline < heap[child]!.deadline) child++
    if (last.deadline <= heap[child]!.deadline) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = last
}
