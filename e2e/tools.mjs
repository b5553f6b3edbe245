import { existsSync } from 'node:fs'
import { missingTools } from '@upcall/qemu'

/** Debian's browser, or undefined. */
export const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)

/** Why the page cannot be opened here. */
export function missingBrowser() {
  return CHROMIUM === undefined ? 'chromium is missing: apt-get install chromium' : undefined
}

/** What an aarch64 guest takes besides, in the same way: an emulator, and a compiler for what is native in our packages. */
export function missingForAarch64() {
  return missingTools('aarch64', 'aarch64-gcc')
}

/** What the host lacks for the end-to-end tests and how to get it, in one sentence; undefined if nothing is missing. */
export function missing() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return `guests are booted on Linux x64 with Debian's tools, not on ${process.platform} ${process.arch}`
  }
  return missingTools('image', 'module')
}
