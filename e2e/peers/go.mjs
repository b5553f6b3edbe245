// Go: firecracker-go-sdk and mdlayher/vsock against ours, and Go's own tests of a connection through `forward` and through the device.

import * as between from './go/between.mjs'
import { goPrograms, missingForGo } from './go/build.mjs'
import * as guest from './go/guest.mjs'
import * as hybrid from './go/hybrid.mjs'

export const tools = ['go']

/** What `run` needs, to be built before it. */
export async function programs() {
  return (await missingForGo()) ? [] : [goPrograms]
}

export async function run(checks, image, options) {
  const missing = await missingForGo()
  if (missing) {
    console.log(`# peers, go: left out: ${missing}`)
    return
  }
  const programs = await checks.check('our Go programs are built, or found in the cache', goPrograms)
  if (programs === undefined) return
  await hybrid.run(checks, programs, options)
  await guest.run(checks, image, programs, options)
  await between.run(checks, programs, options)
}
