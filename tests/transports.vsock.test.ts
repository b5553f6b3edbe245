import { type ComplianceTransport, transportCompliance, vsockTransport } from '@upcall/testkit'
import { describe, it, vi } from 'vitest'
import * as loader from '../packages/vsock/src/native/loader.js'
import { addonIfBuilt, standInForVsock } from '../packages/vsock/testing/addon.js'

// All of vsock:// but the kernel's AF_VSOCK, which only guests connect over: the addon is handed AF_UNIX in its place.

vi.mock('../packages/vsock/src/native/loader.js', { spy: true })

const addon = addonIfBuilt()

describe.runIf(addon)('vsock, over AF_UNIX in its place', () => {
  if (!addon) return
  const { binding } = standInForVsock(addon)
  vi.spyOn(loader, 'loadBinding').mockReturnValue(binding)
  for (const { name, run } of transportCompliance(vsockTransport() as ComplianceTransport<unknown>)) {
    it(name, ({ signal }) => run(signal))
  }
})
