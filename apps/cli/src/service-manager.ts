import { messageFor } from '@upcall/foundation/error'
import { notifySystemd } from '@upcall/vsock'
import type { Io } from './output.js'

/** Tells systemd, or whatever set NOTIFY_SOCKET, about a command that serves. A message that does not go out is a line on stderr. */
export class ServiceManager {
  readonly #io: Pick<Io, 'env' | 'stderr'>
  readonly #socket: string | undefined

  /** Removes NOTIFY_SOCKET from the environment: the programs that this command starts are not the service. */
  constructor(io: Pick<Io, 'env' | 'stderr'>) {
    this.#io = io
    this.#socket = io.env.NOTIFY_SOCKET
    delete io.env.NOTIFY_SOCKET
  }

  /** The command listens. */
  ready(address: string): Promise<void> {
    // A path may contain anything, and each line is an assignment.
    return this.#tell(`READY=1\nSTATUS=listening on ${address.replaceAll(/[\r\n]/g, '?')}`)
  }

  /** The command ends. */
  stopping(): Promise<void> {
    return this.#tell('STOPPING=1')
  }

  async #tell(state: string): Promise<void> {
    if (this.#socket === undefined) return
    try {
      await notifySystemd(state, { socket: this.#socket })
    } catch (error) {
      this.#io.stderr.write(`upcall: systemd was not told ${state.split('\n')[0]}: ${messageFor(error)}\n`) // prints
    }
  }
}
