import { once } from 'node:events'
import type { Readable, Writable } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import spinner from 'yocto-spinner'
import { CODES, Interrupted } from './errors.js'
import { type Place, placeOf, placeText } from './errors-page.js'

/** The process as a command sees it. */
export interface Io {
  stdin: Readable
  stdout: Writable
  stderr: Writable
  env: Record<string, string | undefined>
  /** Aborts when the user interrupts; its reason is an `Interrupted`. */
  signal: AbortSignal
  /** Aborts when the user does so again, and wants no grace for what is under way. */
  hurry?: AbortSignal
  /** Has `fn` called for each SIGHUP, which otherwise ends the process. The returned function undoes that. */
  onHangUp?(fn: () => void): () => void
  /** Times the progress. Default: the system's. */
  clock?: Clock
}

type Streams = Pick<Io, 'stdout' | 'stderr' | 'env' | 'signal'>

const colours = { red: 31, green: 32, yellow: 33, magenta: 35, grey: 90 } as const
export type Colour = keyof typeof colours
export type Paint = (colour: Colour, text: string) => string

/** Where a command's results go: one JSON object per line on stdout under `--json`, otherwise lines for people, failures on stderr. */
export class Output {
  readonly json: boolean
  readonly paint: Paint
  readonly #io: Streams
  readonly #paintError: Paint
  readonly #verbose: boolean
  #drained: Promise<unknown> | undefined

  /** @param verbose - Whether a failure names its entry in docs/errors.md. */
  constructor(io: Streams, json: boolean, verbose = false) {
    this.#io = io
    this.json = json
    this.#verbose = verbose
    this.paint = painter(io.stdout, io.env)
    this.#paintError = painter(io.stderr, io.env)
  }

  /** The command was aborted because the reader of stdout has left. The exit status tells it. */
  get readerLeft(): boolean {
    const { reason } = this.#io.signal
    return reason instanceof Interrupted && reason.signal === 'SIGPIPE'
  }

  /** One result. Resolves when stdout takes more. */
  async result(value: object, text: (paint: Paint) => string): Promise<void> {
    await this.#write(this.json ? `${this.#jsonOf(value)}\n` : `${text(this.paint)}\n${this.#seeText(value, this.paint)}`)
  }

  /** One failure: under `--json` it is a result like any other. */
  async failure(value: object, text: (paint: Paint) => string): Promise<void> {
    if (this.json) await this.#write(`${this.#jsonOf(value)}\n`)
    else this.#io.stderr.write(`upcall: ${text(this.#paintError)}\n${this.#seeText(value, this.#paintError)}`)
  }

  #jsonOf(value: object): string {
    const place = this.#placeOf(value)
    return JSON.stringify(place === undefined ? value : { ...value, error: { ...(value as Failure).error, docs: place.anchor } })
  }

  #seeText(value: object, paint: Paint): string {
    const place = this.#placeOf(value)
    return place === undefined ? '' : `${paint('grey', `        ${placeText(place)}`)}\n`
  }

  #placeOf(value: object): Place | undefined {
    if (!this.#verbose) return undefined
    const { code, [CODES]: codes = [code] } = (value as Failure).error ?? {}
    return typeof code === 'string' ? placeOf(codes as string[]) : undefined
  }

  /** Shows on a terminal that something is under way. Anywhere else it says nothing, unless it is forced: then it is lines on stderr. */
  progress(text: string, { show, shared = false }: ProgressOptions = {}): Progress {
    const { stderr, env } = this.#io
    if (show === false) return silent
    if (this.json || shared || !isTerminal(stderr, env) || 'CI' in env) return show ? this.#progressLines() : silent
    // Its own signal handling would end the process before the outcome is known.
    const running = spinner({ text, stream: stderr as NodeJS.WriteStream, handleSignals: false }).start()
    return {
      everyMs: SPINNER_MS,
      update(text) {
        running.text = text
      },
      [Symbol.dispose]() {
        running.stop()
      },
    }
  }

  #progressLines(): Progress {
    const { stderr } = this.#io
    return {
      everyMs: LINES_MS,
      update: (text, value) => {
        // A reader of stderr that is behind gets fewer lines, and nothing piles up.
        if (stderr.destroyed || stderr.writableNeedDrain) return
        stderr.write(this.json ? `${JSON.stringify({ event: 'progress', ...(value ?? { text }) })}\n` : `${text}\n`)
      },
      [Symbol.dispose]() {},
    }
  }

  async #write(text: string): Promise<void> {
    const { stdout, signal } = this.#io
    if (stdout.destroyed || stdout.write(text) || signal.aborted) return
    // A reader that went away aborts the command; see main.ts.
    this.#drained ??= once(stdout, 'drain', { signal }).catch(() => {})
    await this.#drained
    this.#drained = undefined
  }
}

interface Failure {
  error?: { code?: unknown; [CODES]?: readonly string[] }
}

export interface Progress extends Disposable {
  /** How often it is worth an update, in milliseconds. undefined: it is not shown. */
  readonly everyMs: number | undefined
  /** @param value - The same for a program, where progress is JSON. */
  update(text: string, value?: object): void
}

export interface ProgressOptions {
  /** true: also where stderr is not a terminal, under `--json` and in CI, as lines. false: nowhere. */
  show?: boolean | undefined
  /** Something else uses the terminal, and a spinner would be in its way. */
  shared?: boolean
}

const SPINNER_MS = 250
const LINES_MS = 10_000

const silent: Progress = { everyMs: undefined, update() {}, [Symbol.dispose]() {} }

function painter(stream: Writable, env: Io['env']): Paint {
  const plain = !isTerminal(stream, env) || Boolean(env.NO_COLOR)
  return (colour, text) => (plain ? text : `\u001b[${colours[colour]}m${text}\u001b[39m`)
}

function isTerminal(stream: Writable, env: Io['env']): boolean {
  return 'isTTY' in stream && stream.isTTY === true && env.TERM !== 'dumb'
}
