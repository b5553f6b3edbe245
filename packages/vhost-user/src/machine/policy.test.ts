import { describe, expect, test } from 'vitest'
import { checkPolicy, type VsockPolicy } from '../policy-options.js'
import { type Direction, NO_POLICY, type Peer, PolicyGate } from './policy.js'

const HOST: Peer = { isHost: true, cid: 2, groups: new Set() }
const sibling = (cid: number, ...groups: string[]): Peer => ({ isHost: false, cid, groups: new Set(groups) })
const gateOf = (policy?: VsockPolicy, now = 0) => new PolicyGate(checkPolicy('policy', policy), now)

/** Begins a connection if the policy lets it. */
function attempt(gate: PolicyGate, direction: Direction, peer = HOST, port = 1024, now = 0): string {
  const refusal = gate.refusal(direction, peer, port, now)
  if (refusal !== undefined) return refusal
  gate.begin(direction, now)
  return 'open'
}

describe('rules', () => {
  test('without a policy everything is allowed, and nothing is ever waited for', () => {
    expect(checkPolicy('policy', undefined)).toEqual(NO_POLICY)
    const gate = gateOf()
    for (let n = 0; n < 2000; n++) expect(attempt(gate, n % 2 === 0 ? 'fromGuest' : 'toGuest', sibling(n), n)).toBe('open')
    gate.moved('fromGuest', 2 ** 40, 0)
    expect(gate.isOpen('fromGuest', 0)).toBe(true)
    expect(gate.wakeAt).toBe(Number.POSITIVE_INFINITY)
  })

  test.each<[string, VsockPolicy['fromGuest'], [Peer, number, string][]]>([
    ['an empty list allows nothing', { allow: [] }, [[HOST, 0, 'policy-port']]],
    [
      'the host, all ports',
      { allow: [{ peer: 'host' }] },
      [
        [HOST, 0, 'open'],
        [{ ...HOST, cid: 3 }, 0xffff_ffff, 'open'],
        [sibling(4, 'host'), 1024, 'policy-port'],
      ],
    ],
    [
      'ports alone and as a range, the ends included',
      { allow: [{ peer: 'host', ports: [22, [5000, 5001]] }] },
      [
        [HOST, 21, 'policy-port'],
        [HOST, 22, 'open'],
        [HOST, 23, 'policy-port'],
        [HOST, 4999, 'policy-port'],
        [HOST, 5000, 'open'],
        [HOST, 5001, 'open'],
        [HOST, 5002, 'policy-port'],
      ],
    ],
    [
      'a CID, of a sibling or of the host',
      { allow: [{ peer: 3, ports: [1] }] },
      [
        [sibling(3), 1, 'open'],
        [{ ...HOST, cid: 3 }, 1, 'open'],
        [sibling(4), 1, 'policy-port'],
        [HOST, 1, 'policy-port'],
      ],
    ],
    [
      'a group',
      { allow: [{ peer: { group: 'web' } }] },
      [
        [sibling(3, 'db', 'web'), 1, 'open'],
        [sibling(3, 'db'), 1, 'policy-port'],
        [HOST, 1, 'policy-port'],
      ],
    ],
    [
      'one of several',
      {
        allow: [
          { peer: 'host', ports: [1] },
          { peer: 'any', ports: [2] },
        ],
      },
      [
        [HOST, 1, 'open'],
        [sibling(3), 1, 'policy-port'],
        [sibling(3), 2, 'open'],
        [HOST, 2, 'open'],
      ],
    ],
  ])('%s', (_, limits, attempts) => {
    const [gate, other] = [gateOf({ fromGuest: limits }), gateOf({ toGuest: limits })]
    for (const [peer, port, result] of attempts) {
      expect([peer.cid, port, attempt(gate, 'fromGuest', peer, port)]).toEqual([peer.cid, port, result])
      expect([peer.cid, port, attempt(other, 'toGuest', peer, port)]).toEqual([peer.cid, port, result])
      // The other direction has no limits.
      expect(gate.refusal('toGuest', peer, port, 0)).toBeUndefined()
    }
  })
})

