import { rejects, strictEqual } from 'node:assert/strict'
import { Socket } from 'node:net'
import { withoutLeaks } from '../leaks.js'
import { aborted, coded, roundTrip } from './expect.js'
import { Scope, type Test } from './scope.js'
import { closed, echo } from './streams.js'
import type { ComplianceTransport } from './transport.js'

/** The life of a listener, and what it leaves open. */
export function listening<A>(transport: ComplianceTransport<A>): Test<A>[] {
  const { netSocket, descriptors } = transport.features
  return [
    ...closing<A>(),
    ...inUse(transport),
    ...(netSocket ? [keepsAlive<A>()] : []),
    ...(descriptors ? [leavesNothing(transport)] : []),
  ]
}

function closing<A>(): Test<A>[] {
  return [
    [
      'close() ends an iteration that waits, and every later one',
      async (scope) => {
        const listener = await scope.listen()
        const waiting = listener.next()
        await listener.close()
        strictEqual((await waiting).done, true)
        strictEqual((await listener.next()).done, true)
      },
    ],
    [
      'after close() connecting is refused and the address is free again',
      async (scope) => {
        const first = await scope.listen()
        await first.close()
        await rejects(scope.connect(first.address), coded('ECONNREFUSED'))
        const second = await scope.listen(first.address)
        second.serve(echo)
        await roundTrip(scope, await scope.connect(second.address), 5)
      },
    ],
    [
      'close() is idempotent',
      async (scope) => {
        const listener = await scope.listen()
        await Promise.all([listener.close(), listener.close()])
        await listener.close()
      },
    ],
  ]
}

function inUse<A>(transport: ComplianceTransport<A>): Test<A>[] {
  return [
    [
      'listening on an address in use fails with EADDRINUSE and does not disturb its listener',
      async (scope) => {
        const listener = await scope.listen()
        listener.serve(echo)
        await rejects(scope.listen(listener.address), coded('EADDRINUSE'))
        await roundTrip(scope, await scope.connect(listener.address), 5)
      },
    ],
    [
      'listening with an aborted signal fails with ABORTED and its reason',
      async (scope) => {
        const reason = new Error('beforehand')
        await rejects(scope.until(transport.listen({ signal: AbortSignal.abort(reason) })), aborted(reason))
      },
    ],
    [
      'leaving the loop over connections does not close the listener',
      async (scope) => {
        const listener = await scope.until(transport.listen({}))
        scope.defer(() => listener.close())
        for (let i = 0; i < 2; i++) {
          const near = await scope.connect(listener.address)
          const accepted = (async () => {
            for await (const far of listener) return echo(scope.own(far))
          })()
          await scope.until(accepted)
          await roundTrip(scope, near, 9)
        }
      },
    ],
  ]
}

function keepsAlive<A>(): Test<A> {
  return [
    'a connection keeps the process alive until unref(), and again after ref()',
    async (scope) => {
      const { near } = await scope.pair()
      strictEqual(near instanceof Socket, true, 'a net.Socket')
      const socket = near as Socket
      const active = process.getActiveResourcesInfo().length
      strictEqual(socket.unref(), socket)
      strictEqual(process.getActiveResourcesInfo().length, active - 1, 'after unref()')
      strictEqual(socket.ref(), socket)
      strictEqual(process.getActiveResourcesInfo().length, active, 'after ref()')
    },
  ]
}

function leavesNothing<A>(transport: ComplianceTransport<A>): Test<A> {
  return [
    'connections that are over, refused or aborted leave nothing open',
    async (scope) => {
      await scope.until(
        withoutLeaks(async () => {
          const inner = new Scope(transport, scope.signal)
          try {
            const listener = await inner.listen()
            listener.serve(echo)
            for (let i = 0; i < 20; i++) {
              const near = await inner.connect(listener.address)
              await roundTrip(inner, near, 100)
              near.destroy()
              await inner.until(closed(near))
              await rejects(inner.connect(listener.address, { signal: AbortSignal.abort() }), coded('ABORTED'))
            }
            await listener.close()
            await rejects(inner.connect(listener.address), coded('ECONNREFUSED'))
          } finally {
            await inner.close()
          }
        }),
      )
    },
  ]
}
