// Signals, pipes that break and exit statuses are a process's own, so these tests need the program as Node runs it. It is built from the
// sources of all packages: no build stands between an edit and its test.
import { copyFile, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { build } from 'tsup'
import type { TestProject } from 'vitest/node'

declare module 'vitest' {
  export interface ProvidedContext {
    /** Path of the program. */
    program: string
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const own = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
  // Where Node finds this package's dependencies, and git looks for nothing.
  const folder = own(`node_modules/.test-program-${process.pid}`)
  await build({
    config: false,
    entry: { main: own('src/main.ts') },
    outDir: `${folder}/dist`,
    format: ['esm'],
    target: 'node20',
    tsconfig: own('tsconfig.json'),
    noExternal: [/^@upcall\//],
    esbuildOptions: (options) => {
      options.conditions = ['@upcall/source']
    },
    silent: true,
  })
  // It tells its version, and that what is beside it are modules.
  await copyFile(own('package.json'), `${folder}/package.json`)
  provide('program', `${folder}/dist/main.js`)
  return () => rm(folder, { recursive: true, force: true })
}
