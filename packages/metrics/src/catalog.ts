// Every metric, once: both adapters make theirs from this table, and so have the same names, labels and texts.

/** How a metric comes about: `counted` as things happen, `read` when it is asked for. */
type How = 'counted' | 'read'

interface About {
  readonly name: string
  readonly help: string
  readonly kind: 'counter' | 'gauge' | 'histogram'
  readonly how: How
  readonly labels: readonly string[]
  /** The label that an option adds. */
  readonly more?: 'remote' | 'cid'
}

/** Seconds: 0.2 ms is a simulated guest's answer, 30 s is how long a reply may take. */
export const DURATION_BUCKETS: readonly number[] = [
  0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30,
]

const counted = (name: string, labels: readonly string[], help: string) =>
  ({ name, labels, help, kind: 'counter', how: 'counted' }) as const

const ofDevice = (name: string, labels: readonly string[], help: string) =>
  ({ name: `vsock_device_${name}`, labels, help, kind: 'counter', more: 'cid' }) as const

export const CATALOG = {
  requests: counted('upcall_requests_total', ['op', 'outcome'], 'Requests that have ended, by what is known of them.'),
  failures: counted(
    'upcall_request_failures_total',
    ['op', 'code'],
    "Requests that did not succeed, by the guest's errno or the error's code.",
  ),
  duration: {
    name: 'upcall_request_duration_seconds',
    help: 'From the call of a request to its end, the time in the queue included.',
    kind: 'histogram',
    how: 'counted',
    labels: ['op'],
  },
  reconnects: counted('upcall_reconnects_total', ['reason'], 'Connections that a session had to make again, by the reason.'),
  state: {
    name: 'upcall_state',
    help: 'Sessions in each state. A session that is closed is not counted.',
    kind: 'gauge',
    how: 'read',
    labels: ['state'],
    more: 'remote',
  },
  handshakeFailures: counted(
    'vsock_handshake_failures_total',
    ['reason'],
    'Connections that did not come about: refused at a hybrid socket, or failed attempts to connect (an errno).',
  ),
  packets: { ...ofDevice('packets_total', ['direction'], 'Packets of the guest, and to it.'), how: 'read' },
  bytes: { ...ofDevice('bytes_total', ['direction'], 'Payload of these packets, in bytes.'), how: 'read' },
  begun: { ...ofDevice('connections_total', ['direction'], 'Connections begun by the guest, and to it.'), how: 'read' },
  stalls: {
    ...ofDevice('credit_stalls_total', [], "How often bytes began to wait because the guest's buffer was full."),
    how: 'read',
  },
  interrupts: {
    ...ofDevice('interrupts_total', ['ring'], 'Interrupts of the guest, by the ring that they are about.'),
    how: 'read',
  },
  kicks: { ...ofDevice('kicks_total', [], 'How often the guest woke the device.'), how: 'read' },
  dropped: {
    ...ofDevice('dropped_packets_total', [], "Packets of the guest that were thrown away: they had another guest's CID."),
    how: 'read',
  },
  refusals: {
    ...ofDevice('refusals_total', ['reason'], "Connections that the guest's policy or the network refused."),
    how: 'read',
  },
  recoveries: {
    ...ofDevice('recoveries_total', ['ring'], 'How often guest and device waited for each other, and the device ended it.'),
    how: 'read',
  },
  connections: {
    name: 'vsock_device_open_connections',
    help: 'Connections that are open or closing now.',
    kind: 'gauge',
    how: 'read',
    labels: [],
    more: 'cid',
  },
  deviceState: {
    name: 'vsock_device_state',
    help: 'Devices in each state. A device that is closed is not counted.',
    kind: 'gauge',
    how: 'read',
    labels: ['state'],
    more: 'cid',
  },
} as const satisfies Record<string, About>

export type MetricKey = keyof typeof CATALOG
type KeysThat<T> = { [K in MetricKey]: (typeof CATALOG)[K] extends T ? K : never }[MetricKey]
/** What is added to as things happen. */
export type CountedKey = KeysThat<{ how: 'counted'; kind: 'counter' }>
/** What is read when it is asked for. */
export type ReadKey = KeysThat<{ how: 'read' }>

export type Labels = Readonly<Record<string, string>>

/** One value of a metric. */
export interface Sample {
  readonly labels: Labels
  readonly value: number
}

export const METRIC_KEYS = Object.keys(CATALOG) as readonly MetricKey[]

/** Which labels more than the least there are. */
export interface Detail {
  /** `upcall_state` has a label `remote`, the other end's name: one set of series for each remote. Default false: sessions are counted. */
  perRemote?: boolean | undefined
  /** The metrics `vsock_device_*` have a label `cid`: one set of series for each guest. Default false: they are sums. */
  perGuest?: boolean | undefined
}

/** The labels of a metric, those that an option adds included. */
export function labelsOf(key: MetricKey, { perRemote = false, perGuest = false }: Detail): readonly string[] {
  const about: About = CATALOG[key]
  const more = (about.more === 'remote' && perRemote) || (about.more === 'cid' && perGuest)
  return more ? [...about.labels, about.more!] : about.labels
}
