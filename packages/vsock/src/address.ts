import { brandOf, type ErrorFields, messageOf } from '@upcall/foundation/error'
import { show } from '@upcall/foundation/show'

/** Well-known context ids (CIDs), as in the kernel's linux/vm_sockets.h. */
export const Cid = {
  /** Any CID: bind to whatever CID this machine has. */
  any: 0xffffffff,
  /** The hypervisor itself (a reserved CID that VMMs other than VMCI do not use). */
  hypervisor: 0,
  /** Loopback inside one machine. */
  local: 1,
  /** The host, as seen from a guest. */
  host: 2,
} as const

/** Any port: the kernel chooses one when it binds. Written `any`. */
export const PORT_ANY = 0xffffffff

/**
 * The longest path that the address of a Unix socket holds on Linux: `sun_path` has 108 bytes, the last of them NUL. This package
 * connects to longer ones and listens on them all the same, on Linux; other programs may not.
 */
export const UNIX_PATH_MAX = 107

/** Hybrid vsock: a guest's port behind the VMM's Unix socket. Written `hvsock://<path>:<port>`. */
export type HvsockAddress = { readonly transport: 'hvsock'; readonly path: string; readonly port: number }

/** A plain Unix stream socket. Written `unix:<path>`. */
export type UnixAddress = { readonly transport: 'unix'; readonly path: string }

/** Native AF_VSOCK. Written `vsock://<cid>:<port>`, with `any`, `local`, `host` and `hypervisor` for the well-known CIDs. */
export type VsockAddress = { readonly transport: 'vsock'; readonly cid: number; readonly port: number }

export type Address = HvsockAddress | UnixAddress | VsockAddress

/**
 * The address of a socket that keeps messages apart (`SOCK_SEQPACKET`), for `connectSeqpacket` and `listenSeqpacket`. Written
 * `vsock+seq://<cid>:<port>`, `unix+seq:<path>` and `hvsock+seq://<path>:<port>`.
 */
export type SeqpacketAddress = Address & { readonly type: 'seqpacket' }

const brand = brandOf('vsock.AddressError')

/** An address that cannot be used as written. The fields say what is wrong, where, and what is allowed. */
export class AddressError extends TypeError implements ErrorFields<'ERR_INVALID_ADDRESS'> {
  override readonly name = 'AddressError'
  readonly code = 'ERR_INVALID_ADDRESS'
  /** The address as it was given: `address "hvsock://x"`. */
  readonly subject: string
  /** What is wrong with it. */
  readonly what: string
  /** What is allowed instead. */
  readonly next: string
  /** The same address never becomes a good one. */
  readonly retryable = false

  constructor(subject: string, what: string, next: string) {
    super(messageOf({ subject, what, next }))
    this.subject = subject
    this.what = what
    this.next = next
    brand.mark(this)
  }
}

/** `instanceof` that also holds between the ESM and the CommonJS copy of this package, and between its entry points. */
export function isAddressError(value: unknown): value is AddressError {
  return brand.has(value)
}

const FORMS = 'hvsock://<path>:<port>, unix:<path> or vsock://<cid>:<port>'
const SEQPACKET_FORMS = 'hvsock+seq://<path>:<port>, unix+seq:<path> or vsock+seq://<cid>:<port>'
const SEQPACKET_SCHEME = /^(hvsock|unix|vsock)\+seq:/

export interface ParseAddressOptions {
  /** The port of an `hvsock://` or `vsock://` address that names none. Without this option such an address is refused. */
  defaultPort?: number | undefined
}

/**
 * Reads an address. The port is what follows the last colon, unless a `/` comes after that colon. Paths are taken literally, without
 * percent-decoding, and may be relative and of any length. `unix:///run/x` is the same as `unix:/run/x`.
 *
 * @throws {AddressError} for anything but the three forms, with numbers as plain decimal u32.
 */
