import type { Duplex } from 'node:stream'
import { UpcallClient } from '@upcall/client'
import { deviceManagerProtocol } from '@upcall/device-manager'
import { type DirectionPlan, type FakeConnection, type FaultPlan, fakeGuest, faultyDial, ManualClock } from '@upcall/testkit'
import { encodeRequest, MESSAGE_SIZE } from '@upcall/wire'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { mmio, outcomeOf, success } from './support/session.js'

// Any faults on any connections, any number of requests: what the client says of each of them is true.

const offset = fc.oneof(fc.nat(4 * MESSAGE_SIZE), fc.constantFrom(0, 1, 2, 1024, 1025, 1026, 2048, 2049, 2050))
const faults = {
  every: fc.integer({ min: 1, max: 2_000 }),
  cuts: fc.array(offset, { maxLength: 3 }),
  stallAt: offset,
  eofAt: offset,
  resetAt: offset,
}
const write: fc.Arbitrary<DirectionPlan> = fc.record(faults, { requiredKeys: [] })
// A guest may say anything; a stream does not invent requests.
const insert = fc.record({ at: offset, bytes: fc.uint8Array({ minLength: 1, maxLength: 1100 }) })
const read: fc.Arbitrary<DirectionPlan> = fc.record({ ...faults, insert }, { requiredKeys: [] })
const plans: fc.Arbitrary<FaultPlan[]> = fc.array(fc.record({ read, write }, { requiredKeys: [] }), { maxLength: 4 })

/** A whole reply, part of a reply, a reply that never ends, bytes that are not a reply. */
const EXAMPLES: [FaultPlan[], number][] = [
  [[], 1],
  [[{ read: { eofAt: 2 * MESSAGE_SIZE - 1 } }], 1],
  [[{ read: { stallAt: 2 * MESSAGE_SIZE - 1 } }], 1],
  [[{ read: { insert: { at: MESSAGE_SIZE, bytes: new Uint8Array(8) } } }], 1],
]

it('a request is indeterminate only if some of it was written, ok only if the guest answered it, not-sent only if none left', async () => {
  const seen = new Set<string>()
  await fc.assert(
    fc.asyncProperty(plans, fc.integer({ min: 1, max: 5 }), async (plans, requests) => {
      const clock = new ManualClock()
      const answered: string[] = []
      const guest = fakeGuest(async (connection: FakeConnection) => {
        await connection.handshake()
        for (;;) {
          const message = await connection.readMessage()
          answered.push(hex(message))
          await connection.reply(success(mmio()))
        }
      })
      const dial = faultyDial(guest.dial, (number) => plans[number - 1])
      const written: string[] = []
      const client = new UpcallClient({
        dial: async (options) => recorded(await dial(options), written),
        service: deviceManagerProtocol({ arch: 'x86_64' }),
        clock,
        reconnect: { random: () => 0.5 },
      })
      const messages = Array.from({ length: requests }, (_, n) => hex(encodeRequest(mmio(n), 'x86_64')))
      const outcomes = await clock.drive(Promise.all(messages.map((_, n) => outcomeOf(client.request(mmio(n))))))
      for (const [n, outcome] of outcomes.entries()) {
        const times = written.filter((message) => message === messages[n]).length
        if (outcome.startsWith('ok')) {
          expect(times, `request ${n}: ${outcome}`).toBe(1)
          expect(answered).toContain(messages[n])
          // Whatever was inserted, only a whole and valid reply counts; the guest says nothing but 0.
        } else if (outcome.startsWith('indeterminate')) {
          expect(times, `request ${n}: ${outcome}`).toBe(1)
        } else {
          expect(outcome.startsWith('not-sent'), outcome).toBe(true)
          expect(times, `request ${n}: ${outcome}`).toBe(0)
          expect(answered).not.toContain(messages[n])
        }
        seen.add(outcome)
      }
      await client.close()
      await guest.close()
      expect(clock.pending).toBe(0)
    }),
    { numRuns: 300, examples: EXAMPLES },
  )
  // The plans are worth something only if they bring about all of it. With the examples they always do.
  expect([...seen]).toEqual(
    expect.arrayContaining(['ok 0', 'indeterminate DISCONNECTED', 'indeterminate TIMEOUT', 'indeterminate PROTOCOL']),
  )
})

/** Notes every write of a whole message. */
function recorded(stream: Duplex, written: string[]): Duplex {
  const write = stream.write as (chunk: Uint8Array) => boolean
  stream.write = ((chunk: Uint8Array) => {
    if (chunk.length === MESSAGE_SIZE) written.push(hex(chunk))
    return write.call(stream, chunk)
  }) as Duplex['write']
  return stream
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}
