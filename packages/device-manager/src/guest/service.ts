import type { GuestService } from '@upcall/server'
import { DEVICE_MANAGER_BYTE } from '@upcall/wire'
import type { GuestBackend } from './backend.js'
import type { WireQuirks } from './quirks.js'
import { DeviceManagerSession } from './session.js'

export interface DeviceManagerGuestOptions {
  /** Overrides the backend's own. */
  quirks?: { readonly [Q in keyof WireQuirks]?: boolean | undefined } | undefined
}

/**
 * The device manager's guest side, service `'d'`, for an `UpcallServer`. All its connections share the backend, as in a guest.
 */
export function deviceManagerGuest(backend: GuestBackend, options: DeviceManagerGuestOptions = {}): GuestService {
  const quirk = (name: keyof WireQuirks) => options.quirks?.[name] ?? backend.quirks?.[name] ?? false
  const quirks: WireQuirks = {
    tornRequests: quirk('tornRequests'),
    staleReplyBytes: quirk('staleReplyBytes'),
    stalePciResult: quirk('stalePciResult'),
    wrongMagicSucceeds: quirk('wrongMagicSucceeds'),
  }
  return {
    byte: DEVICE_MANAGER_BYTE,
    available: (now) => backend.available?.(now) ?? true,
    open: (connection) => new DeviceManagerSession(backend, connection, quirks),
  }
}
