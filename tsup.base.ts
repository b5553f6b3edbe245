import type { Options } from 'tsup'

/**
 * How every published library is built: ESM and CJS, each with its own declarations, and source maps that lead back to the
 * shipped src/. Dependencies stay external, so each package can be upgraded on its own.
 */
export function library(entry: string[] = ['src/index.ts']): Options {
  return {
    entry,
    format: ['esm', 'cjs'],
    target: 'node20',
    dts: true,
    sourcemap: true,
    clean: true,
    treeshake: true,
    tsconfig: 'tsconfig.build.json',
  }
}
