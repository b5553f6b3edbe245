import { type Clock, isUpcallError, type Outcome, TimeoutError, UpcallError, type WaitOptions } from '@upcall/client'
import { onAbort } from '@upcall/foundation/abort'
import { checkFunction, checkObject, checkSignal, checkSwitch, duration, show } from '@upcall/foundation/check'
import { setLongTimer, systemClock } from '@upcall/foundation/clock'
import { textOf } from '@upcall/foundation/error'
import { type Arch, type CpuRequest, isWireError, type Reply, WireError } from '@upcall/wire'
import { MAX_APIC_ID, orderCpus } from './cpu-order.js'
import { GuestError } from './guest-error.js'
import { type PresentOf, ResizeError, type ResizeErrorFields, type ResizeProgress, type ResizeResult } from './resize-error.js'

export interface ResizeOptions<A extends Arch> {
  /** The vCPUs now, including the boot CPU. */
  present: PresentOf<A>
  /** The most vCPUs that the VM can have. */
  max: number
  /** Creates and starts vCPUs, before ADD_CPU. An error ends the resize. `signal` aborts with the caller's, and when the time is up. */
  start(ids: number[], options: { signal: AbortSignal }): void | Promise<void>
  /** Stops and removes vCPUs: after a successful DEL_CPU, and to roll back an add that the guest refused or never saw. */
  stop(ids: number[]): void | Promise<void>
  /** One request for each vCPU instead of one for all: slower, but a refusal leaves nothing unknown. Default false. */
  oneByOne?: boolean | undefined
  signal?: AbortSignal | undefined
  /** Milliseconds for the whole resize. Default: no limit; each request has its own deadline. */
  timeoutMs?: number | undefined
}

type Send = (request: CpuRequest, options: WaitOptions & { present?: never }) => Promise<Reply>

