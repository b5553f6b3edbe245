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
    // The foundation is private: each library carries what it uses of it, declarations included.
    noExternal: [/^@upcall\/foundation/],
    dts: { compilerOptions: { baseUrl: '.', paths: { '@upcall/foundation/*': ['../foundation/src/*.ts'] } } },
    // `node:` stays, so that a bundler knows what is a module of the platform.
    removeNodeProtocol: false,
    sourcemap: true,
    clean: true,
    treeshake: true,
    tsconfig: 'tsconfig.build.json',
  }
}
