import { expect, test } from 'vitest'
import { checkPolicy } from './policy-options.js'

const check = (policy: unknown) => checkPolicy('policy', policy as never)

test.each<[unknown, string]>([
  [5, 'policy: must be an object, got 5'],
  [null, 'policy: must be an object, got null'],
  [{ from: {} }, 'policy: the key: must be one of fromGuest, toGuest, got "from"'],
  [{ toGuest: [] }, 'policy.toGuest: must be an object, got []'],
  [
    { toGuest: { port: 1 } },
    'policy.toGuest: the key: must be one of allow, maxConnections, connectionRate, byteRate, got "port"',
  ],
  [{ toGuest: { allow: 'host' } }, 'policy.toGuest.allow: must be an array of rules, got "host"'],
  [{ toGuest: { allow: [1] } }, 'policy.toGuest.allow[0]: must be an object, got 1'],
  [{ toGuest: { allow: [{}] } }, "policy.toGuest.allow[0].peer: must be 'any', 'host', a CID or { group }, got undefined"],
  [
    { toGuest: { allow: [{ peer: 'hosts' }] } },
    "policy.toGuest.allow[0].peer: must be 'any', 'host', a CID or { group }, got \"hosts\"",
  ],
  [{ toGuest: { allow: [{ peer: -1 }] } }, 'policy.toGuest.allow[0].peer: must be an integer from 0 to 4294967294, got -1'],
  [
    { toGuest: { allow: [{ peer: 'any', port: 1 }] } },
    'policy.toGuest.allow[0]: the key: must be one of peer, ports, got "port"',
  ],
  [
    { toGuest: { allow: [{ peer: 'any', ports: 1 }] } },
    'policy.toGuest.allow[0].ports: must be an array of ports and ranges, got 1',
  ],
  [
    { fromGuest: { allow: [{ peer: 'any' }, { peer: 'any', ports: [1, 1.5] }] } },
    'policy.fromGuest.allow[1].ports[1]: must be an integer from 0 to 4294967295, got 1.5',
  ],
  [
    { fromGuest: { allow: [{ peer: 'any', ports: [[9, 8]] }] } },
    'policy.fromGuest.allow[0].ports[0][1]: must be an integer from 9 to 4294967295, got 8',
  ],
  [
    { fromGuest: { allow: [{ peer: 'any', ports: [[9]] }] } },
    'policy.fromGuest.allow[0].ports[0]: must be a port or [first, last], got',
  ],
  [{ fromGuest: { maxConnections: 1024 } }, 'policy.fromGuest.maxConnections: must be an integer from 0 to 1023, got 1024'],
  [{ fromGuest: { connectionRate: 5 } }, 'policy.fromGuest.connectionRate: must be an object, got 5'],
  [
    { fromGuest: { connectionRate: { perSecond: 0 } } },
    'policy.fromGuest.connectionRate.perSecond: must be a number above 0 and up to 1099511627776, got 0',
  ],
  [
    { fromGuest: { connectionRate: { perSecond: 1, burst: 0.5 } } },
    'policy.fromGuest.connectionRate.burst: must be an integer from 1 to 1099511627776, got 0.5',
  ],
  [
    { fromGuest: { byteRate: { perSecond: 1023 } } },
    'policy.fromGuest.byteRate.perSecond: must be a number from 1024 to 1099511627776, got 1023',
  ],
  [{ fromGuest: { byteRate: { perSecond: Number.NaN } } }, 'policy.fromGuest.byteRate.perSecond: must be'],
])('%j is refused', (policy, message) => {
  expect(() => check(policy)).toThrow(message)
})

test('what is left out has no limit; a burst is a second of its rate, and at least 1', () => {
  const { fromGuest, toGuest } = check({
    fromGuest: { connectionRate: { perSecond: 0.1 }, byteRate: { perSecond: 4096 } },
    toGuest: { allow: [{ peer: { group: 'web' } }, { peer: 7, ports: [1, [2, 3]] }] },
  })
  expect(fromGuest).toEqual({
    allow: undefined,
    maxConnections: undefined,
    connectionRate: { perSecond: 0.1, burst: 1 },
    byteRate: { perSecond: 4096, burst: 4096 },
  })
  expect(toGuest.allow).toEqual([
    { peer: { group: 'web' }, ports: [[0, 0xffff_ffff]] },
    {
      peer: 7,
      ports: [
        [1, 1],
        [2, 3],
      ],
    },
  ])
})
