import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '@upcall/client'
import type { SimulatedMachine } from '@upcall/vmm/simulated'
import type { VmBody } from '../api/view.js'
import type { Shim } from '../shim.js'
import { type ApiReply, callApi, isFault } from './api-client.js'
import { COLUMNS, type Line, type Style, wrap } from './text.js'

/** Who says a line. */
export type Speaker = 'vmm' | 'api' | 'upcall' | 'guest'

const COLOUR: Record<Speaker, Style> = { vmm: 'cyan', api: 'dim', upcall: 'magenta', guest: 'yellow' }
const INDENT = 4
const NAMES = 8

/** A step does not show what it is there to show. */
class StepFailed extends Error {
  override readonly name = 'StepFailed'
}

export interface StageOptions {
  shim: Shim<SimulatedMachine>
  /** Path of the control API's socket. */
  api: string
  /** How long a step may wait for one thing, in milliseconds. */
  patienceMs: number
  /** What patience is measured by. */
  clock: Clock
  /** Shows one line. */
  show(line: Line): void
  /** Lets the audience read, `beats` long. */
  rest(beats: number): Promise<void>
}

/** What a step plays on. */
export class Stage {
  readonly shim: Shim<SimulatedMachine>
  readonly patienceMs: number
  readonly #options: StageOptions

  constructor(options: StageOptions) {
    this.#options = options
    this.shim = options.shim
    this.patienceMs = options.patienceMs
  }

  /** A line by somebody, broken where it is too long. */
  async say(who: Speaker, text: string, style?: Style): Promise<void> {
    this.note(who, text, style)
    await this.rest(1)
  }

  /** A line in the middle of something that does not wait. */
  note(who: Speaker, text: string, style?: Style): void {
    const pieces = wrap(text, COLUMNS - INDENT - NAMES)
    pieces.forEach((piece, at) => {
      const name = at === 0 ? who : ''
      this.#options.show([
        { text: ' '.repeat(INDENT) },
        { text: name.padEnd(NAMES), style: COLOUR[who] },
        { text: piece, style: style ?? (who === 'api' ? 'dim' : undefined) },
      ])
    })
  }

  rest(beats: number): Promise<void> {
    return this.#options.rest(beats)
  }

  /** A request to the control API, shown with its answer. */
  async call(method: string, path: string, body?: unknown): Promise<ApiReply> {
    await this.say('api', `${method} ${path}${json(body)}`)
    return this.answered(this.send(method, path, body))
  }

  /** A request that is not shown. */
  send(method: string, path: string, body?: unknown): Promise<ApiReply> {
    return callApi(this.#options.api, method, path, body)
  }

  /** Shows the answer once it is there. */
  async answered(sent: Promise<ApiReply>): Promise<ApiReply> {
    const reply = await sent
    const { status, body } = reply
    if (isFault(body)) {
      await this.say(
        'api',
        `→ ${status} ${body.outcome}${body.errno === null ? '' : `, errno ${body.errno}`}: ${body.fault_message}`,
        'red',
      )
    } else {
      await this.say('api', `→ ${status}${json(body)}`)
    }
    return reply
  }

  /** What `GET /vm` says. */
  async look(): Promise<VmBody> {
    const { body } = await this.send('GET', '/vm')
    return body as VmBody
  }

  /** @throws StepFailed */
  expect(what: string, actual: unknown, expected: unknown): void {
    if (isDeepStrictEqual(actual, expected)) return
    throw new StepFailed(`${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
  }

  /** @throws StepFailed if `promise` takes longer than the audience's patience. */
  async within<T>(what: string, promise: Promise<T>): Promise<T> {
    let cancel = () => {}
    const tooLate = new Promise<never>((_, reject) => {
      const giveUp = () => reject(new StepFailed(`${what}: not within ${this.patienceMs} ms`))
      cancel = this.#options.clock.setTimer(this.patienceMs, giveUp)
    })
    try {
      return await Promise.race([promise, tooLate])
    } finally {
      cancel()
    }
  }
}

/** With spaces, where a long one can be broken. */
export function json(value: unknown): string {
  return value === undefined ? '' : ` ${JSON.stringify(value, null, 1).replace(/\n */g, ' ')}`
}
