import type { Ticket } from './state.js'

/** Entries that are kept although fewer tickets wait. */
const SPARE = 16

/**
 * What waits to be sent, first in first out. However many wait, an operation takes no longer than the logarithm of their number, on average:
 * the limit of a queue is the user's.
 */
export class TicketQueue {
  /** In their order; undefined where one has gone. Before `#first` all have. */
  #slots: (Ticket | undefined)[] = []
  #first = 0
  /** By id, the slot of each that waits. */
  readonly #places = new Map<number, number>()
  /** A heap with the next deadline on top. Some may have gone. */
  #deadlines: Ticket[] = []

  get length(): number {
    return this.#places.size
  }

  /** Entries that it keeps, those of tickets that have gone included: bounded by what waits. */
  get entries(): number {
    return Math.max(this.#slots.length, this.#deadlines.length)
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
    this.#places.set(ticket.id, this.#slots.length)
    this.#slots.push(ticket)
    this.#remember(ticket)
  }

  /** Puts a taken ticket back at the head. */
  unshift(ticket: Ticket): void {
    if (this.#first === 0) this.#compact(1 + this.length)
    this.#slots[--this.#first] = ticket
    this.#places.set(ticket.id, this.#first)
    this.#remember(ticket)
  }

  shift(): Ticket | undefined {
    return this.first && this.remove(this.first.id)
  }

  remove(id: number): Ticket | undefined {
    const place = this.#places.get(id)
    if (place === undefined) return undefined
    const ticket = this.#slots[place]
    this.#slots[place] = undefined
    this.#places.delete(id)
    while (this.#first < this.#slots.length && this.#slots[this.#first] === undefined) this.#first++
    // So rarely that each ticket is moved once on average.
    if (this.#slots.length > 2 * this.length + SPARE) this.#compact(0)
    if (this.#deadlines.length > 2 * this.length + SPARE) this.#forget()
    return ticket
  }

  /** Takes those whose deadline is over, in their order. */
  takeExpired(now: number): Ticket[] {
    const expired = new Set<Ticket>()
    while (this.nextDeadline <= now) expired.add(pop(this.#deadlines))
    const inOrder = [...expired].sort((a, b) => this.#places.get(a.id)! - this.#places.get(b.id)!)
    for (const { id } of inOrder) this.remove(id)
    return inOrder
  }

  takeAll(): Ticket[] {
    const all = this.#slots.filter((ticket) => ticket !== undefined)
    this.#slots = []
    this.#first = 0
    this.#places.clear()
    this.#deadlines = []
    return all
  }

  /** Moves the waiting tickets together, after `free` free slots. */
  #compact(free: number): void {
    const waiting = this.#slots.filter((ticket) => ticket !== undefined)
    this.#slots = [...new Array<undefined>(free), ...waiting]
    this.#first = free
    for (const [i, { id }] of waiting.entries()) this.#places.set(id, free + i)
  }

  #remember(ticket: Ticket): void {
    if (ticket.deadline === Number.POSITIVE_INFINITY) return
    push(this.#deadlines, ticket)
    if (this.#deadlines.length > 2 * this.length + SPARE) this.#forget()
  }

  /** Drops the deadlines of those that have gone, and the second one of those that came back. */
  #forget(): void {
    const waiting = new Set(this.#deadlines.filter(({ id }) => this.#places.has(id)))
    this.#deadlines = []
    for (const each of waiting) push(this.#deadlines, each)
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

function pop(heap: Ticket[]): Ticket {
  const [top] = heap
  const last = heap.pop()!
  if (heap.length === 0) return last
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
  return top!
}
