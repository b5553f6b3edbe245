// What may be typed into the forms. Each answers with what is wrong, in words, or with nothing. Pure.

import type { About } from '../../src/page/events.js'
import { bytes, parseBytes } from './units.js'

export function checkCpus(text: string, max: number): string | undefined {
  if (/^\s*\d+\s*$/.test(text) && Number(text) >= 1 && Number(text) <= max) return undefined
  return `Enter a whole number from 1 to ${max}.`
}

export function checkMemory(text: string, { boot, max, block }: About['memory']): string | undefined {
  const count = parseBytes(text)
  if (Number.isNaN(count)) return 'Enter a number of MiB, or a size such as 768M or 1.5G.'
  if (count < boot || count > max) return `Enter ${bytes(boot)} to ${bytes(max)}.`
  if (count % block !== 0) return `Enter a multiple of ${bytes(block)}.`
  return undefined
}

export function checkId(text: string, taken: readonly string[]): string | undefined {
  if (text === '') return 'Enter an id: a name that you choose, such as disk1.'
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(text)) return 'An id has 1 to 64 letters, digits, dots, dashes or underscores.'
  if (taken.includes(text)) return `There is a device with the id ${text} already. Choose another one.`
  return undefined
}

export function checkPath(text: string): string | undefined {
  if (text === '') return 'Enter the path of a file on this host.'
  return text.includes('\0') || text.length > 4095 ? 'A path has at most 4095 characters, without NUL.' : undefined
}

export function checkBdf(text: string): string | undefined {
  if (text === '' || /^(?:0000:)?[0-9a-f]{1,2}:[01]?[0-9a-f][.][0-7]$/i.test(text)) return undefined
  return 'An address has a bus, a slot up to 1f and a function up to 7, such as 00:05.0.'
}
