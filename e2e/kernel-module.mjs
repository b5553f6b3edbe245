// Builds kernel/upcall-mmio for the guest image's kernel and prints the .ko file's path: node e2e/kernel-module.mjs
import { fileURLToPath, pathToFileURL } from 'node:url'
import { buildKernelModule } from '@upcall/qemu'
import { guestImage } from './image.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/** The virtio-mmio module for an image's kernel, kept beside the images. */
export function upcallMmioModule({ release, arch }) {
  const onProgress = (step) => console.log(`# module: ${step}`)
  return buildKernelModule({
    sourceDir: here('../kernel/upcall-mmio'),
    cacheDir: here('../.cache/guest'),
    release,
    arch,
    onProgress,
  })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) console.log(await upcallMmioModule(await guestImage()))
