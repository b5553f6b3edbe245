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

/** Any port: the kernel chooses one at bind. Written `any`. */
export const PORT_ANY = 0xffffffff

/** Longest Unix socket path: `sun_path` holds 108 bytes, the last of them NUL. */
export const UNIX_PATH_MAX = 107

/** Hybrid vsock: a guest's port behind the VMM's Unix socket. Written `hvsock://<path>:<port>`. */
export type HvsockAddress = { readonly transport: 'hvsock'; readonly path: string; readonly port: number }

/** A plain Unix stream socket. Written `unix:<path>`. */
export type UnixAddress = { readonly transport: 'unix'; readonly path: string }

/** Native AF_VSOCK. Written `vsock://<cid>:<port>`, with `any`, `local`, `host` and `hypervisor` for the well-known CIDs. */
export type VsockAddress = { readonly transport: 'vsock'; readonly cid: number; readonly port: number }

export type Address = HvsockAddress | UnixAddress | VsockAddress

/** An address that cannot be used as written. The message says what was wrong, where, and what is allowed. */
export class AddressError extends TypeError {
  override readonly name = 'AddressError'
  readonly code = 'ERR_INVALID_ADDRESS'
}

const FORMS = 'hvsock://<path>:<port>, unix:<path> or vsock://<cid>:<port>'

export interface ParseAddressOptions {
  /** The port an `hvsock://` or `vsock://` address means if it names none. Without it, a missing port is refused. */
  defaultPort?: number | undefined
}

/**
 * Reads an address. The port is what follows the last colon (unless a `/` comes behind that colon), paths are taken literally,
 * without percent-decoding, and may be relative. `unix:///run/x` is the same as `unix:/run/x`.
 *
 * @throws {AddressError} for anything else than the three forms, with numbers as plain decimal u32.
 */
export function parseAddress(text: string, options: ParseAddressOptions = {}): Address {
  if (typeof text !== 'string') throw new AddressError(`address: expected a string, got ${typeof text}; write ${FORMS}`)
  if (text.startsWith('hvsock://')) {
    const { host, port } = splitPort(text, text.slice('hvsock://'.length), options)
    return checkAddress({ transport: 'hvsock', path: host, port: parseU32(text, 'port', port) }, text)
  }
  if (text.startsWith('unix:')) return checkAddress({ transport: 'unix', path: unixPath(text) }, text)
  if (text.startsWith('vsock://')) {
    const { host, port } = splitPort(text, text.slice('vsock://'.length), options)
    return checkAddress({ transport: 'vsock', cid: parseCid(text, host), port: parseVsockPort(text, port) }, text)
  }
  const hint = text.startsWith('/') ? `; did you mean ${quote(`unix:${text}`)}?` : ''
  throw new AddressError(`address ${quote(text)}: unknown form; write ${FORMS}${hint}`)
}

/** Writes an address so that `parseAddress` reads the same one back. */
export function formatAddress(address: Address): string {
  switch (address.transport) {
    case 'hvsock':
      return `hvsock://${address.path}:${address.port}`
    case 'unix':
      // A path with two leading slashes would read as an authority.
      return address.path.startsWith('//') ? `unix://${address.path}` : `unix:${address.path}`
    case 'vsock':
      return `vsock://${CID_NAMES.get(address.cid) ?? address.cid}:${address.port === PORT_ANY ? 'any' : address.port}`
  }
}

/** Text or value in, checked value out. */
export function toAddress(address: Address | string): Address {
  return typeof address === 'string' ? parseAddress(address) : checkAddress(address)
}

/** Checks a value that did not come through `parseAddress`, and gives back a frozen copy with the known fields only. */
export function checkAddress(address: Address, text?: string): Address {
  const shown = text === undefined ? JSON.stringify(address) : quote(text)
  switch (address?.transport) {
    case 'hvsock':
      checkU32(shown, 'port', address.port)
      checkPath(shown, address.path)
      return Object.freeze({ transport: 'hvsock', path: address.path, port: address.port })
    case 'unix':
      checkPath(shown, address.path)
      return Object.freeze({ transport: 'unix', path: address.path })
    case 'vsock':
      checkU32(shown, 'cid', address.cid)
      checkU32(shown, 'port', address.port)
      return Object.freeze({ transport: 'vsock', cid: address.cid, port: address.port })
    default:
      throw new AddressError(`address ${shown}: unknown transport; allowed are 'hvsock', 'unix' and 'vsock'`)
  }
}

/** Where a guest's own connections to `port` arrive: the VMM connects to `<path>_<port>`. */
export function guestInitiatedPath(address: HvsockAddress): string {
  const suffix = `_${address.port}`
  const path = address.path + suffix
  const length = Buffer.byteLength(path)
  if (length > UNIX_PATH_MAX) {
    throw new AddressError(
      `address ${quote(formatAddress(address))}: the path is ${length} bytes with its suffix ${quote(suffix)}, ` +
        `${length - UNIX_PATH_MAX} over the ${UNIX_PATH_MAX} bytes of a Unix socket path; use a shorter path`,
    )
  }
  return path
}

const CID_NAMES: ReadonlyMap<number, string> = new Map(Object.entries(Cid).map(([name, cid]) => [cid, name]))

function unixPath(text: string): string {
  const rest = text.slice('unix:'.length)
  if (!rest.startsWith('//')) return rest
  const path = rest.slice(2)
  if (path.startsWith('/')) return path
  throw new AddressError(`address ${quote(text)}: a Unix address has no host; write unix:<path> or unix:///<absolute path>`)
}

function splitPort(text: string, rest: string, { defaultPort }: ParseAddressOptions): { host: string; port: string } {
  const colon = rest.lastIndexOf(':')
  if (colon >= 0 && !rest.includes('/', colon)) return { host: rest.slice(0, colon), port: rest.slice(colon + 1) }
  if (defaultPort === undefined) throw new AddressError(`address ${quote(text)}: no port; add :<port> (0 to 4294967295)`)
  checkU32(quote(text), 'default port', defaultPort)
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
    `address ${quote(text)}: ${what} ${quote(digits)} is not allowed; ` +
      `write a decimal number from 0 to 4294967295 without leading zeros${alternatives}`,
  )
}

function checkU32(shown: string, what: string, value: number): void {
  if (Number.isInteger(value) && value >= 0 && value <= 0xffffffff) return
  throw new AddressError(`address ${shown}: ${what} ${value} is not allowed; it is an integer from 0 to 4294967295`)
}

function checkPath(shown: string, path: string): void {
  if (typeof path !== 'string' || path === '') throw new AddressError(`address ${shown}: no path; write ${FORMS}`)
  // A leading NUL would name Linux's abstract namespace, which has no file to protect or take over; no VMM listens there.
  const nul = path.indexOf('\0')
  if (nul >= 0) {
    throw new AddressError(`address ${shown}: NUL at offset ${nul} of the path; a path is a file's name, without NUL`)
  }
  const length = Buffer.byteLength(path)
  if (length > UNIX_PATH_MAX) {
    throw new AddressError(
      `address ${shown}: the path is ${length} bytes, ${length - UNIX_PATH_MAX} over the ${UNIX_PATH_MAX} bytes ` +
        `of a Unix socket path; use a shorter path`,
    )
  }
}

function quote(text: string): string {
  return JSON.stringify(text)
}
