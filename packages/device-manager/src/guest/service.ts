import { checkFunction, checkObject } from '@upcall/foundation/check'
import type { GuestService } from '@upcall/server'
import { DEVICE_MANAGER_BYTE } from '@upcall/wire'
import { checkArch } from '../arch.js'
import type { GuestBackend } from './backend.js'
import { type WireQuirks, wireQuirks } from './quirks.js'
import { DeviceManagerSession } from './session.js'

export interface DeviceManagerGuestOptions {
  /** Overrides the backend's own. */
  quirks?: { readonly [Q in keyof WireQuirks]?: boolean | undefined } | undefined
}

/**
 * The device manager's guest side, service `'d'`, for an `UpcallServer`. All its connections share the backend, as in a guest.
 *
 * @throws TypeError or RangeError that names the wrong part of the backend or the options.
 */
export function deviceManagerGuest(backend: GuestBackend, options: DeviceManagerGuestOptions = {}): GuestService {
  checkObject('options', options)
  checkBackend(backend)
  const given = wireQuirks('quirks', options.quirks)
  const quirk = (name: keyof WireQuirks) => given[name] ?? backend.quirks?.[name] ?? false
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

/** A backend may be a program's own. The program learns now what is wrong with it, not at the first request. */
function checkBackend(backend: GuestBackend): void {
  checkObject('backend', backend, 'a GuestBackend object')
  checkArch(backend.arch)
  for (const name of ['cpu', 'mmio', 'pci'] as const) {
    const hotplug = backend[name]
    if (hotplug === undefined) continue
    checkObject(`backend.${name}`, hotplug, 'an object with add and remove, or left out')
    checkFunction(`backend.${name}.add`, hotplug.add)
    checkFunction(`backend.${name}.remove`, hotplug.remove)
  }
  for (const name of ['available', 'opened', 'stopped'] as const)
    if (backend[name] !== undefined) checkFunction(`backend.${name}`, backend[name], 'a function or left out')
  wireQuirks('backend.quirks', backend.quirks)
}
