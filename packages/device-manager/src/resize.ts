import {
  type Clock,
  isUpcallError,
  systemClock,
  TimeoutError,
  UpcallError,
  type UpcallErrorCode,
  type WaitOptions,
} from '@upcall/client'
import { checkFunction, checkObject, checkSignal, checkSwitch, show } from '@upcall/foundation/check'
import { type Arch, type CpuRequest, isWireError, type Reply, WireError } from '@upcall/wire'
import { MAX_APIC_ID, orderCpus } from './cpu-order.js'
import { GuestError } from './guest-error.js'

/** vCPUs as `present` has them: sorted ids on x86_64, a count on aarch64. */
export type PresentOf<A extends Arch> = A extends 'x86_64' ? readonly number[] : number

export interface ResizeOptions<A extends Arch> {
  /** The vCPUs now, the boot CPU included. */
  present: A extends 'x86_64' ? readonly number[] : number
  /** The most vCPUs that the VM can have. */
  max: number
  /** Creates and starts vCPUs; called before ADD_CPU. What it throws ends the resize. `signal` aborts when the caller's does or the time is up. */
  start(ids: number[], options: { signal: AbortSignal }): void | Promise<void>
  /** Stops vCPUs and takes them away; called after DEL_CPU's yes, and to roll back an add that the guest refused or never saw. */
  stop(ids: number[]): void | Promise<void>
  /** One request per vCPU rather than one for all: slower, but a refusal leaves nothing unknown. Default false. */
  oneByOne?: boolean | undefined
  signal?: AbortSignal | undefined
  /** Milliseconds for the whole resize. Default: none; each request has its own deadline. */
  timeoutMs?: number | undefined
}

/** What a resize changed: ids on both architectures (on aarch64 they count up from 0), and what is present now. */
export interface ResizeResult<A extends Arch> {
  added: number[]
  removed: number[]
  present: PresentOf<A>
}

/** How far a resize got that did not succeed. */
export interface ResizeProgress<A extends Arch = Arch> extends ResizeResult<A> {
  /** Ids of which nobody knows whether the guest has them: neither started nor stopped further. Not counted in `present`. */
  unknown: number[]
}

/** The error of a resize that began: an `UpcallError` (a {@link GuestError} when the guest refused) that also says how far it got. */
export type ResizeError<A extends Arch = Arch> = UpcallError & ResizeProgress<A>

/** True for an error of `resizeCpus` that says how far it got. */
export function isResizeError(value: unknown): value is ResizeError {
  return isUpcallError(value) && 'unknown' in value && Array.isArray(value.unknown)
}

// setTimeout fires at once beyond this.
const LONGEST_TIMER_MS = 0x7fff_ffff

type Send = (request: CpuRequest, options: WaitOptions & { present?: never }) => Promise<Reply>

/** One resize at a time: what is the VMM's to do and what is the guest's, in the order that survives a failure of either. */
export class CpuResizer<A extends Arch> {
  readonly #arch: A
  readonly #remote: string
  readonly #clock: Clock
  readonly #send: Send
  #resizing = false

  constructor(arch: A, remote: string, clock: Clock = systemClock, send: Send) {
    this.#arch = arch
    this.#remote = remote
    this.#clock = clock
    this.#send = send
  }

