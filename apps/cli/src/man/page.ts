import type { EventEmitter } from 'node:events'
import type { Command, Option } from 'commander'
import { formatted, headed, macro, prose, text } from './mdoc.js'

const ENVIRONMENT = [
  ['UPCALL_TARGET', 'The address of the guest, if there is no --target.'],
  ['NO_COLOR', 'If it is not empty, there is no colour.'],
  ['CI', 'If it is set, there is no spinner and no progress.'],
  ['NODE_DEBUG', 'Prints on stderr what the packages do: upcall-client, upcall-vsock, or upcall-* for all.'],
  ['UPCALL_VSOCK_ADDON', 'A file to load in place of the addon of @upcall/vsock; "none" switches it off.'],
  ['UPCALL_VHOST_USER_ADDON', 'The same for @upcall/vhost-user.'],
  ['UPCALL_PEER', "Set for the program of --exec: the peer's address."],
  ['NOTIFY_SOCKET', 'Where systemd is told that a service is ready, and that it ends.'],
  ['LISTEN_FDS', 'Set by systemd with the sockets that it has opened: the addresses systemd and systemd:<name>.'],
] as const

const FILES = [
  ['/dev/vsock', "This machine's context id. Reading it needs the file's permission."],
  ['<path>_<port>', 'Where a VMM with the hybrid socket <path> delivers what its guest connects to on host port <port>.'],
] as const

/** The manual page upcall(1) of the program, in mdoc(7): all that it says stands in the program's own help. */
export function manPage(program: Command, date: Date): string {
  const { sections } = headed(helpAfter(program))
  const day = new Intl.DateTimeFormat('en-US', { dateStyle: 'long', timeZone: 'UTC' }).format(date)
  const section = (name: string) => formatted(sections.get(name) ?? '')
  const lines = [
    `.Dd ${day}`,
    '.Dt UPCALL 1',
    '.Os',
    '.Sh NAME',
    '.Nm upcall',
    `.Nd ${text(program.description().replace(/\.$/, ''))}`,
    '.Sh SYNOPSIS',
    ...leaves(program).flatMap((command) => [
      '.Nm',
      '.Op Ar options',
      `.Cm ${text(nameOf(command))}`,
      ...command.registeredArguments.map(
        (argument) => `${argument.required ? '.Ar' : '.Op Ar'} ${text(argument.name())}${argument.variadic ? ' ...' : ''}`,
      ),
    ]),
    '.Sh DESCRIPTION',
    ...prose(program.description()),
    'The requests go over vsock to the device manager in the kernel of the guest.',
    'The options are:',
    ...options(program),
    '.Ss Addresses',
    ...section('Addresses'),
    '.Sh COMMANDS',
    ...leaves(program).flatMap((command) => [macro('Ss', usageOf(command)), ...commandText(command)]),
    ...groups(program).flatMap((command) => {
      const [first, ...rest] = formatted(helpAfter(command))
      const after = first === undefined || first === '.Pp' ? rest : [first, ...rest]
      return after.length === 0 ? [] : [macro('Ss', `All of upcall ${nameOf(command)}`), ...after]
    }),
    '.Sh ENVIRONMENT',
    ...tagged(ENVIRONMENT, 'Ev'),
    '.Sh FILES',
    ...tagged(FILES, 'Pa'),
    '.Sh EXIT STATUS',
    ...section('Exit status'),
    '.Sh EXAMPLES',
    ...section('Examples'),
    '.Sh SEE ALSO',
    '.Xr qemu 1 ,',
    '.Xr systemd.socket 5 ,',
    '.Xr unix 7 ,',
    '.Xr vsock 7',
  ]
  return `${lines.join('\n')}\n`
}

/** Commands that do something, in the order of the help. */
function leaves(command: Command): Command[] {
  const own = visible(command)
  return own.flatMap((each) => (each.commands.length === 0 ? [each] : leaves(each)))
}

function groups(command: Command): Command[] {
  return visible(command).filter((each) => each.commands.length > 0)
}

function visible(command: Command): Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((each) => each.name() !== 'help')
}

function nameOf(command: Command): string {
  const above = command.parent
  return above === null || above.parent === null ? command.name() : `${nameOf(above)} ${command.name()}`
}

function usageOf(command: Command): string {
  return `upcall ${nameOf(command)} ${command.usage()}`
}

function commandText(command: Command): string[] {
  const description = command.description()
  const arguments_ = command.registeredArguments
    .filter((argument) => argument.description !== '')
    .map((argument) => [argument.name(), argument.description] as const)
  return [
    ...prose(`${description.charAt(0).toUpperCase()}${description.slice(1)}.`),
    ...(arguments_.length > 0 ? tagged(arguments_, 'Ar') : []),
    ...options(command),
    ...formatted(helpAfter(command)),
  ]
}

function options(command: Command): string[] {
  const shown = command
    .createHelp()
    .visibleOptions(command)
    .filter((option) => command.parent === null || (option.long !== '--help' && option.long !== '--version'))
  if (shown.length === 0) return []
  return ['.Bl -tag -width Ds', ...shown.flatMap((option) => [`.It ${flagsOf(option)}`, ...prose(descriptionOf(option))]), '.El']
}

function descriptionOf({ description, argChoices, defaultValue }: Option): string {
  const choices = argChoices ? ` (choices: ${argChoices.join(', ')})` : ''
  const preset = defaultValue === undefined ? '' : ` (default: ${defaultValue})`
  return `${description}${choices}${preset}`
}

/** `-t, --target <address>` as `Fl t , Fl -target Ar address`. */
function flagsOf({ short, long, flags }: Option): string {
  const [, value] = /[<[](.*)[>\]]/.exec(flags) ?? []
  const names = [short, long].filter((flag) => flag !== undefined).map((flag) => `Fl ${text(flag.slice(1))}`)
  return `${names.join(' , ')}${value === undefined ? '' : ` Ar ${text(value)}`}`
}

function tagged(entries: readonly (readonly [string, string])[], tag: string): string[] {
  return ['.Bl -tag -width Ds', ...entries.flatMap(([name, about]) => [`.It ${tag} ${text(name)}`, ...prose(about)]), '.El']
}

/** What the help of a command says after its options. */
function helpAfter(command: Command): string {
  let said = ''
  const emitter = command as unknown as EventEmitter
  emitter.emit('afterHelp', { error: false, command, write: (chunk: string) => (said += chunk) })
  return said
}
