import { readdirSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { collectGarbage } from '@upcall/foundation/testing/collect-garbage'
import type { FrontEndBinding } from '../src/native/binding.js'
import { AddonError, loadBinding } from '../src/native/loader.js'

/** The addon, or undefined with a word on how to get it. */
export function addonIfBuilt(): FrontEndBinding | undefined {
  try {
    return loadBinding()
  } catch (error) {
    if (!(error instanceof AddonError)) throw error
    console.warn(`Tests of the vhost-user addon are left out: ${error.message}\nTo run them: node scripts/build-addons.mjs`)
    return undefined
  }
}

/** How many descriptors are open once everything is collected that will be. */
export async function openDescriptors(): Promise<number> {
  for (let i = 0; i < 5; i++) {
    collectGarbage()
    await turn()
  }
  return readdirSync('/proc/self/fd').length
}
