import { Cid, type Endpoint, type HybridProfile, hybridProfiles, PORT_ANY, type VsockConnectOptions } from '@upcall/vsock'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Context } from '../../context.js'
import { UsageError } from '../../errors.js'
import { parseDuration, parseInteger } from '../../options.js'
import type { ListenOn } from '../../streams/endpoint.js'
import { isForMessages } from '../../streams/messages.js'

/** The global options that are about a guest with upcall, and mean nothing to a stream. */
export const notOfStreams: ReadonlySet<string> = new Set(['target', 'arch'])

/** Refuses options that would silently do nothing. */
export function checkGlobals({ options }: Context): void {
  for (const [name, value] of Object.entries(options))
    if (notOfStreams.has(name) && value !== undefined)
      throw new UsageError(
        `--${name}`,
        "is for the commands that talk to a guest's upcall service",
        'Here the address is an argument.',
      )
}

/** What the help of `connect` and `listen` says of messages. */
export const MESSAGES_HELP = `With +seq after the scheme (vsock+seq://, unix+seq:, hvsock+seq://) the connection carries messages
(SOCK_SEQPACKET): each line is one, without its newline, both ways. An empty line is left out. A message that
contains newlines looks like several.`

/** The options of all commands that carry streams. */
export interface StreamOptions {
  halfClose?: boolean
  /** Which of `--half-close` and `--no-half-close` were given. */
  halfCloseGiven?: readonly string[]
  /** Milliseconds. */
  linger?: number
  bufferSize?: number
}

export interface ConnectingOptions extends StreamOptions {
  retry?: boolean
  toHost?: boolean
}

export interface ListeningOptions extends StreamOptions {
  asVmm?: boolean
  profile?: HybridProfile
  mode?: number
}

export interface ExecOptions {
  exec?: boolean
}

export function addStreamOptions(command: Command): Command {
  const given: string[] = []
  // Commander keeps the last of the two.
  for (const flag of ['half-close', 'no-half-close'])
    command.on(`option:${flag}`, () => {
      given.push(flag)
      command.setOptionValue('halfCloseGiven', given)
    })
  return command
    .addOption(new Option('--half-close', 'EOF in one direction leaves the other open (default: yes; for hvsock: no)'))
    .addOption(new Option('--no-half-close', 'EOF of one side ends both directions; what was sent before is delivered'))
    .addOption(
      new Option('--linger <duration>', 'how long one direction may be silent after the other has ended').argParser(
        parseDuration,
      ),
    )
    .addOption(new Option('--buffer-size <bytes>', 'receive buffer of vsock:// sockets').argParser(parseInteger))
}

export function addConnectingOptions(command: Command): Command {
  return command
    .option('--retry', 'keep trying to connect, for 30s or the time of --timeout')
    .option('--to-host', 'vsock:// inside a guest: let the host forward, to reach a sibling VM')
}

export function addListeningOptions(command: Command): Command {
  return command
    .option('--as-vmm', 'listen on the <path> of hvsock://<path>:<port> itself, and answer CONNECT <port> as a VMM does')
    .addOption(
      new Option('--profile <vmm>', 'with --as-vmm: read CONNECT and pass EOF on exactly as this VMM does').choices(
        hybridProfiles,
      ),
    )
    .addOption(new Option('--mode <octal>', 'permissions of the socket file, as in 660').argParser(parseMode))
}

export interface ProgressFlags {
  /** Neither flag: at a terminal. */
  progress?: boolean
}

export function addProgressOptions(command: Command): Command {
  return command
    .option('--progress', 'show bytes and rate also where stderr is not a terminal: one line every 10s')
    .option('--no-progress', 'do not show bytes and rate on a terminal')
}

/** Refuses what would silently show nothing. */
export function checkProgress({ progress }: ProgressFlags, endpoint: ListenOn): void {
  if (progress && isForMessages(endpoint)) throw new UsageError('--progress', 'is for streams, and the address is for messages')
}

