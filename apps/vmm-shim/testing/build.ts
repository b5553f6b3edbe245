// A guest is a process of its own, and so needs a program that Node runs as it is.
import { rm } from 'node:fs/promises'
import type { TestProject } from 'vitest/node'
import { buildPrograms } from '../../../scripts/test-programs.js'

declare module 'vitest' {
  export interface ProvidedContext {
    /** URLs of the programs. */
    programs: { main: string; guest: string }
  }
}

export default async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const app = new URL('../', import.meta.url)
  const name = `node_modules/.test-programs-${process.pid}`
  await buildPrograms(app, { main: 'src/main.ts', guest: 'src/guest/main.ts' }, name)
  const url = (program: string) => new URL(`${name}/${program}.js`, app).href
  provide('programs', { main: url('main'), guest: url('guest') })
  return () => rm(new URL(name, app), { recursive: true, force: true })
}
