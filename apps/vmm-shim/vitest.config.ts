import { mergeConfig } from 'vitest/config'
import base from '../../vitest.project.js'

export default mergeConfig(base, {
  test: {
    name: 'vmm-shim',
    globalSetup: ['src/testing/build.ts'],
    testTimeout: 30_000,
    // The demo's sabotaged runs mostly wait.
    maxConcurrency: 10,
    hookTimeout: 30_000,
  },
})
