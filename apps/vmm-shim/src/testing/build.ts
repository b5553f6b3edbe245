// A guest is a process of its own, and so needs a program that Node runs as it is. It is built from the sources of all packages, so
// that no build stands between an edit and its test here either.
import { rm } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'tsup'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  export interface ProvidedContext {
    /** URLs of the programs. */
    programs: { main: string; guest: string }
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  // Where Node finds this package's dependencies, and git looks for nothing.
  const outDir = fileURLToPath(new URL(`../../node_modules/.test-programs-${process.pid}`, import.meta.url))
  await build({
    config: false,
    entry: {
      main: fileURLToPath(new URL('../main.ts', import.meta.url)),
      guest: fileURLToPath(new URL('../guest/main.ts', import.meta.url)),
    },
    outDir,
    format: ['esm'],
    target: 'node20',
    tsconfig: fileURLToPath(new URL('../../tsconfig.json', import.meta.url)),
    // tsup would otherwise look into the package.json of whatever folder the tests were started in.
    skipNodeModulesBundle: true,
    noExternal: [/^@upcall\//],
    esbuildOptions: (options) => {
      options.conditions = ['@upcall/source']
    },
    silent: true,
  })
  const url = (name: string) => pathToFileURL(`${outDir}/${name}.js`).href
  provide('programs', { main: url('main'), guest: url('guest') })
  return () => rm(outDir, { recursive: true, force: true })
}
