import { fileURLToPath } from 'node:url'
import { buildGuestImage } from '@upcall/qemu'
import { addons, buildFor, foreignNode, targets } from '../scripts/build-addons.mjs'

/** Debian's stock kernels for x86_64, as `--kernel` names them; a suite that says nothing boots the first. */
export const kernels = { 6.1: 'linux-image-cloud-amd64', 6.12: 'linux-image-6.12-cloud-amd64' }

/**
 * The guest image all end-to-end tests boot, made when its inputs have changed; kept in .cache at the repository's root.
 *
 * @param options - `kernel`: of `kernels`. The others are those of `buildGuestImage`.
 */
export function guestImage({ kernel, ...options } = {}) {
  const cacheDir = fileURLToPath(new URL('../.cache/guest', import.meta.url))
  const onProgress = (step, amount) => {
    if (amount === undefined || amount.done === 0) console.log(`# image: ${step}`)
  }
  return buildGuestImage({ cacheDir, onProgress, ...(kernel !== undefined && { kernelPackage: kernels[kernel] }), ...options })
}

/** The same for aarch64, with a Node from npm; and our addons are compiled for it, into the packages' `prebuilds`. */
export function aarch64Image() {
  const target = targets.find(({ arch }) => arch === 'arm64')
  for (const addon of addons) buildFor(addon, target)
  return guestImage({ arch: 'aarch64', node: foreignNode(target) })
}
