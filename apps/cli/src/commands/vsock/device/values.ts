// The texts that an option, a pair of --vm or a key of the file may have as its value. Each function gives the value, or what is wrong.

import type { PolicyRate, PolicyRule } from '@upcall/vhost-user'
import { parseDuration } from '../../../options.js'
import { parseMode } from '../options.js'

export type Parsed<T> = { readonly value: T } | { readonly wrong: string }

/** What a list is written with, as in 9001+9002. */
export const SEPARATOR = '+'

export const MAX_CID = 0xffff_fffe
const MAX_PORT = 0xffff_fffe

/** A path as it was written. */
export function path(text: string): Parsed<string> {
  return text === '' ? { wrong: 'must be a path' } : { value: text }
}

/** Permissions of a file. */
export function fileMode(text: string): Parsed<number> {
  try {
    return { value: parseMode(text) }
  } catch {
    return { wrong: 'must be three octal digits, as in 660' }
  }
}

export function wholeNumber(min: number, max: number): (text: string) => Parsed<number> {
  return (text) => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
    return value >= min && value <= max ? { value } : { wrong: `must be a whole number from ${min} to ${max}` }
  }
}

/** Devices ask for a power of two: the ring's size. */
export function powerOfTwo(max: number): (text: string) => Parsed<number> {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : 0
    return value > 0 && value <= max && (value & (value - 1)) === 0 ? { value } : { wrong: `must be a power of two up to ${max}` }
  }
}

const units: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }

/** A number of bytes, K, M or G after it as powers of 1024. */
export function bytes(min: number, max: number): (text: string) => Parsed<number> {
  return (text) => {
    const [, count, unit = ''] = /^(\d{1,13})([KMG]?)$/i.exec(text) ?? []
    const value = count === undefined ? Number.NaN : Number(count) * units[unit.toUpperCase()]!
    return value >= min && value <= max ? { value } : { wrong: `must be a number of bytes from ${min} to ${max}, as in 64K` }
  }
}

export function milliseconds(text: string): Parsed<number> {
  try {
    return { value: Math.max(1, Math.round(parseDuration(text))) }
  } catch {
    return { wrong: 'must be a number and its unit, up to 24 days: 500ms, 5s or 2m' }
  }
}

export function yesOrNo(text: string): Parsed<boolean> {
  const value = { true: true, yes: true, false: false, no: false }[text]
  return value === undefined ? { wrong: 'must be true or false' } : { value }
}

/** A list, each of its parts once. An empty text is an empty list. */
export function listOf<T>(what: string, part: (text: string) => Parsed<T>): (text: string) => Parsed<readonly T[]> {
  return (text) => {
    const texts = text === '' ? [] : text.split(SEPARATOR)
    const values: T[] = []
    for (const each of texts) {
      const parsed = part(each)
      if ('wrong' in parsed) return { wrong: `${JSON.stringify(each)} in its list ${parsed.wrong}` }
      values.push(parsed.value)
    }
    return new Set(texts).size === texts.length ? { value: values } : { wrong: `must name ${what} once each` }
  }
}

export const ports = listOf('ports', wholeNumber(0, MAX_PORT))

export const groups = listOf('groups', (text) => (text === '' ? { wrong: 'must have a name' } : { value: text }))

/** `any`, or CIDs. */
export function hostCids(text: string): Parsed<readonly number[] | 'any'> {
  if (text === 'any') return { value: 'any' }
  const list = listOf('CIDs', wholeNumber(0, MAX_CID))(text)
  return 'value' in list && list.value.length === 0 ? { wrong: 'must be any, or CIDs as in 2+3' } : list
}

const RULE = 'must be a rule as in host, host:1024, any:5000-5010, 4:22 or group/web:80'

/** `<peer>[:<port>[-<port>]]`, the peer being `any`, `host`, a CID or `group/<name>`. */
function rule(text: string): Parsed<PolicyRule> {
  const [, peerText, from, to = from] = /^(.*?)(?::(\d{1,10})(?:-(\d{1,10}))?)?$/s.exec(text) ?? []
  const peer = rulePeer(peerText ?? '')
  if (peer === undefined) return { wrong: RULE }
  if (from === undefined) return { value: { peer } }
  const range = [Number(from), Number(to)] as const
  return range[0] <= range[1] && range[1] <= MAX_PORT ? { value: { peer, ports: [range] } } : { wrong: RULE }
}

function rulePeer(text: string): PolicyRule['peer'] | undefined {
  if (text === 'any' || text === 'host') return text
  const cid = wholeNumber(0, MAX_CID)(text)
  if ('value' in cid) return cid.value
  const [, group] = /^group\/(.+)$/s.exec(text) ?? []
  return group === undefined ? undefined : { group }
}

export const rules = listOf('rules', rule)

/** `<a second>[:<at once>]` */
export function rate(number: (text: string) => Parsed<number>): (text: string) => Parsed<PolicyRate> {
  return (text) => {
    const [, perSecond = '', burst] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? []
    const parsed = [number(perSecond), ...(burst === undefined ? [] : [number(burst)])]
    for (const each of parsed)
      if ('wrong' in each) return { wrong: `${each.wrong}, and may be followed by a colon and what may come at once` }
    const [rate, atOnce] = parsed as { value: number }[]
    return { value: { perSecond: rate!.value, ...(atOnce !== undefined && { burst: atOnce.value }) } }
  }
}
