import { Argument, type Command } from 'commander'
import { addressesOn } from '../completion/addresses.js'
import { complete } from '../completion/engine.js'
import { type Shell, scripts, shells } from '../completion/scripts.js'
import type { Action, Context } from '../context.js'

export function addCompletionCommands(program: Command, action: Action): void {
  program
    .command('completion')
    .description('print a script that completes commands, options and addresses at Tab')
    .addArgument(new Argument('<shell>', 'the shell to print it for').choices(shells))
    .addHelpText(
      'after',
      `
How to install it, for the next shell:
  bash   add to ~/.bashrc:      source <(upcall completion bash)
  zsh    add to ~/.zshrc, after compinit:      source <(upcall completion zsh)
  fish   run once:      upcall completion fish > ~/.config/fish/completions/upcall.fish

The script asks the upcall on PATH, and needs no bash-completion. It lists folders and sockets, and connects to nothing.

Examples:
  $ source <(upcall completion bash)
  $ upcall completion zsh > "\${fpath[1]}/_upcall"`,
    )
    .action(
      action(async ({ io }: Context, _options: object, shell: Shell) => {
        io.stdout.write(scripts[shell])
      }),
    )

  program
    .command('__complete', { hidden: true })
    .description('answer the scripts of `upcall completion`')
    .argument('[words...]')
    .action(
      action(async ({ io }: Context, _options: object, words: string[]) => {
        const { candidates, files, unfinished } = complete(program, words, addressesOn())
        const flags = [...(files ? ['files'] : []), ...(unfinished ? ['unfinished'] : [])]
        const lines = [...candidates.map(({ value, description }) => `${value}\t${description}`), `:${flags.join(',')}`]
        io.stdout.write(`${lines.join('\n')}\n`)
      }),
    )
}
