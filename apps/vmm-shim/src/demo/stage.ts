import { isDeepStrictEqual } from 'node:util'
import { type Clock, systemClock } from '@upcall/foundation/clock'
import { messageFor } from '@upcall/foundation/error'
import { bounded } from '@upcall/foundation/wait'
import type { VmBody } from '../api/view.js'
import { type ApiReply, callApi, isFault } from './api-client.js'
import { COLUMNS, type Line, type Row, type Style, table, wrap } from './text.js'

const COLOUR = { vmm: 'cyan', api: 'dim', upcall: 'magenta', guest: 'yellow', console: 'magenta', stream: 'green' } as const
/** The name at the beginning of a line. */
type Speaker = keyof typeof COLOUR

const INDENT = 4
const NAMES = 8
/** The length of a beat: the simulated demo takes about ten seconds. */
const BEAT_MS = 140

/** A step does not show what it is meant to show. */
class StepFailed extends Error {
  override readonly name = 'StepFailed'
}

export interface Step<Scene> {
  readonly name: string
  /** Plays the step and checks what it shows. Resolves with what happened, for the table. */
  run(scene: Scene): Promise<string>
}

export interface DemoResult {
  /** The step that did not show what it is meant to show, and why. */
  failed: { step: string; error: unknown } | undefined
}

export interface StageOptions {
  /** Path of the control API's socket. */
  api: string
  /** How long a step may wait for one thing, in milliseconds. */
  patienceMs: number
  /** How long the guest has to be silent before it counts as busy with a request, in milliseconds. Default 150. */
  silenceMs?: number | undefined
  /** The clock of `patienceMs`. Default: the platform's. */
  clock?: Clock | undefined
  signal?: AbortSignal | undefined
  /** Shows one line. */
  show(line: Line): void
  /** Resolves `ms` later, so that the audience can read. Default: at once. */
  sleep?: ((ms: number) => Promise<unknown>) | undefined
}

/** Where a demo is played: it shows lines, talks to the control API, and checks what a step expects. */
export class Stage {
  readonly patienceMs: number
  readonly silenceMs: number
  readonly #options: StageOptions
  /** How much of the current step was for the audience, in milliseconds. */
  #rested = 0

  constructor(options: StageOptions) {
    this.#options = options
    this.patienceMs = options.patienceMs
    this.silenceMs = options.silenceMs ?? 150
  }

  /** Plays the steps in order, and ends with a table. Stops at the first step that fails. */
  async play<Scene>(
    steps: readonly Step<Scene>[],
    scene: Scene,
    before: (name: string) => Promise<void> | void = () => {},
  ): Promise<DemoResult> {
    const rows: Row[] = []
    for (const [at, { name, run }] of steps.entries()) {
      this.show()
      this.show({ text: ` ${at + 1} `, style: 'cyan' }, { text: name, style: 'bold' })
      const started = performance.now()
      this.#rested = 0
      try {
        await before(name)
        const what = await run(scene)
        rows.push({ cells: [name, what, duration(performance.now() - started - this.#rested)], style: 'green' })
        await this.rest(1.5)
      } catch (error) {
        return this.fail(name, error)
      }
    }
    this.show()
    for (const line of table(['step', 'what happened', 'time'], rows)) this.show(...line)
    this.show({ text: ` ✔ all ${steps.length} steps hold`, style: 'green' })
    return { failed: undefined }
  }

  /** @throws the signal's reason if it has aborted: an interruption is not a failure. */
  fail(step: string, error: unknown): DemoResult {
    this.#options.signal?.throwIfAborted()
    this.show({ text: `   ✘ ${messageFor(error).split('\n')[0]}`, style: 'red' })
    return { failed: { step, error } }
  }

  show(...line: Line): void {
    this.#options.show(line)
  }

  /** A line, wrapped where it is too long, and time to read it. */
  async say(who: Speaker, text: string, style?: Style): Promise<void> {
    this.note(who, text, style)
    await this.rest(1)
  }

  /** A line without time to read it. */
  note(who: Speaker, text: string, style?: Style): void {
    const pieces = wrap(text, COLUMNS - INDENT - NAMES)
    pieces.forEach((piece, at) => {
      const name = at === 0 ? who : ''
      this.show(
        { text: ' '.repeat(INDENT) },
        { text: name.padEnd(NAMES), style: COLOUR[who] },
        { text: piece, style: style ?? (who === 'api' || who === 'console' ? 'dim' : undefined) },
      )
    })
  }

  /** Gives the audience `beats` to read. */
  async rest(beats: number): Promise<void> {
    const { sleep, signal } = this.#options
    const before = performance.now()
    signal?.throwIfAborted()
    await sleep?.(beats * BEAT_MS)
    this.#rested += performance.now() - before
  }

  /** A request to the control API, shown with its answer. @throws StepFailed for another status than the expected one. */
  async call(method: string, path: string, body: unknown, expected: number): Promise<unknown> {
    await this.say('api', `${method} ${path}${json(body)}`)
    return this.answered(this.send(method, path, body), expected)
  }

  /** A request that is not shown. */
  send(method: string, path: string, body?: unknown): Promise<ApiReply> {
    return callApi(this.#options.api, method, path, body)
  }

  /** Shows the answer when it arrives, and resolves with its body. @throws StepFailed for another status than the expected one. */
  async answered(sent: Promise<ApiReply>, expected: number): Promise<unknown> {
    const { status, body } = await sent
    if (isFault(body)) {
      const errno = body.errno === null ? '' : `, errno ${body.errno}`
      await this.say('api', `→ ${status} ${body.outcome}${errno}: ${body.fault_message}`, 'red')
    } else {
      await this.say('api', `→ ${status}${json(body)}`)
    }
    this.expect('status', status, expected)
    return body
  }

  /** The answer to `GET /vm`. */
  async look(): Promise<VmBody> {
    const { body } = await this.send('GET', '/vm')
    return body as VmBody
  }

  /** @throws StepFailed */
  expect(what: string, actual: unknown, expected: unknown): void {
    if (isDeepStrictEqual(actual, expected)) return
    throw new StepFailed(`${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
  }

  /** @throws StepFailed if `promise` takes longer than `timeoutMs`. Default: the patience of the audience. */
  within<T>(what: string, promise: Promise<T>, timeoutMs = this.patienceMs): Promise<T> {
    const { clock = systemClock, signal } = this.#options
    const late = () => new StepFailed(`${what}: it takes longer than ${timeoutMs} ms`)
    const aborted = () => new StepFailed(`${what}: interrupted`)
    return bounded({ timeoutMs, clock, signal, late, aborted }, (resolve, reject) => {
      promise.then(resolve, reject)
      return undefined
    })
  }
}

/** JSON with spaces, where a long text can be wrapped. */
export function json(value: unknown): string {
  return value === undefined ? '' : ` ${JSON.stringify(value, null, 1).replace(/\n */g, ' ')}`
}

function duration(ms: number): string {
  if (ms >= 1_000) return `${(ms / 1000).toFixed(1)} s`
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`
}
