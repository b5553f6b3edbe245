import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Plugin } from 'vitest/config'
import type { Place } from './mutant-marks.js'

interface Mutant {
  file: string
  find: string
  replace: string
}

const root = new URL('..', import.meta.url)

/**
 * What vitest does to the sources while it loads them, for mutants.mjs: puts one fault into one file if `UPCALL_MUTANT` names one, or
 * marks the places of all faults of the file that `UPCALL_MUTANT_MARKS` names. The files on disk stay as they are.
 */
export function mutant(): Plugin | undefined {
  const { UPCALL_MUTANT: mutant, UPCALL_MUTANT_MARKS: marks } = process.env
  if (mutant !== undefined) return fault(JSON.parse(mutant) as Mutant)
  if (marks !== undefined) return places(JSON.parse(readFileSync(marks, 'utf8')) as Place[])
  return undefined
}

function fault({ file, find, replace }: Mutant): Plugin {
  const path = fileURLToPath(new URL(file, root))
  return {
    name: 'upcall-mutant',
    enforce: 'pre',
    load(id) {
      return id === path ? readFileSync(path, 'utf8').replace(find, () => replace) : undefined
    },
  }
}

function places(all: readonly Place[]): Plugin {
  return {
    name: 'upcall-mutant-marks',
    enforce: 'pre',
    async load(id) {
      const here = all.filter(({ file }) => fileURLToPath(new URL(file, root)) === id)
      if (here.length === 0) return undefined
      // Its parser is large, and only this run needs it.
      const { mark } = await import('./mutant-marks.js')
      return mark(readFileSync(id, 'utf8'), here)
    },
  }
}