/** Runs one resize at a time, with the steps of the VMM and of the guest in an order that survives a failure of either. */
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
    const timeoutMs = duration('timeoutMs', options.timeoutMs, Number.POSITIVE_INFINITY)
    // Before any vCPU is started.
    checkFunction('start', options.start)
    checkFunction('stop', options.stop)
    checkSwitch('oneByOne', options.oneByOne)
    checkSignal(options.signal)
    const about = { op: `cpu.resize ${target}`, subject: this.#remote }
    if (this.#resizing) {
      const what = 'another resize is under way'
      throw new UpcallError({ ...about, code: 'BUSY', outcome: 'not-sent', what, next: 'Wait for it.', retryable: true })
    }
    this.#resizing = true
    const time = new Time(this.#clock, timeoutMs, options.signal, about)
    const run: Run<A> = { target, options, time, present: new Set(present), added: [], removed: [], unknown: [] }
    try {
      await (target > present.length ? this.#grow(run) : this.#shrink(run))
      return { added: run.added, removed: run.removed, present: this.#presentOf(run) }
    } catch (error) {
      throw this.#wrapped(run, error)
    } finally {
      time.end()
      this.#resizing = false
    }
  }

  async #grow(run: Run<A>): Promise<void> {
    const { target, options, time, present, added, unknown } = run
    for (const ids of batches(lowestFree(present, target - present.size), options)) {
      time.check()
      try {
        await options.start([...ids], { signal: time.signal })
      } catch (cause) {
        // A start() that ends because its signal aborted has not failed by itself.
        time.check()
        throw new StepError('not-sent', `start() of CPU ${ids.join(', ')} failed: ${textOf(cause)}`, [cause])
      }
      try {
        await this.#send(this.#request('ADD_CPU', ids), time.left())
      } catch (error) {
        if (leavesAsItWas(error, ids)) await rollBack(run, ids, error)
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
    // Checked before the first request instead of in the middle.
    if (highest.length > 0) orderCpus(this.#request('DEL_CPU', highest), this.#presentOf(run))
    for (const ids of batches(highest, options)) {
      try {
        await this.#send(this.#request('DEL_CPU', ids), time.left())
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
        const what = `the guest has removed CPU ${ids.join(', ')}, and stop() failed: ${textOf(cause)}`
        throw new StepError('indeterminate', what, [cause])
      }
    }
  }

  /** Errors of arguments stay as they are: the resize did not begin. */
  #wrapped(run: Run<A>, error: unknown): unknown {
    const { target, added, removed, unknown } = run
    const fields = { target, remote: this.#remote, added, removed, unknown, present: this.#presentOf(run) }
    const wrap = (rest: Pick<ResizeErrorFields<A>, 'code' | 'outcome' | 'errors' | 'what'>) =>
      new ResizeError<A>({ ...fields, ...rest })
    if (error instanceof StepError) {
      const { outcome, what, errors } = error
      return wrap({ code: 'CALLBACK', outcome, what, errors })
    }
    return isUpcallError(error) ? wrap({ code: error.code, outcome: error.outcome, errors: [error] }) : error
  }

  #request(type: 'ADD_CPU' | 'DEL_CPU', ids: number[]): CpuRequest {
    return this.#arch === 'x86_64' ? { type, apicIds: ids } : { type, count: ids.length }
  }

  #presentOf({ present }: Run<A>): PresentOf<A> {
    const ids = [...present].sort((a, b) => a - b)
    return (this.#arch === 'x86_64' ? ids : ids.length) as PresentOf<A>
  }
}

interface Run<A extends Arch> extends Omit<ResizeProgress<A>, 'present'> {
  readonly target: number
  readonly options: ResizeOptions<A>
  readonly time: Time
  readonly present: Set<number>
}

/** A step of the VMM that failed: one of the caller's functions threw. */
class StepError extends Error {
  constructor(
    readonly outcome: Outcome,
    readonly what: string | undefined,
    readonly errors: ResizeErrorFields<Arch>['errors'],
  ) {
    super('a step of a resize failed')
  }
}

async function rollBack<A extends Arch>(run: Run<A>, ids: number[], error: unknown): Promise<void> {
  try {
    await run.options.stop([...ids])
  } catch (cause) {
    run.unknown.push(...ids)
    throw new StepError(isUpcallError(error) ? error.outcome : 'not-sent', undefined, [error, cause])
  }
}

/** The time of a whole resize and the caller's signal, as each step gets them. */
class Time {
  readonly #clock: Clock
  readonly #caller: AbortSignal | undefined
  readonly #about: { readonly op: string; readonly subject: string }
  readonly #deadline: number
  readonly #controller = new AbortController()
  readonly #cancel: () => void
  readonly #unlisten: () => void
  #timeUp = false

  constructor(clock: Clock, timeoutMs: number, caller: AbortSignal | undefined, about: { op: string; subject: string }) {
    this.#clock = clock
    this.#caller = caller
    this.#about = about
    this.#deadline = clock.now() + timeoutMs
    if (caller?.aborted) this.#controller.abort(caller.reason)
    this.#unlisten = onAbort(caller, (reason) => this.#controller.abort(reason))
    this.#cancel = setLongTimer(clock, timeoutMs, () => {
      this.#timeUp = true
      this.#controller.abort(new DOMException(`The resize took longer than ${timeoutMs} ms`, 'TimeoutError'))
    })
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** The options of one request. @throws UpcallError if no time is left. */
  left(): WaitOptions {
    this.check()
    if (this.#deadline === Number.POSITIVE_INFINITY) return { signal: this.#caller }
    // The clock goes on: time that was left at the check may be over now, and no request takes 0 for a time.
    return { signal: this.#caller, timeoutMs: Math.max(1, this.#deadline - this.#clock.now()) }
  }

  /** @throws UpcallError `ABORTED` or `TIMEOUT` if no further step may begin. */
  check(): void {
    const stands = { ...this.#about, outcome: 'not-sent', next: 'Earlier steps stay done.' } as const
    if (this.#caller?.aborted) {
      const what = 'the caller has aborted it before the next request'
      throw new UpcallError({ ...stands, code: 'ABORTED', what, cause: this.#caller.reason })
    }
    // A timer may fire a little before the clock shows its time. Once it has fired, the time is up.
    if (this.#timeUp || this.#clock.now() >= this.#deadline)
      throw new TimeoutError({ ...stands, what: 'the time limit is over before the next request' })
  }

  end(): void {
    this.#cancel()
    this.#unlisten()
  }
}

/**
 * Whether the guest is certainly as it was before the request: it never saw the request, or refused its only id. A batch that is refused
 * stops at the first id that fails and does not say which (docs/protocol.md, fact 6). +1 says that the guest has another idea of that CPU.
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
    throw argument('max', `must be an integer from 1 to ${MAX_APIC_ID + 1}, got ${show(max)}`)
  if (!Number.isInteger(target) || target < 1 || target > max)
    throw argument('target', `must be an integer from 1 to ${max} (max), got ${show(target)}`)
}

function presentIds(arch: Arch, present: readonly number[] | number): readonly number[] {
  if (arch === 'aarch64') {
    if (typeof present !== 'number' || !Number.isInteger(present) || present < 1 || present > MAX_APIC_ID + 1)
      throw argument('present', `must be a number of vCPUs from 1 to ${MAX_APIC_ID + 1}, got ${show(present)}`)
    return Array.from({ length: present }, (_, i) => i)
  }
  if (!Array.isArray(present)) throw argument('present', `must be the array of the vCPUs' ids, got ${show(present)}`)
  const named = new Set<number>()
  for (const [i, id] of present.entries()) {
    if (!Number.isInteger(id) || id < 0 || id > MAX_APIC_ID)
      throw argument(`present[${i}]`, `must be an integer from 0 to ${MAX_APIC_ID}, got ${show(id)}`)
    if (named.has(id)) throw argument(`present[${i}]`, `CPU ${id} is named twice`)
    named.add(id)
  }
  if (!named.has(0)) throw argument('present', 'must have CPU 0: the boot CPU is always present')
  return present
}

function argument(path: string, what: string): WireError {
  return new WireError('ARGUMENT', path, what)
}
