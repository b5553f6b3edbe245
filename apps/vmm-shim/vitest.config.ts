import { mergeConfig } from 'vitest/config'
import base from '../../vitest.project.js'

export default mergeConfig(base, {
  test: {
    name: 'vmm-shim',
    include: ['src/**/*.test.ts', 'ui/src/**/*.test.ts'],
    globalSetup: ['testing/build.ts'],
    // The demo's sabotaged runs mostly wait.
    maxConcurrency: 10,
  },
})
