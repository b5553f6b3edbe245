import { VsockError } from '../errors.js'
import type { InheritedSocket } from '../inherited.js'
import { AddonError, loadBinding } from '../native/loader.js'

/** Of the descriptors that systemd hands over. */
const FIRST_FD = 3
/** Far above what a service has. */
const MOST_FDS = 65_536

const VARIABLES = ['LISTEN_PID', 'LISTEN_PIDFDID', 'LISTEN_FDS', 'LISTEN_FDNAMES']

/** A socket that systemd opened for this process, for `listen`, `bindServer` or `listenHybrid`. */
export interface ActivationSocket extends InheritedSocket {
  /** `FileDescriptorName=` of its unit: by default the unit's name, as in `guest.socket`. `unknown` if systemd named none. */
  readonly name: string
}

export interface ListenFdsOptions {
  /** Where the variables are read and removed. Default `process.env`. */
  env?: NodeJS.ProcessEnv | undefined
  /** The process that `LISTEN_PID` has to name. Default this one. */
  pid?: number | undefined
}

/**
 * The sockets of systemd's socket activation, as sd_listen_fds_with_names(3) gives them: reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES and
 * removes them, so that a second call and this process's children find nothing. Empty if the process was not socket-activated, and if
 * the sockets are another process's. With the addon the descriptors are also kept from this process's children.
 *
 * @throws {VsockError} `EINVAL` for variables that contradict each other or are not numbers. They are removed all the same.
 */
export function listenFds({ env = process.env, pid = process.pid }: ListenFdsOptions = {}): ActivationSocket[] {
  const [owner, , count, names] = VARIABLES.map((name) => {
    const value = env[name]
    delete env[name]
    return value
  })
  if (owner === undefined || count === undefined) return []
  if (!/^[1-9]\d*$/.test(owner)) throw malformed('LISTEN_PID', owner, 'not the number of a process')
  if (Number(owner) !== pid) return []
  if (!/^\d{1,5}$/.test(count) || Number(count) > MOST_FDS) throw malformed('LISTEN_FDS', count, 'not a count of descriptors')
  const named = names === undefined ? undefined : names.split(':')
  const length = Number(count)
  if (length === 0) return []
  if (named !== undefined && named.length !== length)
    throw malformed('LISTEN_FDNAMES', names!, `${named.length} names for ${length} descriptors`)
  const sockets = Array.from({ length }, (_, i) => ({ fd: FIRST_FD + i, name: named?.[i] ?? 'unknown' }))
  for (const { fd } of sockets) keepFromChildren(fd)
  return sockets
}

function malformed(subject: string, value: string, what: string): VsockError {
  return new VsockError({
    code: 'EINVAL',
    op: 'listen',
    subject,
    what: `${JSON.stringify(value)} is ${what}`,
    next: 'Leave these variables to systemd.',
  })
}

function keepFromChildren(fd: number): void {
  try {
    loadBinding().closeOnExec(fd)
  } catch (error) {
    // Without the addon children inherit it. That it is not open is told when it is used.
    if (!(error instanceof AddonError) && (error as NodeJS.ErrnoException).code !== 'EBADF') throw error
  }
}
