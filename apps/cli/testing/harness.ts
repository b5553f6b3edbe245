import { EventEmitter, once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { Interrupted } from '../src/errors.js'
import { run } from '../src/run.js'

/** What a command wrote, and a way to wait for it. */
export class Sink extends Writable {
  readonly #chunks: Buffer[] = []
  readonly #arrived = new EventEmitter()

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(chunk)
    this.#arrived.emit('text')
    done()
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks)
  }

  get text(): string {
    return this.bytes.toString()
  }

  get lines(): string[] {
    return this.text.split('\n').slice(0, -1)
  }

  /** Every line as JSON: throws if a line is not JSON. */
  get json() {
    return this.lines.map((line) => JSON.parse(line))
  }

  async has(text: string): Promise<void> {
    while (!this.text.includes(text)) await once(this.#arrived, 'text')
  }
}

/** The same at a terminal. */
class Terminal extends Sink {
  readonly isTTY = true
  readonly columns = 200
  cursorTo() {}
  moveCursor() {}
  clearLine() {}
}

/** One run of the command in this process. */
export interface Running {
  readonly stdout: Sink
  readonly stderr: Sink
  readonly status: Promise<number>
  interrupt(signal?: 'SIGINT' | 'SIGTERM'): void
}

export interface StartOptions {
  stdin?: Readable
  env?: Record<string, string>
  /** stderr is a terminal. */
  terminal?: boolean
  clock?: Clock
}

export function start(
  argv: readonly string[],
  { stdin = Readable.from([]), env = {}, terminal = false, clock }: StartOptions = {},
): Running {
  const stdout = new Sink()
  const stderr = terminal ? new Terminal() : new Sink()
  const controller = new AbortController()
  return {
    stdout,
    stderr,
    status: run(argv, { stdin, stdout, stderr, env, signal: controller.signal, ...(clock && { clock }) }),
    interrupt: (signal = 'SIGINT') => controller.abort(new Interrupted(signal)),
  }
}

/** A run to its end. */
export async function upcall(argv: readonly string[], options?: StartOptions) {
  const running = start(argv, options)
  const status = await running.status
  return { status, stdout: running.stdout, stderr: running.stderr }
}

export interface Guest extends Running, AsyncDisposable {
  readonly path: string
  /** As `--target` takes it. */
  readonly target: string
}

/** `upcall serve` in a directory of its own; gone, with everything in it, at the end of the scope. */
export async function serveGuest(transport: 'unix' | 'hvsock', args: readonly string[] = []): Promise<Guest> {
  const directory = await mkdtemp(join(tmpdir(), 'upcall-cli-'))
  const path = join(directory, 's')
  const target = transport === 'unix' ? `unix:${path}` : `hvsock://${path}:219`
  const running = start(['--json', '--arch', 'x86_64', 'serve', '--listen', target, ...args])
  await Promise.race([running.stdout.has('"listening"'), running.status])
  return {
    ...running,
    path,
    target,
    async [Symbol.asyncDispose]() {
      running.interrupt('SIGTERM')
      await running.status
      await rm(directory, { recursive: true })
    },
  }
}
