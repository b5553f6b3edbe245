import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { mutant } from './scripts/mutant-plugin.js'

/**
 * The bound on each test, in milliseconds. It is there for tests that hang: on a busy machine the others may take their time. mutants.mjs, which
 * has many of them hang, measures how long they take and asks for less.
 */
export const testTimeout = Number(process.env.UPCALL_MUTANT_TEST_MS ?? 30_000)

/** What every package's vitest.config.ts shares: sources instead of dist/, and a bound on each test. */
export default defineConfig({
  plugins: [mutant()],
  resolve: { conditions: ['@upcall/source'] },
  ssr: { resolve: { conditions: ['@upcall/source'] } },
  test: {
    // No test may reach this machine's real AF_VSOCK by accident: it is connected in guests only.
    env: { UPCALL_VSOCK_ADDON: 'none' },
    include: ['src/**/*.test.ts'],
    setupFiles:
      process.env.UPCALL_MUTANT_MARKS === undefined ? [] : [fileURLToPath(new URL('scripts/mutant-setup.ts', import.meta.url))],
    testTimeout,
    hookTimeout: 30_000,
    expect: { poll: { timeout: 10_000 } },
    server: { deps: { inline: [/@upcall\//] } },
  },
})