  async resize(target: number, options: ResizeOptions<A>): Promise<ResizeResult<A>> {
    checkObject('options', options)
    const present = presentIds(this.#arch, options.present)
    checkTarget(target, options.max)
    checkTime(options.timeoutMs)
    // Before vCPUs are started for nothing.
    checkFunction('start', options.start)
    checkFunction('stop', options.stop)
    checkSwitch('oneByOne', options.oneByOne)
    checkSignal(options.signal)
    if (this.#resizing)
      throw new UpcallError('BUSY', 'not-sent', `${this.#subject(target)}: another resize is under way; wait for it`)
    this.#resizing = true
    const time = new Time(this.#clock, options)
    const run = {
      target,
      options,
      time,
      present: new Set(present),
      added: [] as number[],
      removed: [] as number[],
      unknown: [] as number[],
    }
    try {
      await (target > present.length ? this.#grow(run) : this.#shrink(run))
      const { added, removed } = run
      return { added, removed, present: this.#presentOf(run) }
    } catch (error) {
      if (!isUpcallError(error)) throw error
      const { added, removed, unknown } = run
      throw Object.assign(error, { added, removed, unknown, present: this.#presentOf(run) })
    } finally {
      time.end()
      this.#resizing = false
    }
  }

  async #grow(run: Run<A>): Promise<void> {
    const { target, options, time, present, added, unknown } = run
    for (const ids of batches(lowestFree(present, target - present.size), options)) {
      time.check(this.#subject(target))
      try {
        await options.start([...ids], { signal: time.signal })
      } catch (cause) {
        throw this.#error('CALLBACK', 'not-sent', target, `start(${ids}) failed; the guest was not asked`, cause)
      }
      try {
        await this.#send(this.#request('ADD_CPU', ids), time.left(this.#subject(target)))
      } catch (error) {
        if (leavesAsItWas(error, ids)) await this.#rollBack(run, ids, error)
        else unknown.push(...ids)
        throw error
      }
      added.push(...ids)
      for (const id of ids) present.add(id)
    }
  }

  async #shrink(run: Run<A>): Promise<void> {
    const { target, options, time, present, removed, unknown } = run
    const highest = [...present].sort((a, b) => b - a).slice(0, present.size - target)
    // Before the first one goes, rather than in the middle.
    if (highest.length > 0) orderCpus(this.#request('DEL_CPU', highest), this.#presentOf(run))
    for (const ids of batches(highest, options)) {
      try {
        await this.#send(this.#request('DEL_CPU', ids), time.left(this.#subject(target)))
      } catch (error) {
        if (!leavesAsItWas(error, ids)) {
          unknown.push(...ids)
          for (const id of ids) present.delete(id)
        }
        throw error
      }
      removed.push(...ids)
      for (const id of ids) present.delete(id)
      try {
        await options.stop([...ids])
      } catch (cause) {
        throw this.#error('CALLBACK', 'indeterminate', target, `the guest has let go of ${ids}, but stop() failed`, cause)
      }
    }
  }

  async #rollBack(run: Run<A>, ids: number[], error: unknown): Promise<void> {
    try {
      await run.options.stop([...ids])
    } catch (cause) {
      run.unknown.push(...ids)
      const outcome = isUpcallError(error) ? error.outcome : 'not-sent'
      throw this.#error(
        'CALLBACK',
        outcome,
        run.target,
        `the add of ${ids} failed, and stop() could not roll it back`,
        new AggregateError([error, cause]),
      )
    }
  }

  #request(type: 'ADD_CPU' | 'DEL_CPU', ids: number[]): CpuRequest {
    return this.#arch === 'x86_64' ? { type, apicIds: ids } : { type, count: ids.length }
  }

  #presentOf({ present }: Run<A>): PresentOf<A> {
    const ids = [...present].sort((a, b) => a - b)
    return (this.#arch === 'x86_64' ? ids : ids.length) as PresentOf<A>
  }

  #subject(target: number): string {
    return `cpu.resize ${target} ${this.#remote}`
  }

  #error(code: UpcallErrorCode, outcome: UpcallError['outcome'], target: number, what: string, cause: unknown): UpcallError {
    return new UpcallError(code, outcome, `${this.#subject(target)}: ${what}; look at cause`, { cause })
  }
}

interface Run<A extends Arch> extends Omit<ResizeProgress<A>, 'present'> {
  readonly target: number
  readonly options: ResizeOptions<A>
  readonly time: Time
  readonly present: Set<number>
}

/** The time that a whole resize has, and the caller's signal, as what each step gets of them. */
class Time {
  readonly #clock: Clock
  readonly #signal: AbortSignal | undefined
  readonly #deadline: number | undefined
  readonly #controller = new AbortController()
  readonly #cancel: (() => void) | undefined
  #timeUp = false
  readonly #onAbort = () => this.#controller.abort(this.#signal?.reason)

  constructor(clock: Clock, { signal, timeoutMs }: { signal?: AbortSignal | undefined; timeoutMs?: number | undefined }) {
    this.#clock = clock
    this.#signal = signal
    if (signal?.aborted) this.#onAbort()
    signal?.addEventListener('abort', this.#onAbort, { once: true })
    if (timeoutMs === undefined) return
    this.#deadline = clock.now() + timeoutMs
    if (timeoutMs <= LONGEST_TIMER_MS) {
      this.#cancel = clock.setTimer(timeoutMs, () => {
        this.#timeUp = true
        this.#controller.abort(new DOMException(`The resize took longer than ${timeoutMs} ms`, 'TimeoutError'))
      })
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** What is left for one request. @throws UpcallError if nothing is. */
  left(subject: string): WaitOptions {
    this.check(subject)
    if (this.#deadline === undefined) return { signal: this.#signal }
    // The clock goes on: what was left a moment ago may be nothing now, which no request takes for a time.
    return { signal: this.#signal, timeoutMs: Math.max(1, this.#deadline - this.#clock.now()) }
  }

  /** @throws UpcallError `ABORTED` or `TIMEOUT` if there is no more to be done. */
  check(subject: string): void {
    const stands = 'before the guest could be asked; what was done before stands'
    if (this.#signal?.aborted)
      throw new UpcallError('ABORTED', 'not-sent', `${subject}: aborted ${stands}`, { cause: this.#signal.reason })
    // A timer may fire a little before the clock says so; once it has, the time is up.
    if (this.#timeUp || (this.#deadline !== undefined && this.#clock.now() >= this.#deadline))
      throw new TimeoutError('not-sent', `${subject}: its time was up ${stands}`)
  }

  end(): void {
    this.#cancel?.()
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }
}

/**
 * Whether the guest is certainly as it was before the request: it never saw it, or refused the only id in it. A batch that is refused
 * stops at the first id that fails and does not say which (protocol, fact 6); +1 says that the guest has another idea of that CPU.
 */
function leavesAsItWas(error: unknown, ids: number[]): boolean {
  if (isWireError(error)) return true
  if (!isUpcallError(error)) return false
  if (error.outcome === 'not-sent') return true
  return error instanceof GuestError && error.errno < 0 && ids.length === 1
}

function batches(ids: number[], { oneByOne = false }: { oneByOne?: boolean | undefined }): number[][] {
  if (ids.length === 0) return []
  return oneByOne ? ids.map((id) => [id]) : [ids]
}

function lowestFree(present: ReadonlySet<number>, count: number): number[] {
  const ids: number[] = []
  for (let id = 0; ids.length < count; id++) if (!present.has(id)) ids.push(id)
  return ids
}

function checkTarget(target: number, max: number): void {
  if (!Number.isInteger(max) || max < 1 || max > MAX_APIC_ID + 1)
    throw argument('max', `must be an integer in 1 … ${MAX_APIC_ID + 1}, got ${show(max)}`)
  if (!Number.isInteger(target) || target < 1 || target > max)
    throw argument('target', `must be an integer in 1 … ${max} (max), got ${show(target)}`)
}

function checkTime(timeoutMs: number | undefined): void {
  if (timeoutMs !== undefined && !(typeof timeoutMs === 'number' && timeoutMs > 0))
    throw new RangeError(`timeoutMs: must be a number of milliseconds above 0, got ${String(timeoutMs)}`)
}

function presentIds(arch: Arch, present: readonly number[] | number): readonly number[] {
  if (arch === 'aarch64') {
    if (typeof present !== 'number' || !Number.isInteger(present) || present < 1 || present > MAX_APIC_ID + 1)
      throw argument('present', `must be the number of vCPUs, 1 … ${MAX_APIC_ID + 1}, got ${show(present)}`)
    return Array.from({ length: present }, (_, i) => i)
  }
  if (!Array.isArray(present)) throw argument('present', "must be the array of the vCPUs' ids")
  const named = new Set<number>()
  for (const [i, id] of present.entries()) {
    if (!Number.isInteger(id) || id < 0 || id > MAX_APIC_ID)
      throw argument(`present[${i}]`, `must be an integer in 0 … ${MAX_APIC_ID}, got ${show(id)}`)
    if (named.has(id)) throw argument(`present[${i}]`, `CPU ${id} is named twice`)
    named.add(id)
  }
  if (!named.has(0)) throw argument('present', 'CPU 0 is the boot CPU and always present')
  return present
}

function argument(path: string, what: string): WireError {
  return new WireError('ARGUMENT', path, what)
}
