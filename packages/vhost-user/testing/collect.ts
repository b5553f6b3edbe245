import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** Collects garbage. The memory of buffers that are collected is given back a little later, so several times. */
export function collectGarbage(): void {
  for (let i = 0; i < 5; i++) gc()
}
