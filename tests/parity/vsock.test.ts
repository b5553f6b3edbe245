// vsock:// but for the kernel's AF_VSOCK, which only guests connect over: the addon is handed AF_UNIX in its place.
import { describe, vi } from 'vitest'
import * as loader from '../../packages/vsock/src/native/loader.js'
import { addonIfBuilt, standInForVsock } from '../../packages/vsock/testing/addon.js'
import { compare } from './compare.js'
import { scenes } from './scenes/index.mjs'
import { vsock } from './transports.js'

vi.mock('../../packages/vsock/src/native/loader.js', { spy: true })

const addon = addonIfBuilt()
const { counting: _, ...groups } = scenes

describe.runIf(addon)('over AF_UNIX in its place', () => {
  if (!addon) return
  vi.spyOn(loader, 'loadBinding').mockReturnValue(standInForVsock(addon).binding)
  compare(vsock, groups)
})
