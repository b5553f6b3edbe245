import { fileURLToPath } from 'node:url'
import { buildGuestImage } from '@upcall/qemu'
import { addons, buildFor, foreignNode, targets } from '../scripts/build-addons.mjs'

/** The guest image all end-to-end tests boot, made when its inputs have changed; kept in .cache at the repository's root. */
export function guestImage(options = {}) {
  const cacheDir = fileURLToPath(new URL('../.cache/guest', import.meta.url))
  return buildGuestImage({ cacheDir, onProgress: (step) => console.log(`# image: ${step}`), ...options })
}

/** The same for aarch64, with a Node from npm; and our addons are compiled for it, into the packages' `prebuilds`. */
export function aarch64Image() {
  const target = targets.find(({ arch }) => arch === 'arm64')
  for (const addon of addons) buildFor(addon, target)
  return guestImage({ arch: 'aarch64', node: foreignNode(target) })
}