describe('connections', () => {
  test('at once, by who began them', () => {
    const gate = gateOf({ fromGuest: { maxConnections: 2 }, toGuest: { maxConnections: 0 } })
    expect(attempt(gate, 'toGuest')).toBe('policy-connections')
    expect([1, 2, 3].map(() => attempt(gate, 'fromGuest'))).toEqual(['open', 'open', 'policy-connections'])
    gate.end('fromGuest')
    expect(attempt(gate, 'fromGuest')).toBe('open')
    expect(attempt(gate, 'fromGuest')).toBe('policy-connections')
    expect(gate.connections('fromGuest')).toBe(2)
  })

  test('a second: what is refused costs nothing', () => {
    const gate = gateOf({ fromGuest: { connectionRate: { perSecond: 0.5, burst: 2 } } })
    expect([1, 2, 3, 4].map(() => attempt(gate, 'fromGuest'))).toEqual(['open', 'open', 'policy-rate', 'policy-rate'])
    expect(attempt(gate, 'fromGuest', HOST, 1, 1999)).toBe('policy-rate')
    expect(attempt(gate, 'fromGuest', HOST, 1, 2000)).toBe('open')
    expect(attempt(gate, 'fromGuest', HOST, 1, 2000)).toBe('policy-rate')
    expect(attempt(gate, 'toGuest', HOST, 1, 2000)).toBe('open')
  })

  test('the reason is the first that no waiting would cure', () => {
    const limits = { allow: [{ peer: 'host' as const }], maxConnections: 1, connectionRate: { perSecond: 1 } }
    const gate = gateOf({ fromGuest: limits })
    expect(attempt(gate, 'fromGuest')).toBe('open')
    expect(attempt(gate, 'fromGuest', sibling(3))).toBe('policy-port')
    expect(attempt(gate, 'fromGuest')).toBe('policy-connections')
    gate.end('fromGuest')
    expect(attempt(gate, 'fromGuest')).toBe('policy-rate')
  })
})

describe('bytes', () => {
  test('a direction closes when its burst is used up, and wakes once when it opens', () => {
    const gate = gateOf({ toGuest: { byteRate: { perSecond: 10_000, burst: 500 } } })
    gate.moved('toGuest', 499, 0)
    expect(gate.isOpen('toGuest', 0)).toBe(true)
    expect(gate.wakeAt).toBe(Number.POSITIVE_INFINITY)
    gate.moved('toGuest', 1001, 0)
    expect(gate.isOpen('toGuest', 0)).toBe(false)
    expect(gate.isOpen('fromGuest', 0)).toBe(true)
    expect(gate.wakeAt).toBe(110)
    gate.wake(109)
    expect(gate.wakeAt).toBe(110)
    gate.wake(110)
    expect([gate.isOpen('toGuest', 110), gate.wakeAt]).toEqual([true, Number.POSITIVE_INFINITY])
  })

  test('packets that moved before anybody was woken leave nothing to wake for', () => {
    const gate = gateOf({ fromGuest: { byteRate: { perSecond: 1024, burst: 1024 } } })
    gate.moved('fromGuest', 1024, 0)
    expect(gate.wakeAt).toBe(10)
    gate.moved('fromGuest', 44, 900)
    expect(gate.wakeAt).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('another policy', () => {
  test('counts what is open, and keeps it', () => {
    const gate = gateOf()
    for (let n = 0; n < 3; n++) gate.begin('fromGuest', 0)
    const policy = checkPolicy('policy', { fromGuest: { maxConnections: 3 } })
    gate.replace(policy, 0)
    expect(gate.policy).toBe(policy)
    expect(attempt(gate, 'fromGuest')).toBe('policy-connections')
    gate.end('fromGuest')
    expect(attempt(gate, 'fromGuest')).toBe('open')
  })

  test('opens what waits, without waiting', () => {
    const gate = gateOf({ fromGuest: { byteRate: { perSecond: 1024 } } })
    gate.moved('fromGuest', 2 ** 20, 0)
    expect(gate.wakeAt).toBeGreaterThan(1_000_000)
    gate.replace(NO_POLICY, 7)
    expect([gate.isOpen('fromGuest', 7), gate.wakeAt]).toEqual([true, 7])
    gate.wake(7)
    expect(gate.wakeAt).toBe(Number.POSITIVE_INFINITY)
  })

  test('a rate that stays keeps what is left of it', () => {
    const limits = { connectionRate: { perSecond: 1, burst: 1 } }
    const gate = gateOf({ fromGuest: limits })
    expect(attempt(gate, 'fromGuest')).toBe('open')
    gate.replace(checkPolicy('policy', { fromGuest: { ...limits, allow: [{ peer: 'host' }] } }), 10)
    expect(attempt(gate, 'fromGuest', HOST, 1, 10)).toBe('policy-rate')
  })
})
