import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { constants } from 'node:os'
import type { Readable, Writable } from 'node:stream'
import { errnoOf, FieldError } from '@upcall/foundation/error'
import { ended } from '@upcall/foundation/streams'
import type { RelayEnd } from '@upcall/vsock'
import type { Io } from '../output.js'
import { never } from './stdio.js'

/** How long a program may take to end after each of the ways to tell it. */
const CLOSING_MS = 2_000

/** A program that `--exec` runs; its stdin and stdout are the end of a relay. */
export interface Program {
  readonly end: RelayEnd
  /** Its exit status; 128 and the signal's number if one killed it. */
  readonly status: Promise<number>
}

/** A program that cannot be run. */
export class ExecError extends FieldError {
  override readonly name = 'ExecError'
  /** As shells and env(1) have it: 127 for a program that does not exist, 126 for a program that cannot be started. */
  readonly status: 126 | 127

  constructor(file: string, cause: unknown) {
    const code = errnoOf(cause)
    const missing = code === 'ENOENT'
    super({
      code,
      op: '--exec',
      subject: file,
      what: missing ? 'no such program' : `cannot be started (${code})`,
      next: missing ? 'Check the name, or give its path.' : 'Check that it is executable.',
      cause,
    })
    this.status = missing ? 127 : 126
  }
}

/** @throws ExecError */
export async function startProgram(argv: readonly string[], io: Io, env: Record<string, string>): Promise<Program> {
  const [file = '', ...args] = argv
  // A program keeps its terminal. A test has no terminal to inherit.
  const inherits = 'fd' in io.stderr && io.stderr.fd === 2
  let child: ReturnType<typeof spawn>
  try {
    child = spawn(file, args, { stdio: ['pipe', 'pipe', inherits ? 'inherit' : 'pipe'], env: { ...process.env, ...env } })
  } catch (error) {
    // E2BIG or ENOTDIR, for example: Node emits only the errors that it expects.
    throw new ExecError(file, error)
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
  return { end: programEnd(child as ChildProcessByStdio<Writable, Readable, Readable | null>, closed), status }
}

function programEnd(child: ChildProcessByStdio<Writable, Readable, Readable | null>, closed: Promise<void>): RelayEnd {
  const { stdin, stdout } = child
  // It may end without having read everything.
  stdin.on('error', () => {})
  stdout.on('error', () => {})
  let ending: Promise<void> | undefined
  /** SIGTERM after `graceMs`, SIGKILL CLOSING_MS later. */
  const terminate = (graceMs: number) => {
    ending ??= (async () => {
      const timers = [
        setTimeout(() => child.kill('SIGTERM'), graceMs),
        setTimeout(() => {
          child.kill('SIGKILL')
          // Processes that it left running may hold it open for ever.
          child.stderr?.destroy()
        }, graceMs + CLOSING_MS),
      ]
      await closed
      for (const timer of timers) clearTimeout(timer)
    })()
    return ending
  }
  return {
    readable: stdout,
    writable: stdin,
    halfClose: true,
    mustBeHeard: true,
    mayLeaveUnread: true,
    // It has had its EOF.
    silenceMs: undefined,
    gone: closed,
    refused: never(),
    broken: never(),
    end: () => ended(stdin),
    async close() {
      // Its output has no reader from here on: a write is SIGPIPE.
      stdout.destroy()
      await ended(stdin)
      await closed
    },
    abandon() {
      stdin.end()
      stdout.destroy()
      return terminate(CLOSING_MS)
    },
    destroy() {
      stdin.destroy()
      stdout.destroy()
      child.kill('SIGTERM')
      return terminate(0)
    },
  }
}
