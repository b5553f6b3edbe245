import { describe, vi } from 'vitest'
import { addonIfBuilt } from '../../testing/addon.js'

// A server that can receive descriptors reads each command by the addon. What CONNECT promises has to hold there, too.

const addon = vi.hoisted(() => ({ binding: undefined as unknown }))
vi.mock('../native/loader.js', async (original) => ({
  ...(await original<typeof import('../native/loader.js')>()),
  loadBinding: () => addon.binding,
}))
addon.binding = addonIfBuilt()

if (addon.binding) {
  await import('../hybrid.test.js')
  await import('../ends.test.js')
} else {
  describe.skip('hybrid.test.ts and ends.test.ts, with the addon', () => {})
}
