import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

let gc: (() => void) | undefined

/** Collects garbage, `times` times: the memory of buffers that are collected is given back a little later. */
export function collectGarbage(times = 1): void {
  gc ??= exposed()
  for (let i = 0; i < times; i++) gc()
}

function exposed(): () => void {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc')
}