export function addExecOption(command: Command): Command {
  return command
    .option('--exec', 'join the connection with a program: all words after --exec are the program and its arguments')
    .argument('[command...]', 'the program of --exec and its arguments')
}

/** The program to run, if one was asked for. */
export function programOf({ exec = false }: ExecOptions, command: readonly string[]): readonly string[] | undefined {
  if (exec && command.length === 0)
    throw new UsageError('--exec', 'no program', 'The program is the rest of the line, as in --exec cat -n.')
  if (!exec && command.length > 0)
    throw new UsageError(JSON.stringify(command[0]), 'the command takes one address', 'Write a program after --exec.')
  return exec ? command : undefined
}

/** The options that concern AF_VSOCK. */
export function vsockOptionsOf({ bufferSize, toHost }: ConnectingOptions): VsockConnectOptions {
  return { bufferSize, toHost }
}

/** Refuses options that would silently do nothing, and addresses that can only be listened on. `source` is where the user wrote them. */
export function checkConnecting(to: Endpoint, source: string, { toHost }: ConnectingOptions): void {
  if (to.transport === 'tcp' ? to.port === 0 : to.transport === 'vsock' && to.port === PORT_ANY)
    throw new UsageError(source, 'the port to connect to cannot be any')
  if (to.transport === 'vsock' && to.cid === Cid.any) throw new UsageError(source, 'the CID to connect to cannot be any')
  if (toHost && to.transport !== 'vsock') throw new UsageError('--to-host', 'only a vsock:// address to connect to can use it')
}

export function checkListening(on: ListenOn, { asVmm, profile, mode }: ListeningOptions): void {
  const transport = 'fd' in on ? undefined : on.transport
  if (asVmm && transport !== 'hvsock') throw new UsageError('--as-vmm', 'only an hvsock:// address to listen on can use it')
  if (asVmm && isForMessages(on)) throw new UsageError('--as-vmm', 'it carries streams, and the address is for messages')
  if (profile !== undefined && !asVmm)
    throw new UsageError('--profile', 'needs --as-vmm', 'Pass --as-vmm too, or leave --profile out.')
  if (mode === undefined) return
  if (transport === undefined) throw new UsageError('--mode', 'the socket file belongs to the program that opened the socket')
  if (transport === 'vsock' || transport === 'tcp') throw new UsageError('--mode', `${transport} has no socket file`)
}

export function checkStream({ bufferSize, halfCloseGiven = [] }: StreamOptions, ...endpoints: ListenOn[]): void {
  if (new Set(halfCloseGiven).size > 1) throw new UsageError('--half-close and --no-half-close', 'only one of them can be true')
  if (halfCloseGiven.length > 0 && endpoints.some(isForMessages))
    throw new UsageError(`--${halfCloseGiven[0]}`, 'is for streams; each direction of a message socket ends by itself')
  if (bufferSize === undefined) return
  if (bufferSize < 1) throw new UsageError('--buffer-size', 'must be at least 1')
  if (!endpoints.some((endpoint) => 'fd' in endpoint || endpoint.transport === 'vsock'))
    throw new UsageError('--buffer-size', 'only vsock:// addresses can use it')
}

/** Separates `--exec` from the words after it, which are not upcall's to read. */
export function separateExec(argv: readonly string[]): { argv: string[]; own: readonly string[] } {
  const at = argv.indexOf('--exec')
  const stop = argv.indexOf('--')
  if (at < 0 || (stop >= 0 && stop < at)) return { argv: [...argv], own: stop < 0 ? argv : argv.slice(0, stop) }
  const own = argv.slice(0, at + 1)
  const rest = argv.slice(at + 1)
  return { argv: [...own, ...(rest[0] === '--' ? [] : ['--']), ...rest], own }
}

export function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw new InvalidArgumentError('Write three octal digits, as in 660.')
  return Number.parseInt(text, 8)
}
