import { deepStrictEqual, rejects, strictEqual } from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import type { Duplex } from 'node:stream'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { aborted, coded, roundTrip } from './expect.js'
import type { Test } from './scope.js'
import { echo, turn } from './streams.js'
import type { ComplianceTransport } from './transport.js'

/** How a connection begins: refusal, abort, deadline, addresses, many at once. */
export function connecting<A>(transport: ComplianceTransport<A>): Test<A>[] {
  return [...one<A>(), ...many<A>(), addresses(transport), ...(transport.mute === undefined ? [] : waiting<A>())]
}

function one<A>(): Test<A>[] {
  return [
    [
      'connect without a listener fails with ECONNREFUSED',
      async (scope) => {
        await rejects(scope.connect(await scope.vacant()), coded('ECONNREFUSED'))
      },
    ],
    [
      'connect with an aborted signal fails with ABORTED and its reason',
      async (scope) => {
        const { address } = await scope.listen()
        const reason = new Error('beforehand')
        await rejects(scope.connect(address, { signal: AbortSignal.abort(reason) }), aborted(reason))
      },
    ],
    [
      'an abort after connect does not touch the connection, and leaves no listener on the signal',
      async (scope) => {
        const listener = await scope.listen()
        const controller = new AbortController()
        const near = await scope.connect(listener.address, { signal: controller.signal })
        strictEqual(getEventListeners(controller.signal, 'abort').length, 0, 'listeners left on the signal')
        echo(await listener.accept())
        controller.abort()
        await turn()
        await roundTrip(scope, near, 7)
      },
    ],
  ]
}

function many<A>(): Test<A>[] {
  return [
    [
      'connections that are not accepted yet wait',
      async (scope) => {
        const listener = await scope.listen()
        const near = await Promise.all([1, 2, 3].map(() => scope.connect(listener.address)))
        for (let i = 0; i < near.length; i++) echo(await listener.accept())
        await Promise.all(near.map((stream, i) => roundTrip(scope, stream, i + 1)))
      },
    ],
    [
      'fifty connections one after the other',
      async (scope) => {
        const listener = await scope.listen()
        listener.serve(echo)
        for (let i = 0; i < 50; i++) {
          const near = await scope.connect(listener.address)
          await roundTrip(scope, near, i + 1)
          near.destroy()
        }
      },
    ],
    [
      'forty connections at once, each with bytes of its own',
      async (scope) => {
        const listener = await scope.listen()
        listener.serve(echo)
        const near = await Promise.all(Array.from({ length: 40 }, () => scope.connect(listener.address)))
        await Promise.all(near.map((stream, i) => roundTrip(scope, stream, 5_000 + i)))
      },
    ],
  ]
}

function addresses<A>(transport: ComplianceTransport<A>): Test<A> {
  return [
    'streams carry the addresses they were made with, and are half-open',
    async (scope) => {
      const { near, far, listener } = await scope.pair()
      const { address } = listener
      const addresses = (stream: Duplex) => stream as Duplex & { local?: unknown; remote?: unknown }
      deepStrictEqual(addresses(near).remote, transport.expectedRemote?.(address))
      deepStrictEqual(addresses(far).local, transport.expectedLocal?.(address))
      strictEqual(near.allowHalfOpen, true)
      strictEqual(far.allowHalfOpen, true)
    },
  ]
}

/** Needs an address where connecting never ends. */
function waiting<A>(): Test<A>[] {
  return [
    [
      'an abort while connecting fails with ABORTED and its reason',
      async (scope) => {
        const mute = await scope.mute()
        const controller = new AbortController()
        const reason = new Error('on the way')
        const connecting = rejects(scope.connect(mute.address, { signal: controller.signal }), aborted(reason))
        await mute.reached
        controller.abort(reason)
        await scope.until(connecting)
      },
    ],
    [
      'connecting ends with its deadline: ETIMEDOUT, and not before',
      async (scope) => {
        const mute = await scope.mute()
        const clock = new ManualClock()
        let settled = false
        const connecting = scope.connect(mute.address, { timeoutMs: 60_000, clock })
        const watched = rejects(connecting, coded('ETIMEDOUT')).finally(() => {
          settled = true
        })
        await mute.reached
        clock.advance(59_999)
        await turn()
        strictEqual(settled, false, 'before the deadline')
        clock.advance(1)
        await scope.until(watched)
        strictEqual(clock.pending, 0, 'timers left')
      },
    ],
  ]
}
