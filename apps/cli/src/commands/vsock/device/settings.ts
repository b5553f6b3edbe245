import type { DirectionPolicy, VsockPolicy } from '@upcall/vhost-user'
import type { UsageError } from '../../../errors.js'
import { KEYS, type KeyName, type KeyValue } from './keys.js'
import type { Parsed } from './values.js'

/** What the guest's connections lead to, and where those to the guest come from. */
export type Backend =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'vsock'; readonly cid: number; readonly listen: readonly number[] }

/** One device, with everything that was left out filled in. */
export interface DeviceSettings {
  readonly guestCid: number
  /** Where QEMU connects to. */
  readonly socket: string
  readonly backend: Backend
  readonly bufferBytes: number
  readonly groups: readonly string[]
  readonly hostCids: readonly number[] | 'any'
  readonly handshakeTimeoutMs: number
  readonly lingerMs: number
  readonly halfClose: boolean
  /** Whether programs reach the guest with messages, too. */
  readonly seqpacket: boolean
  readonly maxConnections: number
  readonly policy: VsockPolicy
}

/** What is written about one device, or about the links, and how to say that it is wrong. */
export interface Given<Key extends string = KeyName> {
  readonly texts: ReadonlyMap<Key, string>
  /** A key as it is written here. */
  nameOf(key: Key): string
  /** An error about a key, or without one about the whole. */
  error(key: Key | undefined, what: string, next?: string, cause?: unknown): UsageError
}

type Parse<T> = (text: string) => Parsed<T>

/** The value of a key; undefined if it is left out. @throws UsageError for a value that means nothing. */
export function valueIn<Key extends string, T>(given: Given<Key>, key: Key, parse: Parse<T>): T | undefined {
  const text = given.texts.get(key)
  if (text === undefined) return undefined
  const parsed = parse(text)
  if ('wrong' in parsed) throw given.error(key, `${parsed.wrong}, got ${JSON.stringify(text)}`)
  return parsed.value
}

/** @throws UsageError for a value that means nothing, for keys that do not go together, and for a key that is missing. */
export function settingsOf(given: Given): DeviceSettings {
  const read = <K extends KeyName>(key: K) => valueIn<KeyName, KeyValue<K>>(given, key, KEYS[key].parse as Parse<KeyValue<K>>)
  // Checked, and of no further use.
  read('queue-size')
  const socket = read('socket')
  if (socket === undefined) throw missing(given, ['socket'], 'It is the Unix socket that QEMU connects to.')
  const backend = backendOf(given, read('uds-path'), read('forward-cid'), read('forward-listen'))
  const guestCid = read('guest-cid') ?? 3
  const hostCids = read('host-cids') ?? (backend.kind === 'vsock' ? 'any' : [2])
  if (hostCids !== 'any' && hostCids.includes(guestCid))
    throw given.error('host-cids', `has the guest's own CID ${guestCid}`, 'Choose another CID for one of them.')
  return {
    guestCid,
    socket,
    backend,
    bufferBytes: read('tx-buffer-size') ?? 256 * 1024,
    groups: read('groups') ?? ['default'],
    hostCids,
    handshakeTimeoutMs: read('handshake-timeout') ?? 2_000,
    lingerMs: read('linger') ?? 8_000,
    halfClose: read('half-close') ?? true,
    seqpacket: read('seqpacket') ?? false,
    maxConnections: read('max-connections') ?? 1023,
    policy: {
      fromGuest: directionOf(
        read('from-guest-allow'),
        read('from-guest-connections'),
        read('from-guest-connection-rate'),
        read('from-guest-byte-rate'),
      ),
      toGuest: directionOf(
        read('to-guest-allow'),
        read('to-guest-connections'),
        read('to-guest-connection-rate'),
        read('to-guest-byte-rate'),
      ),
    },
  }
}

function directionOf(
  allow: DirectionPolicy['allow'],
  maxConnections: DirectionPolicy['maxConnections'],
  connectionRate: DirectionPolicy['connectionRate'],
  byteRate: DirectionPolicy['byteRate'],
): DirectionPolicy {
  return { allow, maxConnections, connectionRate, byteRate }
}

function backendOf(given: Given, path?: string, cid?: number, listen?: readonly number[]): Backend {
  if (path !== undefined) {
    for (const key of ['forward-cid', 'forward-listen'] as const)
      if (given.texts.has(key)) throw given.error(key, `does not go with ${given.nameOf('uds-path')}`, 'Leave one of them out.')
    return { kind: 'unix', path }
  }
  if (cid !== undefined) {
    for (const key of ['half-close', 'seqpacket'] as const)
      if (given.texts.has(key)) throw given.error(key, `is about the clients of ${given.nameOf('uds-path')}, which is not there`)
    return { kind: 'vsock', cid, listen: listen ?? [] }
  }
  if (listen !== undefined) throw given.error('forward-listen', `needs ${given.nameOf('forward-cid')}`)
  const next = 'The one is the Unix socket for programs on this machine, the other forwards to AF_VSOCK.'
  throw missing(given, ['uds-path', 'forward-cid'], next)
}

function missing(given: Given, keys: readonly KeyName[], next: string): UsageError {
  return given.error(undefined, `${keys.map((key) => given.nameOf(key)).join(' or ')} is missing`, next)
}

/** A device, and where it was written. */
export interface Described {
  readonly given: Given
  readonly settings: DeviceSettings
}

/** The devices of one network. @throws UsageError if two of them want the same CID, socket or port. */
export function settingsOfAll(all: readonly Given[]): readonly Described[] {
  const described = all.map((given) => ({ given, settings: settingsOf(given) }))
  const taken = new Set<string>()
  for (const { given, settings } of described)
    for (const [key, claim] of claimsOf(settings)) {
      if (taken.has(claim)) throw given.error(key, `is taken: ${claim} is in use above`)
      taken.add(claim)
    }
  return described
}

/** What only one device of this process can have. */
function* claimsOf({ guestCid, socket, backend, seqpacket }: DeviceSettings): Generator<[KeyName, string]> {
  yield ['guest-cid', `CID ${guestCid}`]
  yield ['socket', `the path ${socket}`]
  if (backend.kind === 'unix') yield ['uds-path', `the path ${backend.path}`]
  if (backend.kind === 'unix' && seqpacket) yield ['seqpacket', `the path ${backend.path}_seqpacket`]
  if (backend.kind === 'vsock') for (const port of backend.listen) yield ['forward-listen', `port ${port}`]
}
