import type { GuestService } from '@upcall/server'

/** The same service. `onReceive` is called with each chunk, and the number of its connection, before the service gets it. */
export function tappedService(service: GuestService, onReceive: (chunk: Uint8Array, connection: number) => void): GuestService {
  return {
    byte: service.byte,
    available: (now) => service.available?.(now) ?? true,
    open(connection) {
      const session = service.open(connection)
      return {
        greeting: session.greeting,
        receive(chunk, now) {
          onReceive(chunk, connection.id)
          return session.receive(chunk, now)
        },
        close: () => session.close(),
      }
    },
  }
}
