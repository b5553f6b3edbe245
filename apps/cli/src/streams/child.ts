import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import type { Io } from '../output.js'
import { CLOSING_MS, ended, never, type Party } from './party.js'

/** A program that `--exec` runs, its stdin and stdout in our hands. */
export interface Program {
  readonly party: Party
  /** Its exit status; 128 and the signal's number if one killed it. */
  readonly status: Promise<number>
}

/** A program that cannot be run. */
export class ExecError extends Error {
  override readonly name = 'ExecError'
  readonly code: string
  /** As shells and env(1) have it: 127 for one that is not there, 126 for one that cannot be started. */
  readonly status: 126 | 127

  constructor(file: string, cause: NodeJS.ErrnoException) {
    const found = cause.code !== 'ENOENT'
    super(`--exec: ${file}: ${found ? `cannot be started (${cause.code})` : 'no such program'}`, { cause })
    this.code = cause.code ?? 'UNKNOWN'
    this.status = found ? 126 : 127
  }
}

/** @throws ExecError */
export async function startProgram(argv: readonly string[], io: Io, env: Record<string, string>): Promise<Program> {
  const [file = '', ...args] = argv
  // A terminal stays one for it. In a test there is none to inherit.
  const inherits = 'fd' in io.stderr && io.stderr.fd === 2
  let child: ReturnType<typeof spawn>
  try {
    child = spawn(file, args, { stdio: ['pipe', 'pipe', inherits ? 'inherit' : 'pipe'], env: { ...process.env, ...env } })
  } catch (error) {
    // E2BIG or ENOTDIR, say: only what it expects to happen does Node emit.
    throw new ExecError(file, error as NodeJS.ErrnoException)
  }
  child.stderr?.on('data', (chunk) => io.stderr.write(chunk))
  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const status = new Promise<number>((resolve) =>
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0))),
  )
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.on('error', (error) => reject(new ExecError(file, error)))
  })
  return { party: programParty(child as ChildProcessByStdio<Writable, Readable, Readable | null>, closed), status }
}

function programParty(child: ChildProcessByStdio<Writable, Readable, Readable | null>, closed: Promise<void>): Party {
  const { stdin, stdout } = child
  // It need not read all that it is sent.
  stdin.on('error', () => {})
  stdout.on('error', () => {})
  let ending: Promise<void> | undefined
  /** SIGTERM after `graceMs`, SIGKILL CLOSING_MS later. */
  const end = (graceMs: number) => {
    ending ??= (async () => {
      const timers = [
        setTimeout(() => child.kill('SIGTERM'), graceMs),
        setTimeout(() => {
          child.kill('SIGKILL')
          // What it left running may hold them for ever.
          child.stderr?.destroy()
        }, graceMs + CLOSING_MS),
      ]
      await closed
      for (const timer of timers) clearTimeout(timer)
    })()
    return ending
  }
  return {
    source: stdout,
    sink: stdin,
    endSink: () => ended(stdin),
    over: closed,
    refused: never(),
    needNotTakeAll: true,
    mustBeHeard: true,
    lastCall: never(),
    // It has had its EOF.
    lastWordsMs: undefined,
    broken: never(),
    async close() {
      // Nobody takes what it still has to say: its writing is SIGPIPE from here on.
      stdout.destroy()
      await ended(stdin)
      await closed
    },
    abandon() {
      stdin.end()
      stdout.destroy()
      return end(CLOSING_MS)
    },
    destroy() {
      stdin.destroy()
      stdout.destroy()
      child.kill('SIGTERM')
      return end(0)
    },
  }
}
