import type { Dial } from '@upcall/client'
import { deviceManagerGuest, type GuestBackend } from '@upcall/device-manager/guest'
import { checkObject } from '@upcall/foundation/check'
import { type Clock, type GuestService, UpcallServer } from '@upcall/server'
import { duplexPair } from './duplex-pair.js'

export interface SimulatedDialOptions {
  /** The server's clock. Default: the platform's. */
  clock?: Clock | undefined
}

/** A dialer that reaches a whole guest in memory. */
export interface SimulatedDial extends Dial, AsyncDisposable {
  /** The guest's end of every connection that was dialled. */
  readonly server: UpcallServer
  /** Ends all connections and resolves when they are closed. Later attempts fail with ECONNREFUSED. */
  close(): Promise<void>
}

/**
 * Puts a real server with one service behind a dialer.
 *
 * @param guest - A service, or a backend (such as a simulated guest) for the device manager.
 */
export function simulatedDial(guest: GuestService | GuestBackend, options: SimulatedDialOptions = {}): SimulatedDial {
  checkObject('simulatedDial: guest', guest)
  checkObject('simulatedDial: options', options)
  const service = 'open' in guest ? guest : deviceManagerGuest(guest)
  const server = new UpcallServer({ services: [service], clock: options.clock })
  let open = true
  const dial: Dial = async ({ signal }) => {
    signal.throwIfAborted()
    if (!open) throw Object.assign(new Error('connect: the simulated guest is closed'), { code: 'ECONNREFUSED' })
    const [client, guestEnd] = duplexPair()
    server.accept(guestEnd, { remote: 'memory' })
    return client
  }
  const close = () => {
    open = false
    return server.close()
  }
  return Object.assign(dial, { server, close, [Symbol.asyncDispose]: close })
}
