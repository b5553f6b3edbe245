import type { VsockDeviceError } from './errors.js'
import type { Refusal } from './hub.js'
import type { Recovery } from './lookout.js'
import type { DeviceError } from './machine/errors.js'

// What becomes of a device.

/**
 * - `waiting`: there is no VMM
 * - `attached`: there is a VMM, and no driver in the guest that uses the device (booting, paused, reset)
 * - `running`: connections are possible
 * - `faulted`: the guest broke a rule; its rings are left alone until its driver begins again, the VMM starts them again, or `restart()`
 * - `closed`: by `close()`
 */
export type DeviceState = 'waiting' | 'attached' | 'running' | 'faulted' | 'closed'

/**
 * Why a running device stopped. `paused`: the VM was stopped, or its guest is being reset; connections survive until that is known.
 * `fault`: the guest broke a rule. `disconnected`: the VMM has gone. `protocol`: the VMM broke the vhost-user protocol. `closed`: by `close()`.
 */
export type StopReason = 'paused' | 'fault' | 'disconnected' | 'protocol' | 'closed'

export interface VhostUserVsockEvents {
  running: []
  stopped: [info: { reason: StopReason; error?: DeviceError | undefined }]
  /** A new driver has begun in the guest, and so many connections of the old one were cut. */
  reset: [info: { connections: number }]
  state: [change: { state: DeviceState; previous: DeviceState }]
  /** The guest and the device seemed to wait for each other, and the device has ended that. A count of these is worth having. */
  recovery: [recovery: Recovery]
  /**
   * - `EAGAIN`: a VMM is at the socket and cannot be let in for now, `EMFILE` for example. It is tried again and again, at most a second
   *   later.
   * - `EPROTO`: the VMM asked for what the device cannot do, and was told; the conversation goes on. `cause` is the `DeviceError`.
   */
  warning: [error: VsockDeviceError]
  /**
   * A connection was refused: the guest asked for a connection with another guest that it cannot reach, or a policy does not
   * allow what the guest or the host asked for. A guest that asked got a RST.
   */
  refused: [refusal: Refusal]
}
