import type { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import type { FaultPlan } from '../fault-plan.js'
import { faulty } from '../faulty.js'
import { transportCompliance } from './index.js'
import { memoryTransport } from './memory-transport.js'
import type { ComplianceTransport } from './transport.js'

type Transport = ComplianceTransport<number>

const connectWith = (change: (stream: Duplex, signal: AbortSignal | undefined) => Duplex) => (memory: Transport) => ({
  ...memory,
  connect: async (address: number, options: { signal?: AbortSignal | undefined }) =>
    change(await memory.connect(address, options), options.signal),
})
const withFaults = (plan: FaultPlan) => connectWith((stream) => faulty(stream, plan))

// A transport with each of these mistakes fails the test named after it.
const mistakes: [what: string, make: (memory: Transport) => Transport, fails: string][] = [
  [
    'calls a refusal something else',
    (memory) => ({
      ...memory,
      vacant: async () => ({ address: -1, close: async () => {} }),
      connect: refuseAs('ENOENT', memory),
    }),
    'connect without a listener fails with ECONNREFUSED',
  ],
  [
    'does not look at the signal',
    (memory) => ({ ...memory, connect: (address, { signal: _, ...options }) => memory.connect(address, options) }),
    'connect with an aborted signal fails with ABORTED and its reason',
  ],
  [
    'does not look at the signal on the way',
    (memory) => ({
      ...memory,
      connect: (address, { signal, ...options }) => memory.connect(address, signal?.aborted ? { signal } : options),
    }),
    'an abort while connecting fails with ABORTED and its reason',
  ],
  [
    'knows no deadline',
    (memory) => ({ ...memory, connect: (address, { signal }) => memory.connect(address, { signal }) }),
    'connecting ends with its deadline: ETIMEDOUT, and not before',
  ],
  [
    'keeps the signal beyond connecting',
    connectWith((stream, signal) => {
      signal?.addEventListener('abort', () => stream.destroy())
      return stream
    }),
    'an abort after connect does not touch the connection, and leaves no listener on the signal',
  ],
  [
    'has other addresses than it says',
    (memory) => ({ ...memory, expectedRemote: (address) => address }),
    'streams carry the addresses they were made with, and are half-open',
  ],
  ['adds a byte', withFaults({ write: { insert: { at: 5_000, bytes: Buffer.from('!') } } }), 'odd sizes come back unchanged'],
  [
    'loses what comes early',
    connectWith((stream) => {
      stream.once('data', () => {})
      return stream
    }),
    'what the accepting end sends first is there for a connecting end that reads late',
  ],
  ['ends too early', withFaults({ read: { eofAt: 1_000_000 } }), 'one MiB each way at the same time arrives unchanged'],
  [
    'drops the last bytes before EOF',
    withFaults({ read: { eofAt: 299_999 } }),
    'what was written before end() arrives before EOF',
  ],
  [
    'never holds a writer back',
    connectWith((stream) => {
      const write = stream.write as (chunk: Buffer) => boolean
      // Each write is through at once, whether or not the other end reads.
      stream.write = function (this: Duplex, chunk: Buffer, done?: (error?: Error | null) => void) {
        setImmediate(() => done?.())
        return write.call(this, chunk)
      } as Duplex['write']
      return stream
    }),
    'a reader that does not read holds its writer back, and loses nothing',
  ],
  [
    'ends both ways when one ends',
    connectWith((stream) => stream.once('end', () => stream.end())),
    'EOF reaches the connecting end, which stays writable',
  ],
  [
    'swallows EOF',
    connectWith((stream) => {
      const { push } = stream
      stream.push = (chunk, encoding) => chunk === null || push.call(stream, chunk, encoding)
      return stream
    }),
    'when both ends have ended, both close without an error',
  ],
  [
    'has no half-close but says so',
    connectWith((stream) => stream.once('prefinish', () => stream.destroy())),
    'half-close by the connecting end: the accepting end reads to EOF and then answers at length',
  ],
  [
    'does not tell a reader of a reset',
    connectWith((stream) => {
      stream.destroy = () => stream
      return stream
    }),
    'destroy(error) with bytes unread is an error or EOF at the other end, nothing else',
  ],
  [
    'never ends an iteration',
    listenWith((listener) => ({ ...listener, close: async () => {} })),
    'close() ends an iteration that waits, and every later one',
  ],
  [
    'lets two listen on one address',
    (memory) => ({ ...memory, listen: ({ signal }) => memory.listen({ signal }) }),
    'listening on an address in use fails with EADDRINUSE and does not disturb its listener',
  ],
  [
    'closes when a loop is left',
    listenWith((listener) => ({
      ...listener,
      [Symbol.asyncIterator]: () => {
        const inner = listener[Symbol.asyncIterator]()
        return {
          next: () => inner.next(),
          return: async () => {
            await listener.close()
            return { done: true, value: undefined }
          },
        }
      },
    })),
    'leaving the loop over connections does not close the listener',
  ],
]

const named = (transport: Transport, wanted: string, timeoutMs?: number) =>
  transportCompliance(transport, { timeoutMs }).find(({ name }) => name === wanted)!

describe('the suite notices a transport that', () => {
  it.each(mistakes)('%s', async (_what, make, fails) => {
    // The sound transport passes, so the mistake is what fails the damaged one.
    await named(memoryTransport(), fails).run()
    await expect(named(make(memoryTransport()), fails, 300).run()).rejects.toThrow()
  })
})

it('a test ends when its signal aborts, whatever the transport does', async () => {
  const stuck = { ...memoryTransport(), listen: () => new Promise<never>(() => {}) }
  const controller = new AbortController()
  const reason = new Error('enough')
  const running = named(stuck, 'close() is idempotent').run(controller.signal)
  controller.abort(reason)
  await expect(running).rejects.toBe(reason)
})

function refuseAs(code: string, memory: Transport): Transport['connect'] {
  return (address, options) => memory.connect(address, options).catch((error) => Promise.reject(Object.assign(error, { code })))
}

function listenWith(change: (listener: Awaited<ReturnType<Transport['listen']>>) => Awaited<ReturnType<Transport['listen']>>) {
  return (memory: Transport): Transport => ({
    ...memory,
    listen: async (options) => change(await memory.listen(options)),
  })
}
