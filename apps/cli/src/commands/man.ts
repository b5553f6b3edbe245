import type { Command } from 'commander'
import type { Action, Context } from '../context.js'
import { manPage } from '../man/page.js'

/** Prints the manual page, for the build. SOURCE_DATE_EPOCH is its date, for builds that are the same each time. */
export function addManCommand(program: Command, action: Action): void {
  program
    .command('__man', { hidden: true })
    .description('print the manual page')
    .action(
      action(async ({ io }: Context) => {
        const { SOURCE_DATE_EPOCH: seconds } = io.env
        io.stdout.write(manPage(program, seconds ? new Date(Number(seconds) * 1000) : new Date()))
      }),
    )
}
