import type { VsockErrorCode } from '../errors.js'

/** What an errno of the kernel's AF_VSOCK means to whoever called. */
export interface Reason {
  readonly code: VsockErrorCode
  /** Whether the same call may succeed later without anybody changing it. */
  readonly retryable: boolean
  readonly what: string
  readonly next: string
}

type Row = readonly [code: VsockErrorCode, retry: 'retry' | 'final', what: string, next: string]
type Table = Readonly<Record<string, Row>>

// The kernel's own words mislead in places, so every row says what has been seen to cause it.

const NOBODY = 'nobody listens on that port, or its backlog is full'
const START_SERVER = 'start the server at the other end, or pass retry'
const FREE_DESCRIPTORS = 'close something, or raise the limit (ulimit -n)'
const SECCOMP = "look at the sandbox: Docker's default seccomp profile, for one, forbids AF_VSOCK"

const BOTH: Table = {
  // The module is not loaded, or the kernel was built without it.
  EAFNOSUPPORT: [
    'ENOTSUP',
    'final',
    'this kernel has no AF_VSOCK',
    'load the module vsock, and in a container look at its seccomp profile',
  ],
  EPERM: ['EPERM', 'final', 'this process may not open AF_VSOCK sockets', SECCOMP],
  EMFILE: ['EMFILE', 'retry', 'this process has no descriptor left', FREE_DESCRIPTORS],
  ENFILE: ['ENFILE', 'retry', 'the system has no descriptor left', FREE_DESCRIPTORS],
  ENOMEM: ['ENOMEM', 'retry', 'the kernel has no memory for it', 'free some memory, or use smaller buffers'],
  ENOBUFS: ['ENOBUFS', 'retry', 'the kernel has no memory for it', 'free some memory, or use smaller buffers'],
}

const CONNECT: Table = {
  ...BOTH,
  // virtio answers a request that finds no listener, or a full backlog, with RST.
  ECONNRESET: ['ECONNREFUSED', 'retry', NOBODY, START_SERVER],
  // The VMCI and Hyper-V transports say what they mean.
  ECONNREFUSED: ['ECONNREFUSED', 'retry', NOBODY, START_SERVER],
  // A request that nobody answered at all: a guest's VMM drops those for a CID it does not know.
  ETIMEDOUT: [
    'ETIMEDOUT',
    'retry',
    'no answer: there is no such guest, or it is paused or still booting',
    'check the CID (for local the module vsock_loopback must be loaded), or allow more time with timeoutMs',
  ],
  // vhost knows its guests. A guest that starts later gets its CID then.
  ENODEV: [
    'ENODEV',
    'retry',
    'no such CID, or no transport that leads there',
    "check that the VM runs with that CID, and that vhost_vsock (on a host), the VM's vsock device (in a guest) or vsock_loopback (for local) is there",
  ],
  // The transport's stream_allow: the hypervisor's CID, or from a guest any CID but the host's.
  ENETUNREACH: [
    'ENETUNREACH',
    'final',
    'the transport does not lead to that CID',
    'from a guest only host and local can be reached, and a sibling VM with toHost: true where the host forwards',
  ],
  // Seen for SOCK_SEQPACKET where the transport lacks it; stream sockets are all this library opens.
  ESOCKTNOSUPPORT: [
    'ESOCKTNOSUPPORT',
    'final',
    'the transport does not carry this type of socket',
    "check the kernel's vsock transport at both ends",
  ],
  EPROTO: ['EPROTO', 'retry', 'the other end broke the vsock handshake', "look at the VMM's log"],
  // The handshake was over and the connection gone before it could be looked at.
  ENOTCONN: ['ECONNREFUSED', 'retry', 'the connection was closed as soon as it was made', START_SERVER],
  EPIPE: ['ECONNREFUSED', 'retry', 'the connection was closed as soon as it was made', START_SERVER],
  EADDRNOTAVAIL: ['EADDRNOTAVAIL', 'retry', 'no local port is free', 'close connections'],
  EINVAL: [
    'EINVAL',
    'final',
    'the kernel refuses this address or one of the vsock options',
    'check the CID; flags such as toHost need Linux 5.11',
  ],
  EACCES: ['EACCES', 'final', 'not permitted', "look at the security module's log (SELinux, AppArmor)"],
}

const LISTEN: Table = {
  ...BOTH,
  EACCES: ['EACCES', 'final', 'ports below 1024 are privileged', 'use a higher port, or give the process CAP_NET_BIND_SERVICE'],
  EADDRINUSE: ['EADDRINUSE', 'retry', 'the port is taken', 'stop the other server, or choose another port (any for a free one)'],
  EADDRNOTAVAIL: ['EADDRNOTAVAIL', 'final', "that CID is not this machine's", "bind any, or this machine's own CID (localCid())"],
  ENODEV: [
    'ENODEV',
    'final',
    'there is no vsock transport',
    "load a vsock transport: vhost_vsock (host), vsock_loopback, or the VM's vsock device",
  ],
  EINVAL: [
    'EINVAL',
    'final',
    'the kernel refuses this address or one of the vsock options',
    'check the CID and the buffer sizes',
  ],
}

const TABLES = { connect: CONNECT, listen: LISTEN } as const

/** The meaning of an errno name at `connect` or `listen`; one that is not in the table keeps its name and is final. */
export function explain(op: 'connect' | 'listen', errno: string): Reason {
  const row = Object.hasOwn(TABLES[op], errno) ? TABLES[op][errno] : undefined
  if (!row) return { code: errno, retryable: false, what: `failed with ${errno}`, next: 'see the cause' }
  const [code, retry, what, next] = row
  return {
    code,
    retryable: retry === 'retry',
    what: code === errno ? `${what} (${errno})` : `${what} (the kernel said ${errno})`,
    next,
  }
}
