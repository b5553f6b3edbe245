import type { Duplex } from 'node:stream'
import { wrongType } from '@upcall/foundation/check'

const METHODS = ['on', 'once', 'pause', 'resume', 'write', 'end', 'destroy']

/** @throws TypeError */
export function checkDuplex(name: string, value: unknown): asserts value is Duplex {
  const is = typeof value === 'object' && value !== null && METHODS.every((key) => typeof Reflect.get(value, key) === 'function')
  if (!is) wrongType(name, 'a Duplex stream', value)
}
