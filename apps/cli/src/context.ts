import type { Address } from '@upcall/vsock'
import type { Arch } from '@upcall/wire'
import type { Command } from 'commander'
import type { ExitStatus } from './exit.js'
import { archOf, checkNeeded, type GlobalOptions, targetOf } from './options.js'
import { type Io, Output } from './output.js'
import { type Report, reportStatus, reportText } from './report.js'

/** What a command works with: the process, the global options, and where its result goes. */
export class Context {
  readonly output: Output
  /** `--timeout` in milliseconds. */
  readonly timeoutMs: number | undefined

  constructor(
    readonly io: Io,
    readonly exit: ExitStatus,
    readonly options: GlobalOptions,
  ) {
    this.output = new Output(io, options.json === true, options.verbose)
    this.timeoutMs = options.timeout
  }

  /** @throws UsageError if there is no target, or the target cannot be used. */
  get target(): Address {
    return targetOf(this.options, this.io.env)
  }

  /** @throws UsageError on a machine of another architecture, without --arch. */
  get arch(): Arch {
    return archOf(this.options)
  }

  /** Prints what became of an operation and counts it for the exit status. */
  async report(report: Report, subject: string): Promise<void> {
    this.exit.add(reportStatus(report))
    const text = reportText.bind(undefined, report, subject)
    await (report.error === undefined ? this.output.result(report, text) : this.output.failure(report, text))
  }
}

type Handler<Options, Args extends unknown[]> = (context: Context, options: Options, ...args: Args) => Promise<void>

/** Makes what commander calls out of a function of the context, the command's own options and its arguments. */
export type Action = <Options extends object, Args extends unknown[]>(
  handler: Handler<Options, Args>,
) => (...received: unknown[]) => Promise<void>

/** Adds a command to the program. */
export type AddCommand = (program: Command, action: Action) => void

export function actionOf(io: Io, exit: ExitStatus): Action {
  return <Options extends object, Args extends unknown[]>(handler: Handler<Options, Args>) =>
    async (...received: unknown[]) => {
      // The arguments, the options, and the command they are of.
      const command = received.at(-1) as Command
      checkNeeded(command)
      const context = new Context(io, exit, command.optsWithGlobals<GlobalOptions>())
      return handler(context, command.opts<Options>(), ...(received.slice(0, -2) as Args))
    }
}