export function parseAddress(text: string, options: ParseAddressOptions = {}): Address {
  if (typeof text !== 'string') throw new AddressError('address', `must be a string, got ${show(text)}`, `Write ${FORMS}.`)
  if (SEQPACKET_SCHEME.test(text)) throw new AddressError(subjectOf(text), ...FOR_MESSAGES)
  if (text.startsWith('hvsock://')) {
    const { host, port } = splitPort(text, text.slice('hvsock://'.length), options)
    return checkAddress({ transport: 'hvsock', path: host, port: parseU32(text, 'port', port) }, text)
  }
  if (text.startsWith('unix:')) return checkAddress({ transport: 'unix', path: unixPath(text) }, text)
  if (text.startsWith('vsock://')) {
    const { host, port } = splitPort(text, text.slice('vsock://'.length), options)
    return checkAddress({ transport: 'vsock', cid: parseCid(text, host), port: parseVsockPort(text, port) }, text)
  }
  const hint = text.startsWith('/') ? ` Did you mean ${quote(`unix:${text}`)}?` : ''
  throw new AddressError(subjectOf(text), 'the form is unknown', `Write ${FORMS}.${hint}`)
}

const FOR_MESSAGES = [
  'it is the address of a message socket (SOCK_SEQPACKET)',
  `connectSeqpacket() and listenSeqpacket() take it. For a stream write ${FORMS}.`,
] as const

/**
 * Reads the address of a message socket: one of the forms of `parseAddress`, with `+seq` after the scheme.
 *
 * @throws {AddressError} for anything else.
 */
export function parseSeqpacketAddress(text: string, options: ParseAddressOptions = {}): SeqpacketAddress {
  if (typeof text !== 'string')
    throw new AddressError('address', `must be a string, got ${show(text)}`, `Write ${SEQPACKET_FORMS}.`)
  const scheme = SEQPACKET_SCHEME.exec(text)?.[1]
  if (scheme === undefined) throw new AddressError(subjectOf(text), NO_MESSAGES, hintOf(text))
  try {
    return asSeqpacket(parseAddress(`${scheme}${text.slice(scheme.length + '+seq'.length)}`, options))
  } catch (error) {
    // What is wrong is said of the address as it was written.
    throw isAddressError(error)
      ? new AddressError(subjectOf(text), error.what, error.next.replace(FORMS, SEQPACKET_FORMS))
      : error
  }
}

const NO_MESSAGES = 'it is not the address of a message socket (SOCK_SEQPACKET)'

function hintOf(text: string): string {
  const plain = /^(hvsock|unix|vsock):/.exec(text)
  const hint = plain ? ` For a stream there are connect() and listen().` : ''
  return `Write ${SEQPACKET_FORMS}.${hint}`
}

/** The same place, for messages. The address has been checked. */
export function asSeqpacket(address: Address): SeqpacketAddress {
  return Object.freeze({ ...address, type: 'seqpacket' })
}

/** Checks the address of a message socket, given as text or as a value. */
export function toSeqpacketAddress(address: SeqpacketAddress | string): SeqpacketAddress {
  if (typeof address === 'string') return parseSeqpacketAddress(address)
  if (address?.type !== 'seqpacket')
    throw new AddressError(
      `address ${shownValue(address)}`,
      NO_MESSAGES,
      `Write ${SEQPACKET_FORMS}, or give an object with type: 'seqpacket'.`,
    )
  const { type: _, ...plain } = address
  return asSeqpacket(checkAddress(plain as Address))
}

/** Writes an address so that `parseAddress`, or `parseSeqpacketAddress`, reads the same one back. */
export function formatAddress(address: Address | SeqpacketAddress): string {
  const text = formatPlain(address)
  if (!('type' in address) || address.type !== 'seqpacket') return text
  return `${address.transport}+seq${text.slice(address.transport.length)}`
}

function formatPlain(address: Address): string {
  switch (address.transport) {
    case 'hvsock':
      return `hvsock://${address.path}:${address.port}`
    case 'unix':
      // A path with two leading slashes would look like an authority.
      return address.path.startsWith('//') ? `unix://${address.path}` : `unix:${address.path}`
    case 'vsock':
      return `vsock://${CID_NAMES.get(address.cid) ?? address.cid}:${address.port === PORT_ANY ? 'any' : address.port}`
  }
}

/** Checks an address, given as text or as a value. */
export function toAddress(address: Address | string): Address {
  return typeof address === 'string' ? parseAddress(address) : checkAddress(address)
}

