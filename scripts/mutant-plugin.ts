import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Plugin } from 'vitest/config'

interface Mutant {
  file: string
  find: string
  replace: string
}

/**
 * Puts one fault into one source file while vitest loads it, if `UPCALL_MUTANT` names one (see mutants.mjs). The files on disk stay as
 * they are.
 */
export function mutant(): Plugin | undefined {
  if (process.env.UPCALL_MUTANT === undefined) return undefined
  const { file, find, replace } = JSON.parse(process.env.UPCALL_MUTANT) as Mutant
  const path = fileURLToPath(new URL(`../${file}`, import.meta.url))
  return {
    name: 'upcall-mutant',
    enforce: 'pre',
    load(id) {
      return id === path ? readFileSync(path, 'utf8').replace(find, () => replace) : undefined
    },
  }
}
