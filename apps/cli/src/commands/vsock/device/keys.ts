// What can be said about a device: the same keys as options of the command, in --vm, and in the file. The first eight are those of
// vhost-device-vsock 0.3.0, with its defaults.

import {
  bytes,
  fileMode,
  groups,
  hostCids,
  MAX_CID,
  milliseconds,
  type Parsed,
  path,
  ports,
  powerOfTwo,
  rate,
  rules,
  wholeNumber,
  yesOrNo,
} from './values.js'

interface Key<T = unknown> {
  /** What the value looks like, in the help. */
  readonly form: string
  readonly help: string
  readonly parse: (text: string) => Parsed<T>
}

const MAX_CONNECTIONS = 1023

const connections = wholeNumber(0, MAX_CONNECTIONS)
const connectionRate = rate(wholeNumber(1, 1_000_000))
const byteRate = rate(bytes(1024, 2 ** 40))

export const KEYS = {
  'guest-cid': { form: 'cid', help: "the guest's CID (default: 3)", parse: wholeNumber(3, MAX_CID) },
  socket: { form: 'path', help: 'the Unix socket that QEMU connects to', parse: path },
  'uds-path': { form: 'path', help: "the Unix socket for CONNECT <port>; the guest's own go to <path>_<port>", parse: path },
  'forward-cid': {
    form: 'cid',
    help: 'in place of --uds-path: where AF_VSOCK takes what the guest connects to',
    parse: wholeNumber(0, MAX_CID),
  },
  'forward-listen': { form: 'ports', help: 'with --forward-cid: the ports of this machine that lead to the guest', parse: ports },
  'tx-buffer-size': {
    form: 'bytes',
    help: 'what the guest may send ahead on each connection (default: 256K)',
    parse: bytes(4096, 2 ** 30),
  },
  'queue-size': {
    form: 'n',
    help: 'checked, and not used: QEMU chooses the size of the rings',
    parse: powerOfTwo(32_768),
  },
  groups: { form: 'names', help: 'guests that share a group reach each other (default: default)', parse: groups },
  'host-cids': {
    form: 'cids',
    help: 'the CIDs that mean this machine to the guest, or any (default: 2; with --forward-cid any)',
    parse: hostCids,
  },
  'handshake-timeout': { form: 'duration', help: 'how long a connection may take to open (default: 2s)', parse: milliseconds },
  linger: { form: 'duration', help: 'how long an orderly close may take (default: 8s)', parse: milliseconds },
  'half-close': {
    form: 'yes|no',
    help: "whether EOF of a client of --uds-path leaves the guest's direction open (default: yes)",
    parse: yesOrNo,
  },
  seqpacket: {
    form: 'yes|no',
    help: 'also listen at <path>_seqpacket of --uds-path, for messages: a draft, which may change (default: no)',
    parse: yesOrNo,
  },
  'max-connections': {
    form: 'n',
    help: `connections at once (default: ${MAX_CONNECTIONS})`,
    parse: wholeNumber(1, MAX_CONNECTIONS),
  },
  'from-guest-allow': { form: 'rules', help: 'what the guest may connect to (default: everything)', parse: rules },
  'from-guest-connections': { form: 'n', help: 'connections of the guest at once', parse: connections },
  'from-guest-connection-rate': { form: 'n[:burst]', help: 'new connections of the guest a second', parse: connectionRate },
  'from-guest-byte-rate': { form: 'n[:burst]', help: 'bytes that the guest sends a second; more wait', parse: byteRate },
  'to-guest-allow': { form: 'rules', help: 'what may connect to the guest (default: everything)', parse: rules },
  'to-guest-connections': { form: 'n', help: 'connections to the guest at once', parse: connections },
  'to-guest-connection-rate': { form: 'n[:burst]', help: 'new connections to the guest a second', parse: connectionRate },
  'to-guest-byte-rate': { form: 'n[:burst]', help: 'bytes that the guest receives a second; more wait', parse: byteRate },
} satisfies Record<string, Key>

/** What can be said about the links to other processes: options of the command, and keys beside `vms:`. */
export const LINK_KEYS = {
  link: {
    form: 'path',
    help: 'join the guests of the process that has --link-listen <path>; dials until it answers',
    parse: path,
  },
  'link-listen': {
    form: 'path',
    help: 'a Unix socket for other processes with --link; their guests and these reach each other',
    parse: path,
  },
  mode: { form: 'octal', help: 'permissions of the socket file of --link-listen, as in 660', parse: fileMode },
} satisfies Record<string, Key>

export type LinkKeyName = keyof typeof LINK_KEYS

export const LINK_KEY_NAMES = Object.keys(LINK_KEYS) as readonly LinkKeyName[]

export type KeyName = keyof typeof KEYS

export const KEY_NAMES = Object.keys(KEYS) as readonly KeyName[]

type ValueOf<T> = T extends { readonly value: infer V } ? V : never

/** The value that a key has once its text is understood. */
export type KeyValue<K extends KeyName> = ValueOf<ReturnType<(typeof KEYS)[K]['parse']>>

/** The name with its hyphens, however it was written: guest_cid, guest-cid. Undefined if there is no such key. */
export function keyNamed(written: string): KeyName | undefined {
  return namedIn(KEYS, written)
}

/** As `keyNamed`, for the keys beside `vms:`. */
export function linkKeyNamed(written: string): LinkKeyName | undefined {
  return namedIn(LINK_KEYS, written)
}

function namedIn<Keys extends object>(keys: Keys, written: string): keyof Keys | undefined {
  const name = written.replaceAll('_', '-')
  return Object.hasOwn(keys, name) ? (name as keyof Keys) : undefined
}

/** The keys for the next step after a key that does not exist. */
export const KEY_LIST = `The keys are ${KEY_NAMES.join(', ')}.`
