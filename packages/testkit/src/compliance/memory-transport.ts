import { duplexPair } from '../duplex-pair.js'
import { StreamQueue } from './stream-queue.js'
import type { ComplianceTransport } from './transport.js'

/** Connections in memory, between numbers. */
export function memoryTransport(): ComplianceTransport<number> {
  // The queue of each number that is listened on; undefined for a mute one.
  const listeners = new Map<number, () => StreamQueue | undefined>()
  let last = 0

  return {
    name: 'memory',
    features: { halfClose: true, netSocket: false, descriptors: false },
    async listen({ address = ++last, signal }) {
      if (signal?.aborted) throw failure('ABORTED', `listen ${address}: aborted`, signal.reason)
      if (listeners.has(address)) throw failure('EADDRINUSE', `listen ${address}: the address is in use`)
      const queue = new StreamQueue()
      const answer = () => queue
      listeners.set(address, answer)
      return {
        address,
        async close() {
          if (listeners.get(address) === answer) listeners.delete(address)
          queue.close()
        },
        [Symbol.asyncIterator]: () => queue[Symbol.asyncIterator](),
      }
    },
    async connect(address, { signal, timeoutMs, clock }) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) throw failure('ABORTED', `connect ${address}: aborted`, signal.reason)
        let cancel = () => {}
        const onAbort = () => settle(() => reject(failure('ABORTED', `connect ${address}: aborted`, signal?.reason)))
        const settle = (fn: () => void) => {
          cancel()
          signal?.removeEventListener('abort', onAbort)
          fn()
        }
        const listener = listeners.get(address)
        if (listener === undefined) throw failure('ECONNREFUSED', `connect ${address}: there is no listener`)
        signal?.addEventListener('abort', onAbort)
        if (timeoutMs !== undefined && clock !== undefined) {
          cancel = clock.setTimer(timeoutMs, () => settle(() => reject(failure('ETIMEDOUT', `connect ${address}: no answer`))))
        }
        const queue = listener()
        if (queue === undefined) return
        const [near, far] = duplexPair()
        queue.push(far)
        settle(() => resolve(near))
      })
    },
    async vacant() {
      return { address: ++last, close: async () => {} }
    },
    async mute() {
      const address = ++last
      let reach!: () => void
      const reached = new Promise<void>((resolve) => {
        reach = resolve
      })
      listeners.set(address, () => {
        reach()
        return undefined
      })
      return { address, reached, close: async () => void listeners.delete(address) }
    },
  }
}

function failure(code: string, message: string, cause?: unknown): Error {
  return Object.assign(new Error(message, cause === undefined ? undefined : { cause }), { code })
}
