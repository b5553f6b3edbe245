import { fstatSync, readFileSync } from 'node:fs'
import { integer } from '@upcall/foundation/check'
import { errnoOf } from '@upcall/foundation/error'
import { type Address, PORT_ANY } from './address.js'
import { VsockError } from './errors.js'
import type { Binding, Inspected } from './native/binding.js'
import { AddonError, loadBinding } from './native/loader.js'
import { AF_VSOCK, decodeSockaddrVm, LITTLE_ENDIAN } from './native/sockaddr.js'

/**
 * A socket that another program opened, by the number of its descriptor: `{ fd: 3 }`. What is made of it owns the descriptor and closes
 * it. If nothing could be made of it, it is still the caller's.
 */
export interface InheritedSocket {
  readonly fd: number
}

/** What a descriptor stands for, as far as the kernel tells. */
export interface Inspection {
  readonly fd: number
  readonly transport: 'unix' | 'vsock'
  readonly listening: boolean
  readonly local: Address | undefined
  readonly remote: Address | undefined
  /** What takes over AF_VSOCK. */
  readonly binding: Binding | undefined
  /** Why there is no binding. */
  readonly why: AddonError | undefined
}

type Operation = 'connect' | 'listen'

export function isInherited(value: unknown): value is InheritedSocket {
  return typeof value === 'object' && value !== null && 'fd' in value && !('transport' in value)
}

/**
 * Looks at a descriptor that is to become a connection (`connect`) or a server (`listen`), and changes nothing.
 *
 * @throws {RangeError} for what is not a number of a descriptor.
 * @throws {VsockError} `EBADF`, `ENOTSOCK`, `ESOCKTNOSUPPORT` for a socket of another type, `EAFNOSUPPORT` for TCP, `ENOTSUP` for
 *   AF_VSOCK without the addon, `EISCONN` or `EINVAL` for a socket that cannot listen, `ENOTCONN` or `EINVAL` for a socket that is not connected.
 */
export function inspectInherited(op: Operation, { fd: given }: InheritedSocket, wanted: SocketType = 'stream'): Inspection {
  const fd = integer('fd', given, { min: 0, max: 0x7fff_ffff })
  checkIsSocket(op, fd)
  const { binding, why } = addon()
  const found = binding ? byAddon(op, fd, wanted, binding) : bySystem(op, fd, wanted, why)
  const { listening, local, remote } = found
  if (op === 'connect') {
    if (listening) throw wrongDescriptor(op, fd, 'EINVAL', 'the socket listens, it is not a connection', 'Pass it to listen().')
    if (found.connected === false)
      throw wrongDescriptor(
        op,
        fd,
        'ENOTCONN',
        'the socket is not connected',
        'Pass a connected one, or the address to connect to.',
      )
  } else {
    if (found.connected === true)
      throw wrongDescriptor(op, fd, 'EISCONN', 'the socket is connected, it cannot listen', 'Pass it to createSocket().')
    if (!listening && binding && !isBound(local))
      throw wrongDescriptor(op, fd, 'EINVAL', 'the socket is not bound to an address', 'Bind it first, or pass the address.')
  }
  return { fd, transport: found.transport, listening, local, remote, binding, why: found.why }
}

/** The error of a descriptor: `listen fd 3: <what>. <Next step.>` */
export function wrongDescriptor(
  op: Operation,
  fd: number,
  code: string,
  what: string,
  next: string,
  cause?: unknown,
): VsockError {
  return new VsockError({ code, op, subject: `fd ${fd}`, what, next, cause })
}

function addon(): { binding?: Binding; why?: AddonError } {
  try {
    return { binding: loadBinding() }
  } catch (error) {
    if (!(error instanceof AddonError)) throw error
    return { why: error }
  }
}

function checkIsSocket(op: Operation, fd: number): void {
  const kind = kindOf(fd)
  if (kind === undefined)
    throw wrongDescriptor(
      op,
      fd,
      'EBADF',
      'there is no open descriptor of this number (EBADF)',
      'systemd counts from 3, see LISTEN_FDS.',
    )
  if (kind !== 'a socket')
    throw wrongDescriptor(op, fd, 'ENOTSOCK', `the descriptor is ${kind}, not a socket`, 'Pass the descriptor of a socket.')
}

function kindOf(fd: number): string | undefined {
  try {
    // Big integers: see foundation's stat.ts.
    const found = fstatSync(fd, { bigint: true })
    if (found.isSocket()) return 'a socket'
    if (found.isDirectory()) return 'a directory'
    if (found.isFIFO()) return 'a pipe'
    return found.isFile() ? 'a plain file' : 'a device or something else'
  } catch (error) {
    if (errnoOf(error) === 'EBADF') return undefined
    throw error
  }
}

interface Found {
  readonly transport: 'unix' | 'vsock'
  readonly listening: boolean
  /** undefined where the system does not tell. */
  readonly connected: boolean | undefined
  readonly local: Address | undefined
  readonly remote: Address | undefined
  /** Set where neither the addon nor the system tells what it is. */
  readonly why?: AddonError | undefined
}

export type SocketType = 'stream' | 'seqpacket'

/** As Linux numbers them. */
const TYPES: Readonly<Record<number, string>> = {
  1: 'a stream socket',
  2: 'a datagram socket',
  3: 'a raw socket',
  5: 'a seqpacket socket',
}
const WANTED = {
  stream: { type: 1, directive: 'ListenStream=', constant: 'SOCK_STREAM' },
  seqpacket: { type: 5, directive: 'ListenSequentialPacket=', constant: 'SOCK_SEQPACKET' },
} as const

