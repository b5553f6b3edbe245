import type { VsockErrorCode } from '../errors.js'

/** What an errno of the kernel's AF_VSOCK means to the caller. */
export interface Reason {
  readonly code: VsockErrorCode
  /** Whether the same call may succeed later although the caller changes nothing. */
  readonly retryable: boolean
  readonly what: string
  readonly next: string
}

type Row = readonly [code: VsockErrorCode, retry: 'retry' | 'final', what: string, next: string]
type Table = Readonly<Record<string, Row>>

// The kernel's own words mislead in places, so every row says what has been seen to cause it.

const NO_LISTENER = 'there is no listener on that port, or its backlog is full'
const START_SERVER = 'Start the server at the other end, or pass retry.'
const FREE_DESCRIPTORS = 'Close something, or raise the limit (ulimit -n).'
const FREE_MEMORY = 'Free some memory, or use smaller buffers.'

const BOTH: Table = {
  // The module is not loaded, or the kernel was built without it.
  EAFNOSUPPORT: [
    'ENOTSUP',
    'final',
    'this kernel has no AF_VSOCK',
    'Load the module vsock. In a container, look at its seccomp profile.',
  ],
  EPERM: [
    'EPERM',
    'final',
    'this process may not open AF_VSOCK sockets',
    "Look at the sandbox: Docker's default seccomp profile, for example, forbids AF_VSOCK.",
  ],
  EMFILE: ['EMFILE', 'retry', 'this process has no descriptor left', FREE_DESCRIPTORS],
  ENFILE: ['ENFILE', 'retry', 'the system has no descriptor left', FREE_DESCRIPTORS],
  ENOMEM: ['ENOMEM', 'retry', 'the kernel has no memory for it', FREE_MEMORY],
  ENOBUFS: ['ENOBUFS', 'retry', 'the kernel has no memory for it', FREE_MEMORY],
}

const CONNECT: Table = {
  ...BOTH,
  // virtio answers a request that finds no listener, or a full backlog, with RST.
  ECONNRESET: ['ECONNREFUSED', 'retry', NO_LISTENER, START_SERVER],
  // The VMCI and Hyper-V transports say what they mean.
  ECONNREFUSED: ['ECONNREFUSED', 'retry', NO_LISTENER, START_SERVER],
  // A request without any answer: a guest's VMM drops requests for a CID that it does not know.
  ETIMEDOUT: [
    'ETIMEDOUT',
    'retry',
    'no answer: there is no such guest, or it is paused or still booting',
    'Check the CID (for local the module vsock_loopback must be loaded), or allow more time with timeoutMs.',
  ],
  // vhost knows its guests. A guest that starts later gets its CID then.
  ENODEV: [
    'ENODEV',
    'retry',
    'there is no such CID, or no transport that leads there',
    "Check that the VM runs with that CID, and that vhost_vsock (on a host), the VM's vsock device (in a guest) or vsock_loopback (for local) is there.",
  ],
  // The transport's stream_allow: the hypervisor's CID, or from a guest any CID but the host's.
  ENETUNREACH: [
    'ENETUNREACH',
    'final',
    'the transport does not lead to that CID',
    'From a guest only host and local can be reached, and a sibling VM with toHost: true where the host forwards.',
  ],
  // SOCK_SEQPACKET where the transport lacks it, or has not negotiated it with the device. Every transport has streams.
  ESOCKTNOSUPPORT: [
    'ESOCKTNOSUPPORT',
    'final',
    'the transport to that CID does not carry message sockets (SOCK_SEQPACKET)',
    'Linux 5.14 or newer has them over virtio, where the VMM offers the feature; VMware and Hyper-V have none. Streams work: connect() takes vsock://.',
  ],
  EPROTO: ['EPROTO', 'retry', 'the other end broke the vsock handshake', "Look at the VMM's log."],
  // The connection was gone after the handshake, before this process could look at it.
  ENOTCONN: ['ECONNREFUSED', 'retry', 'the connection was closed as soon as it was made', START_SERVER],
  EPIPE: ['ECONNREFUSED', 'retry', 'the connection was closed as soon as it was made', START_SERVER],
  EADDRNOTAVAIL: ['EADDRNOTAVAIL', 'retry', 'no local port is free', 'Close connections.'],
  EINVAL: [
    'EINVAL',
    'final',
    'the kernel refuses this address or one of the vsock options',
    'Check the CID. Flags such as toHost need Linux 5.11.',
  ],
  EACCES: ['EACCES', 'final', 'access is denied', 'Look at the log of the security module (SELinux, AppArmor).'],
}

const LISTEN: Table = {
  ...BOTH,
  EACCES: ['EACCES', 'final', 'ports below 1024 are privileged', 'Use a higher port, or give the process CAP_NET_BIND_SERVICE.'],
  EADDRINUSE: ['EADDRINUSE', 'retry', 'the port is taken', 'Stop the other server, or choose another port (any for a free one).'],
  EADDRNOTAVAIL: [
    'EADDRNOTAVAIL',
    'final',
    'that CID does not belong to this machine',
    "Bind any, or this machine's own CID (localCid()).",
  ],
  ENODEV: [
    'ENODEV',
    'final',
    'there is no vsock transport',
    "Load a vsock transport: vhost_vsock (host), vsock_loopback, or the VM's vsock device.",
  ],
  EINVAL: [
    'EINVAL',
    'final',
    'the kernel refuses this address or one of the vsock options',
    'Check the CID and the buffer sizes.',
  ],
}

const TABLES = { connect: CONNECT, listen: LISTEN } as const

/** The meaning of an errno name at `connect` or `listen`. A name that is not in the table keeps its name and is final. */
export function explain(op: 'connect' | 'listen', errno: string): Reason {
  const row = Object.hasOwn(TABLES[op], errno) ? TABLES[op][errno] : undefined
  if (!row) return { code: errno, retryable: false, what: `the kernel said ${errno}`, next: 'See the cause.' }
  const [code, retry, what, next] = row
  return {
    code,
    retryable: retry === 'retry',
    what: code === errno ? `${what} (${errno})` : `${what} (the kernel said ${errno})`,
    next,
  }
}
