import { fileURLToPath } from 'node:url'
import { buildGuestImage } from '@upcall/qemu'

/** The guest image all end-to-end tests boot, made when its inputs have changed; kept in .cache at the repository's root. */
export function guestImage(options = {}) {
  const cacheDir = fileURLToPath(new URL('../.cache/guest', import.meta.url))
  return buildGuestImage({ cacheDir, onProgress: (step) => console.log(`# image: ${step}`), ...options })
}
