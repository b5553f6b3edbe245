import { expect, it } from 'vitest'
import { reasonOf } from './qmp-text.js'

// As QEMU 7.2 says it.
it.each([
  ['Failed to get "write" lock', 'lock'],
  ['Failed to get shared "consistent read" lock', 'lock'],
  ["Duplicate device ID 'pci-net'", 'duplicate-id'],
  ["Duplicate ID 'pci-net' for device", 'duplicate-id'],
  ['Device pci-data is already in the process of unplug', 'unplug-in-progress'],
  ["Device 'x' not found", undefined],
  ['Block device is locked-down', undefined],
  ['', undefined],
])('%s', (description, reason) => expect(reasonOf(description)).toBe(reason))