function checkType(op: Operation, fd: number, wanted: SocketType, type: number): void {
  const { type: right, directive, constant } = WANTED[wanted]
  if (type === right) return
  const what = `the descriptor is ${TYPES[type] ?? `a socket of type ${type}`}, not a ${wanted} socket`
  const next = op === 'listen' ? `In a unit of systemd, write ${directive}.` : `Open it with ${constant}.`
  throw wrongDescriptor(op, fd, 'ESOCKTNOSUPPORT', what, next)
}

function byAddon(op: Operation, fd: number, wanted: SocketType, binding: Binding): Found {
  let seen: Inspected
  try {
    seen = binding.inspect(fd)
  } catch (error) {
    throw wrongDescriptor(
      op,
      fd,
      errnoOf(error),
      `the descriptor cannot be inspected (${errnoOf(error)})`,
      'See the cause.',
      error,
    )
  }
  const { family, listening, peer } = seen
  checkType(op, fd, wanted, seen.type)
  const common = { listening, connected: peer !== undefined }
  if (family === binding.AF_UNIX)
    return { ...common, transport: 'unix', local: unixName(seen.local), remote: peer && unixName(peer) }
  if (family === AF_VSOCK) return { ...common, transport: 'vsock', local: vsockName(seen.local), remote: peer && vsockName(peer) }
  throw otherFamily(op, fd, family === 2 || family === 10 ? 'a TCP socket' : `a socket of family ${family}`)
}

/** Without the addon Linux still lists the Unix sockets of this process's network namespace. What is not listed is left to Node. */
function bySystem(op: Operation, fd: number, wanted: SocketType, why: AddonError | undefined): Found {
  const row = rowOf(fd)
  if (row) {
    checkType(op, fd, wanted, row.type)
    return { transport: 'unix', listening: row.listening, connected: row.connected, local: named(row.name), remote: undefined }
  }
  // It may be of another family, or of another network namespace. Node finds out when it takes it.
  return { transport: 'unix', listening: op === 'listen', connected: undefined, local: undefined, remote: undefined, why }
}

/** The error of a descriptor that Node did not take. */
export function notTaken(op: Operation, fd: number, why: AddonError | undefined, cause: unknown): VsockError {
  const errno = errnoOf(cause)
  if (errno === 'EEXIST') return usedAlready(op, fd, cause)
  if (why === undefined) return wrongDescriptor(op, fd, errno, `it cannot be taken over (${errno})`, 'See the cause.', cause)
  const what = `the descriptor is not a Unix stream socket, and for AF_VSOCK there is no addon: ${why.what}`
  return wrongDescriptor(op, fd, 'ENOTSUP', what, why.next ?? 'See the cause.', cause)
}

/** The error of a descriptor that the event loop watches already. */
export function usedAlready(op: Operation, fd: number, cause: unknown): VsockError {
  const what = 'this process uses the descriptor already (EEXIST)'
  return wrongDescriptor(op, fd, 'EEXIST', what, 'Make one server or one socket of it.', cause)
}

/** The error of a TCP socket. */
export function isTcpSocket(op: Operation, fd: number): VsockError {
  return otherFamily(op, fd, 'a TCP socket')
}

function otherFamily(op: Operation, fd: number, what: string): VsockError {
  const net = op === 'listen' ? 'net.Server.listen({ fd })' : 'new net.Socket({ fd })'
  const text = `the descriptor is ${what}, neither AF_UNIX nor AF_VSOCK`
  return wrongDescriptor(op, fd, 'EAFNOSUPPORT', text, `For TCP call ${net}.`)
}

interface Row {
  readonly type: number
  readonly listening: boolean
  readonly connected: boolean
  readonly name: string
}

const LISTENS = 0x10000
const CONNECTED = 3

function rowOf(fd: number): Row | undefined {
  const inode = String(fstatSync(fd, { bigint: true }).ino)
  let table: string
  try {
    table = readFileSync('/proc/net/unix', 'utf8')
  } catch {
    return undefined
  }
  for (const line of table.split('\n')) {
    // Num: RefCount Protocol Flags Type St Inode Path
    const row = /^\S+: \S+ \S+ (\S+) (\S+) (\S+) +(\d+)(?: (.*))?$/.exec(line)
    if (row?.[4] !== inode) continue
    const [flags, type, state] = row.slice(1, 4).map((digits) => Number.parseInt(digits, 16)) as [number, number, number]
    return { type, listening: (flags & LISTENS) !== 0, connected: state === CONNECTED, name: row[5] ?? '' }
  }
  return undefined
}

function unixName(sockaddr: Uint8Array): Address | undefined {
  const name = Buffer.from(sockaddr.subarray(2))
  // An abstract name begins with a zero byte. It is shown as ss and systemd show it.
  if (name[0] === 0) return named(name.toString().replaceAll('\0', '@'))
  const end = name.indexOf(0)
  return named(name.subarray(0, end < 0 ? name.length : end).toString())
}

function named(path: string): Address | undefined {
  return path === '' ? undefined : Object.freeze({ transport: 'unix', path })
}

function vsockName(sockaddr: Uint8Array): Address {
  const { cid, port } = decodeSockaddrVm(sockaddr, LITTLE_ENDIAN)
  return Object.freeze({ transport: 'vsock', cid, port })
}

function isBound(local: Address | undefined): boolean {
  return local !== undefined && (local.transport !== 'vsock' || local.port !== PORT_ANY)
}
