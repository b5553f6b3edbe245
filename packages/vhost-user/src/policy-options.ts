import { checkNames, integer, wrongType, wrongValue } from '@upcall/foundation/check'
import { MAX_CID } from './check-options.js'
import { MAX_CONNECTIONS } from './defaults.js'
import type { Direction, Limits, Policy, PortRange, Rule, RulePeer } from './machine/policy.js'
import type { Rate } from './machine/token-bucket.js'

/** Allows connections between the guest and a peer. */
export interface PolicyRule {
  /**
   * The other end: `'any'`, `'host'`, the siblings of a group, or the owner of a CID. The CID may be one of those that mean the host.
   */
  readonly peer: RulePeer
  /** The ports that are connected to, each alone or as the first and the last of a range. Default: all. */
  readonly ports?: readonly (number | PortRange)[] | undefined
}

/** A limit over time. */
export interface PolicyRate {
  /** On average, and above 0. Bytes: at least 1024. */
  readonly perSecond: number
  /** At once, after a quiet time. Default: the worth of one second, and at least 1. */
  readonly burst?: number | undefined
}

/** The limits of one direction. What is left out has none. */
export interface DirectionPolicy {
  /** Only these connections are let through; `[]` for none. */
  readonly allow?: readonly PolicyRule[] | undefined
  /** Connections at once that were begun in this direction, those still closing included: 0 to 1023. */
  readonly maxConnections?: number | undefined
  /** New connections. */
  readonly connectionRate?: PolicyRate | undefined
  /**
   * Bytes of packets, each with its header of 44 bytes, of all connections. They wait and are not refused, and so does everything
   * after them: credit, ends and resets.
   */
  readonly byteRate?: PolicyRate | undefined
}

/** What one guest may do. A connection that is refused is a `'refused'` event, and its guest gets a reset at once. */
export interface VsockPolicy {
  /** Connections that the guest begins, and bytes that it sends. */
  readonly fromGuest?: DirectionPolicy | undefined
  /** Connections that the host or a sibling begins, and bytes that the guest receives. */
  readonly toGuest?: DirectionPolicy | undefined
}

const MAX_PORT = 0xffff_ffff
/** Less would hold a packet of 64 KiB, and all after it, for minutes. */
const LEAST_BYTES = 1024
const MOST = 2 ** 40

/** The policy with everything filled in. Undefined allows everything. @throws TypeError, RangeError */
export function checkPolicy(name: string, policy: VsockPolicy | undefined): Policy {
  const given = policy === undefined ? {} : policy
  checkNames(name, given, ['fromGuest', 'toGuest'] satisfies Direction[])
  const { fromGuest, toGuest } = given as VsockPolicy
  return { fromGuest: limitsOf(`${name}.fromGuest`, fromGuest), toGuest: limitsOf(`${name}.toGuest`, toGuest) }
}

function limitsOf(name: string, limits: DirectionPolicy | undefined): Limits {
  const given = limits === undefined ? {} : limits
  checkNames(name, given, ['allow', 'maxConnections', 'connectionRate', 'byteRate'] satisfies (keyof DirectionPolicy)[])
  const { allow, maxConnections, connectionRate, byteRate } = given as DirectionPolicy
  return {
    allow: allow === undefined ? undefined : rulesOf(`${name}.allow`, allow),
    maxConnections:
      maxConnections === undefined ? undefined : integer(`${name}.maxConnections`, maxConnections, { max: MAX_CONNECTIONS }),
    connectionRate: rateOf(`${name}.connectionRate`, connectionRate, Number.MIN_VALUE),
    byteRate: rateOf(`${name}.byteRate`, byteRate, LEAST_BYTES),
  }
}

function rateOf(name: string, rate: PolicyRate | undefined, least: number): Rate | undefined {
  if (rate === undefined) return undefined
  checkNames(name, rate, ['perSecond', 'burst'] satisfies (keyof PolicyRate)[])
  const { perSecond, burst } = rate
  if (typeof perSecond !== 'number' || !(perSecond >= least && perSecond <= MOST))
    wrongValue(
      `${name}.perSecond`,
      least < 1 ? `a number above 0 and up to ${MOST}` : `a number from ${least} to ${MOST}`,
      perSecond,
    )
  if (burst !== undefined) integer(`${name}.burst`, burst, { min: 1, max: MOST })
  return { perSecond, burst: burst ?? Math.max(1, perSecond) }
}

function rulesOf(name: string, rules: readonly PolicyRule[]): readonly Rule[] {
  if (!Array.isArray(rules)) wrongType(name, 'an array of rules', rules)
  return rules.map((rule, index) => ruleOf(`${name}[${index}]`, rule))
}

function ruleOf(name: string, rule: PolicyRule): Rule {
  checkNames(name, rule, ['peer', 'ports'] satisfies (keyof PolicyRule)[])
  const { peer, ports } = rule
  if (ports !== undefined && !Array.isArray(ports)) wrongType(`${name}.ports`, 'an array of ports and ranges', ports)
  return {
    peer: peerOf(`${name}.peer`, peer),
    ports: ports === undefined ? [[0, MAX_PORT]] : ports.map((port, index) => rangeOf(`${name}.ports[${index}]`, port)),
  }
}

function peerOf(name: string, peer: RulePeer): RulePeer {
  if (peer === 'any' || peer === 'host') return peer
  if (typeof peer === 'number') return integer(name, peer, { max: MAX_CID })
  if (typeof peer !== 'object' || peer === null || typeof peer.group !== 'string')
    wrongValue(name, "'any', 'host', a CID or { group }", peer)
  return { group: peer.group }
}

function rangeOf(name: string, port: number | PortRange): PortRange {
  if (!Array.isArray(port)) {
    const only = integer(name, port, { max: MAX_PORT })
    return [only, only]
  }
  if (port.length !== 2) wrongValue(name, 'a port or [first, last]', port)
  const from = integer(`${name}[0]`, port[0], { max: MAX_PORT })
  return [from, integer(`${name}[1]`, port[1], { min: from, max: MAX_PORT })]
}
