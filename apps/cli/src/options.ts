import { messageOf } from '@upcall/foundation/error'
import { type Address, AddressError, Cid, formatAddress, PORT_ANY, parseAddress } from '@upcall/vsock'
import { type Arch, MessageType, UPCALL_PORT } from '@upcall/wire'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { UsageError } from './errors.js'
import { didYouMean, meantAddress, meantOr } from './suggest.js'

/** The options that every command takes. */
export interface GlobalOptions {
  target?: string
  arch?: Arch
  /** Milliseconds. */
  timeout?: number
  json?: boolean
  verbose?: boolean
}

/**
 * An option that a command needs. Commander checks its own mandatory options before unknown ones: of `--bse` it would say that `--base` is
 * missing, and nothing of the typo.
 */
export class NeededOption extends Option {}

/** Ends the command, as commander does, if one is missing. */
export function checkNeeded(command: Command): void {
  const missing = command.options.find(
    (option) => option instanceof NeededOption && command.getOptionValue(option.attributeName()) === undefined,
  )
  if (missing)
    command.error(`error: required option '${missing.flags}' not specified`, { code: 'commander.missingMandatoryOptionValue' })
}

const units = { ms: 1, s: 1_000, m: 60_000 } as const
/** What a timer can hold. */
const LONGEST_MS = 0x7fff_ffff

/** `500ms`, `5s`, `2m`, fractions too, in milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text)
  if (match === null) throw new InvalidArgumentError('Write a number and its unit: 500ms, 5s or 2m.')
  const ms = Number(match[1]) * units[match[2] as keyof typeof units]
  if (!(ms > 0 && ms <= LONGEST_MS)) throw new InvalidArgumentError('It must be more than 0 and at most 24 days.')
  return ms
}

/** A whole number, decimal or hexadecimal after 0x. */
export function parseInteger(text: string): number {
  if (!/^(?:\d{1,10}|0x[0-9a-f]{1,8})$/i.test(text)) throw new InvalidArgumentError('Write a whole number, as in 5 or 0x1f.')
  return Number(text)
}

const sizeUnits = { K: 10n, M: 20n, G: 30n } as const

/** A number of bytes, as an operation takes it: decimal, hexadecimal after 0x, or decimal with K, M or G after it. */
export function parseSize(text: string): string {
  const [, count, unit] = /^(\d{1,12})([KMG])$/i.exec(text) ?? []
  if (count !== undefined && unit !== undefined)
    return `0x${(BigInt(count) << sizeUnits[unit.toUpperCase() as keyof typeof sizeUnits]).toString(16)}`
  if (/^(?:\d{1,20}|0x[0-9a-f]{1,16})$/i.test(text)) return text
  throw new InvalidArgumentError('Write a number of bytes, as in 0x1000 or 4096, or a number with K, M or G after it, as in 4K.')
}

/** A message type by number or name. */
export function parseMessageType(text: string): number {
  const name = text.toUpperCase()
  if (Object.hasOwn(MessageType, name)) return MessageType[name as keyof typeof MessageType]
  try {
    return parseInteger(text)
  } catch {
    const names = Object.keys(MessageType)
    throw new InvalidArgumentError(meantOr(name, names, `Write a number, or one of ${names.join(', ')}.`))
  }
}

/** Ids of vCPUs in any of the forms `2`, `2,3` and `4-7`. The protocol says which ids are allowed. */
export function parseIds(texts: readonly string[]): number[] {
  return texts
    .flatMap((text) => text.split(','))
    .flatMap((text) => {
      const match = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(text)
      const [first, last] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])]
      if (match === null || last < first)
        throw new UsageError(
          `vCPU ids ${JSON.stringify(text)}`,
          'not a list of ids',
          'Write ids as in 2, 2,3 or 4-7 (low to high).',
        )
      return Array.from({ length: last - first + 1 }, (_, i) => first + i)
    })
}

/** The port that an address may leave out is upcall's own. */
export function parseEndpoint(text: string, source: string): Address {
  return checkedAddress(text, source, (address) => parseAddress(address, { defaultPort: UPCALL_PORT }))
}

/** What `parse` makes of the text. @throws UsageError, with the address that was probably meant. */
export function checkedAddress<T>(text: string, source: string, parse: (text: string) => T): T {
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof AddressError)) throw error
    const meant = meantAddress(text, (address) => {
      try {
        return parse(address) !== undefined
      } catch {
        return false
      }
    })
    if (meant === undefined) throw UsageError.of(source, error)
    throw new UsageError(source, messageOf({ subject: error.subject, what: error.what }), didYouMean([meant]), error)
  }
}

/** Where the guest is: `--target`, or else UPCALL_TARGET. */
export function targetOf({ target }: GlobalOptions, env: Record<string, string | undefined>): Address {
  if (target !== undefined) return parseTarget(target, '--target')
  const { UPCALL_TARGET } = env
  if (UPCALL_TARGET) return parseTarget(UPCALL_TARGET, 'UPCALL_TARGET')
  const example = formatAddress({ transport: 'hvsock', path: '/run/vm.sock', port: UPCALL_PORT })
  throw new UsageError('', 'no target', `Pass --target <address> or set UPCALL_TARGET, for example --target ${example}.`)
}

/** `any` is a CID or a port to listen on: a connection to it would wait for its whole time limit. */
function parseTarget(text: string, source: string): Address {
  const address = parseEndpoint(text, source)
  if (address.transport === 'vsock' && (address.cid === Cid.any || address.port === PORT_ANY))
    throw new UsageError(source, 'the CID and the port of a guest cannot be any', "Write the guest's own, as in vsock://3:219.")
  return address
}

/** The guest's architecture, which the wire does not tell: `--arch`, or this machine's, since most VMs have the architecture of their host. */
export function archOf({ arch }: GlobalOptions, hostArch: string = process.arch): Arch {
  const found = arch ?? hostArchOf(hostArch)
  if (found === undefined)
    throw new UsageError(
      '',
      `no guest has the architecture of this machine (${hostArch})`,
      'Pass --arch x86_64 or --arch aarch64.',
    )
  return found
}

/** This machine's architecture by the guest's name for it. */
export function hostArchOf(hostArch: string = process.arch): Arch | undefined {
  return ({ x64: 'x86_64', arm64: 'aarch64' } as const)[hostArch]
}
