import { type Addon, findAddon, type Host, thisHost } from '@upcall/foundation/addon/loader'
import { API_VERSION, type FrontEndBinding } from './binding.js'

export { AddonError, type Attempt, type Host } from '@upcall/foundation/addon/loader'

const ADDON: Addon = {
  npmPackage: '@upcall/vhost-user',
  file: 'upcall_vhost_user.node',
  apiVersion: API_VERSION,
  variable: 'UPCALL_VHOST_USER_ADDON',
  purpose: 'vhost-user',
  needs: 'eventfd, which vhost-user needs',
}

let loaded: FrontEndBinding | undefined

/**
 * The addon, loaded on first use.
 *
 * @throws {AddonError} where the addon is missing, or cannot work.
 */
export function loadBinding(): FrontEndBinding {
  loaded ??= findBinding(thisHost(thisFile()))
  return loaded
}

export function findBinding(host: Host): FrontEndBinding {
  return findAddon<FrontEndBinding>(ADDON, host)
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
