import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'
import { MutantSequencer } from './scripts/mutant-sequencer.js'

// Tests run against the sources of every package (the @upcall/source condition), so no build stands between an edit and its
// test. What is published (dist/, the tarballs) is tested by tests/packages.
export default defineConfig({
  test: {
    projects: ['packages/*', 'apps/*', 'tests'],
    // On two cores vitest's own choice is one worker.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    ...(process.env.UPCALL_MUTANT_ORDER !== undefined && { sequence: { sequencer: MutantSequencer } }),
  },
})
