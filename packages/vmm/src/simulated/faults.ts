import { type GuestBackend, type MaybePromise, NO_REPLY, type NoReply } from '@upcall/device-manager/guest'
import type { GuestService, GuestSession } from '@upcall/server'

/**
 * How a guest can be broken, to see what the VMM makes of it:
 * - `refuse`: new connections are closed as if the service were not there, and every request is refused with EIO.
 * - `lie`: greets with a wrong magic, and says yes to every request without doing anything.
 * - `silence`: neither greets nor answers.
 * - `death`: the process dies at the next connection or request.
 */
export type Fault = 'refuse' | 'lie' | 'silence' | 'death'

export const FAULTS: readonly Fault[] = ['refuse', 'lie', 'silence', 'death']

const EIO = -5

export interface Faults {
  readonly fault: Fault | undefined
  die(): void
}

/** Answers in the backend's place while there is a fault. */
export function faultyBackend(backend: GuestBackend, faults: Faults): GuestBackend {
  const { cpu, mmio, pci } = backend
  const broken = (): { result: number } | NoReply | undefined => {
    switch (faults.fault) {
      case undefined:
        return undefined
      case 'refuse':
        return { result: EIO }
      case 'lie':
        return { result: 0 }
      case 'death':
        faults.die()
        return NO_REPLY
      case 'silence':
        return NO_REPLY
    }
  }
  const device = (work: () => MaybePromise<number | NoReply>) => {
    const answer = broken()
    if (answer === undefined) return work()
    return answer === NO_REPLY ? NO_REPLY : answer.result
  }
  return {
    arch: backend.arch,
    quirks: backend.quirks,
    cpu: cpu && {
      add: (request, connection) => broken() ?? cpu.add(request, connection),
      remove: (request, connection) => broken() ?? cpu.remove(request, connection),
    },
    mmio: mmio && {
      add: (window, connection) => device(() => mmio.add(window, connection)),
      remove: (window, connection) => device(() => mmio.remove(window, connection)),
    },
    pci: pci && {
      add: (slot, connection) => device(() => pci.add(slot, connection)),
      remove: (slot, connection) => device(() => pci.remove(slot, connection)),
    },
    available: (now) => backend.available?.(now) ?? true,
    opened: (connection) => backend.opened?.(connection),
    // A broken guest does not stop when it is told to, either.
    stopped: () => (faults.fault === undefined ? backend.stopped?.() : undefined),
  }
}

/** Opens connections in the service's place while there is a fault. */
export function faultyService(service: GuestService, faults: Faults): GuestService {
  return {
    byte: service.byte,
    available: (now) => faults.fault !== 'refuse' && (service.available?.(now) ?? true),
    open(connection) {
      const session = service.open(connection)
      switch (faults.fault) {
        case 'silence':
          return withGreeting(session, new Uint8Array(0))
        case 'lie':
          return withGreeting(
            session,
            session.greeting.map((byte, at) => (at === 0 ? byte ^ 0xff : byte)),
          )
        case 'death':
          faults.die()
          return withGreeting(session, new Uint8Array(0))
        default:
          return session
      }
    },
  }
}

function withGreeting(session: GuestSession, greeting: Uint8Array): GuestSession {
  return { greeting, receive: (chunk, now) => session.receive(chunk, now), close: () => session.close() }
}
