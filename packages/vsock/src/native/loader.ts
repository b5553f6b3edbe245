import { type Addon, findAddon, type Host, locateAddon, type Place, thisHost } from '@upcall/foundation/addon/loader'
import { API_VERSION, type Binding } from './binding.js'

export { AddonError, type Attempt, type Host, type Place } from '@upcall/foundation/addon/loader'

const ADDON: Addon = {
  npmPackage: '@upcall/vsock',
  file: 'upcall_vsock.node',
  apiVersion: API_VERSION,
  variable: 'UPCALL_VSOCK_ADDON',
  purpose: 'native AF_VSOCK',
  needs: 'AF_VSOCK, which only Linux has',
  otherWays: "use hvsock://<path>:<port> through the VMM's Unix socket, or unix:<path>",
}

let loaded: Binding | undefined

/**
 * The addon, loaded on first use.
 *
 * @throws {AddonError} where there is none, or none can be.
 */
export function loadBinding(): Binding {
  loaded ??= findBinding(thisHost(thisFile()))
  return loaded
}

export function findBinding(host: Host): Binding {
  return findAddon<Binding>(ADDON, host)
}

/**
 * The file of the addon for this machine, for programs that bring it along, into a guest for one. It is not loaded.
 *
 * @returns An absolute path: the build of a checkout, else the prebuilt file of the package; with `UPCALL_VSOCK_ADDON` the file that it names.
 * @throws {@link AddonError} where there is no file, or the platform has no AF_VSOCK.
 */
export function addonPath(): string {
  return locateBinding(thisHost(thisFile()))
}

export function locateBinding(place: Place): string {
  return locateAddon(ADDON, place)
}

/**
 * CommonJS has `__filename` and no `import.meta.url`; in a module it is the other way round. `typeof` would not do: webpack answers it
 * for CommonJS, and then makes a module.
 */
function thisFile(): string | undefined {
  try {
    return __filename
  } catch {
    return import.meta.url
  }
}