/** Checks a value that did not come through `parseAddress`, and gives back a frozen copy with the known fields only. */
export function checkAddress(address: Address, text?: string): Address {
  const subject = text === undefined ? `address ${shownValue(address)}` : subjectOf(text)
  if ((address as Partial<SeqpacketAddress> | undefined)?.type === 'seqpacket') throw new AddressError(subject, ...FOR_MESSAGES)
  switch (address?.transport) {
    case 'hvsock':
      checkU32(subject, 'port', address.port)
      checkPath(subject, address.path)
      return Object.freeze({ transport: 'hvsock', path: address.path, port: address.port })
    case 'unix':
      checkPath(subject, address.path)
      return Object.freeze({ transport: 'unix', path: address.path })
    case 'vsock':
      checkU32(subject, 'cid', address.cid)
      checkU32(subject, 'port', address.port)
      return Object.freeze({ transport: 'vsock', cid: address.cid, port: address.port })
    default:
      throw new AddressError(subject, 'the transport is unknown', "Allowed are 'hvsock', 'unix' and 'vsock'.")
  }
}

/** Where a guest's own connections to `port` arrive: the VMM connects to `<path>_<port>`. */
export function guestInitiatedPath(address: HvsockAddress): string {
  return `${address.path}_${address.port}`
}

/**
 * Where a host dials message sockets of the guest, as Cloud Hypervisor's issue 8894 proposes it. A draft: it may change.
 */
export function hybridSeqpacketPath(path: string): string {
  return `${path}_seqpacket`
}

const CID_NAMES: ReadonlyMap<number, string> = new Map(Object.entries(Cid).map(([name, cid]) => [cid, name]))

function unixPath(text: string): string {
  const rest = text.slice('unix:'.length)
  if (!rest.startsWith('//')) return rest
  const path = rest.slice(2)
  if (path.startsWith('/')) return path
  throw new AddressError(subjectOf(text), 'a Unix address has no host', 'Write unix:<path> or unix:///<absolute path>.')
}

function splitPort(text: string, rest: string, { defaultPort }: ParseAddressOptions): { host: string; port: string } {
  const colon = rest.lastIndexOf(':')
  if (colon >= 0 && !rest.includes('/', colon)) return { host: rest.slice(0, colon), port: rest.slice(colon + 1) }
  if (defaultPort === undefined) throw new AddressError(subjectOf(text), 'there is no port', 'Add :<port> (0 to 4294967295).')
  checkU32(subjectOf(text), 'default port', defaultPort)
  return { host: rest, port: String(defaultPort) }
}

function parseCid(text: string, cid: string): number {
  if (Object.hasOwn(Cid, cid)) return Cid[cid as keyof typeof Cid]
  return parseU32(text, 'cid', cid, `, or ${Object.keys(Cid).join(', ')}`)
}

function parseVsockPort(text: string, port: string): number {
  return port === 'any' ? PORT_ANY : parseU32(text, 'port', port, ', or any')
}

function parseU32(text: string, what: string, digits: string, alternatives = ''): number {
  const value = /^(0|[1-9]\d{0,9})$/.test(digits) ? Number(digits) : Number.NaN
  if (value <= 0xffffffff) return value
  throw new AddressError(
    subjectOf(text),
    `the ${what} ${quote(digits)} is not allowed`,
    `Write a decimal number from 0 to 4294967295 without leading zeros${alternatives}.`,
  )
}

function checkU32(subject: string, what: string, value: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= 0xffffffff) return
  throw new AddressError(subject, `the ${what} ${show(value)} is not allowed`, 'It is an integer from 0 to 4294967295.')
}

function checkPath(subject: string, path: string): void {
  if (typeof path !== 'string' || path === '') throw new AddressError(subject, 'there is no path', `Write ${FORMS}.`)
  // A leading NUL would name Linux's abstract namespace, which has no file to protect or take over; no VMM listens there.
  const nul = path.indexOf('\0')
  if (nul >= 0)
    throw new AddressError(subject, `NUL at offset ${nul} of the path`, 'A path is the name of a file, which contains no NUL.')
}

function subjectOf(text: string): string {
  return `address ${quote(text)}`
}

function shownValue(address: unknown): string {
  try {
    return JSON.stringify(address)
  } catch {
    // A bigint or a circle.
    return show(address)
  }
}

function quote(text: string): string {
  return JSON.stringify(text)
}
