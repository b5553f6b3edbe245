import { defineConfig } from 'vitest/config'

// Tests run against the sources of every package (the @upcall/source condition), so no build stands between an edit and its
// test. What is published (dist/, the tarballs) is tested by tests/packages.
export default defineConfig({
  test: { projects: ['packages/*', 'apps/*', 'tests'] },
})
