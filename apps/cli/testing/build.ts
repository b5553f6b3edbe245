// Signals, pipes that break and exit statuses are a process's own, so these tests need the program as Node runs it.
import { copyFile, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { TestProject } from 'vitest/node'
import { buildPrograms } from '../../../scripts/test-programs.js'

declare module 'vitest' {
  export interface ProvidedContext {
    /** Path of the program. */
    program: string
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const app = new URL('../', import.meta.url)
  const name = `node_modules/.test-program-${process.pid}`
  const folder = fileURLToPath(new URL(name, app))
  await buildPrograms(app, { main: 'src/main.ts' }, `${name}/dist`)
  // It tells its version, and that what is beside it are modules.
  await copyFile(new URL('package.json', app), `${folder}/package.json`)
  provide('program', `${folder}/dist/main.js`)
  return () => rm(folder, { recursive: true, force: true })
}
