import { getEventListeners } from 'node:events'
import type { FakeConnection, FaultPlan } from '@upcall/testkit'
import { faultyDial, settle } from '@upcall/testkit'
import { encodeReply } from '@upcall/wire'
import { describe, expect, it } from 'vitest'
import { mmio, openGuest, openSession, outcomeOf, success, yes, yesAgain } from './support/session.js'

/** Every byte of the beginning and the end, and some in between. */
const offsets = Array.from({ length: 1024 }, (_, at) => at).filter((at) => at < 24 || at > 1018 || at % 47 === 0)
const SERVICE_BYTE = 1
const GREETING = 1024

/** A first connection that answers `answer` to the first request, and guests that say yes after it. */
const firstAnswers = (answer: (connection: FakeConnection) => Promise<unknown>) => [
  async (connection: FakeConnection) => {
    await connection.handshake()
    await connection.readRequest()
    await answer(connection)
  },
  yes,
]

/** What becomes of a request that meets the fault, and of the next one. */
async function withFault(plan: FaultPlan): Promise<{ first: string; second: string; reasons: string[]; at: number }> {
  const guest = openGuest(yes)
  const session = openSession(faultyDial(guest.dial, (number) => (number === 1 ? plan : undefined)))
  await session.ready()
  const [first, second] = await session.clock.drive(
    Promise.all([outcomeOf(session.client.request(mmio(1))), outcomeOf(session.client.request(mmio(2)))]),
  )
  return { first, second, reasons: session.reconnects.map(({ reason }) => reason), at: session.clock.now() }
}

describe('the way there', () => {
  it('each request leaves in one write of 1024 bytes, the next one after the reply', async () => {
    const guest = openGuest(yes)
    const session = openSession(guest.dial)
    await session.ready()
    await session.clock.drive(Promise.all([1, 2, 3].map((n) => session.client.request(mmio(n)))))
    expect(guest.connections.map(({ chunks }) => chunks)).toEqual([[1, 1024, 1024, 1024]])
  })

  it("EOF of the guest's ears at any byte: indeterminate, and the next request is served", async () => {
    // The guest ends too, as one does whose peer is gone.
    for (const at of offsets) {
      const script = async (connection: FakeConnection) => {
        await connection.handshake()
        await connection.ended
        connection.end()
      }
      const guest = openGuest([script, yes])
      const plan = { write: { eofAt: SERVICE_BYTE + at } }
      const session = openSession(faultyDial(guest.dial, (number) => (number === 1 ? plan : undefined)))
      await session.ready()
      // At byte 0 the stream is at its end before the request, which therefore waits for the next connection.
      expect(await session.run(mmio(1)), `at byte ${at}`).toBe(at === 0 ? 'ok 0' : 'indeterminate DISCONNECTED')
      expect(await session.run(mmio(2)), `after byte ${at}`).toBe('ok 0')
    }
  })

  it('a reset at any byte: indeterminate', async () => {
    for (const at of offsets.filter((at) => at > 0)) {
      const { first, second, reasons } = await withFault({ write: { resetAt: SERVICE_BYTE + at } })
      expect([first, second, reasons], `at byte ${at}`).toEqual(['indeterminate DISCONNECTED', 'ok 0', ['disconnected']])
    }
  })

  it('a stall at any byte: indeterminate after 10 s', async () => {
    for (const at of offsets) {
      const { first, second, at: time } = await withFault({ write: { stallAt: SERVICE_BYTE + at } })
      expect([first, second, time], `at byte ${at}`).toEqual(['indeterminate TIMEOUT', 'ok 0', 10_015])
    }
  })
})

describe('the way back', () => {
  it.each([1, 2, 19, 20, 21, 1023])('a reply in pieces of %i bytes is one reply', async (every) => {
    expect(await withFault({ read: { every } })).toMatchObject({ first: 'ok 0', second: 'ok 0', reasons: [] })
  })

  it('EOF or a reset at any byte: indeterminate, and the next request goes out on a new connection', async () => {
    for (const at of offsets) {
      for (const fault of ['eofAt', 'resetAt'] as const) {
        // The greeting alone, at byte 0, is the idle case below.
        if (at === 0) continue
        const { first, second, reasons } = await withFault({ read: { [fault]: GREETING + at } })
        expect([first, second, reasons], `${fault} ${at}`).toEqual(['indeterminate DISCONNECTED', 'ok 0', ['disconnected']])
      }
    }
  })

  it('EOF or a reset right after the reply: the reply counts, and the next request goes out on a new connection', async () => {
    for (const fault of ['eofAt', 'resetAt'] as const) {
      const { first, second, reasons } = await withFault({ read: { [fault]: GREETING + 1024 } })
      // The second one was on its way when the end came.
      expect([first, second, reasons], fault).toEqual(['ok 0', 'indeterminate DISCONNECTED', ['disconnected']])
    }
  })

  it('a stall at any byte: indeterminate after 10 s, and the rest never reaches anybody', async () => {
    for (const at of offsets) {
      const { first, second, at: time } = await withFault({ read: { stallAt: GREETING + at } })
      expect([first, second, time], `at byte ${at}`).toEqual(['indeterminate TIMEOUT', 'ok 0', 10_015])
    }
  })

  it('one damaged byte in magic, size or type: a protocol error, indeterminate', async () => {
    for (const at of offsets) {
      const reply = encodeReply({ type: 'ADD_MMIO', result: 0 }, 'x86_64')
      reply[at]! ^= 0x40
      const damage = async (connection: FakeConnection) => {
        await connection.write(reply)
        await yesAgain(connection)
      }
      const guest = openGuest(firstAnswers(damage))
      const session = openSession(guest.dial)
      // Bytes 12 … 15 are flags, which are reserved; 16 … 19 are the result; after them nothing is declared.
      const damaged = at < 12
      const result = Buffer.from(reply).readInt32LE(16)
      expect(await session.run(mmio(1)), `byte ${at}`).toBe(damaged ? 'indeterminate PROTOCOL' : `ok ${result}`)
      expect(await session.run(mmio(2)), `after byte ${at}`).toBe('ok 0')
      expect(guest.connections, `connections for byte ${at}`).toHaveLength(damaged ? 2 : 1)
    }
  })

  it('a reply to another type of request does not count', async () => {
    for (const type of ['CONNECT', 'DEL_MMIO', 'ADD_PCI', 'ADD_CPU'] as const) {
      const guest = openGuest(firstAnswers((connection) => connection.reply({ type, result: 0 })))
      const session = openSession(guest.dial)
      expect(await session.run(mmio(1)), type).toBe('indeterminate PROTOCOL')
      expect(await session.run(mmio(2)), type).toBe('ok 0')
    }
  })

  it('garbage in front of a reply is a protocol error', async () => {
    const insert = { at: GREETING, bytes: Buffer.alloc(1024, 0xff) }
    expect(await withFault({ read: { insert } })).toMatchObject({ reasons: ['protocol'], second: 'ok 0' })
  })

  it('a byte too many after a reply: the reply counts, the connection does not', async () => {
    const twice = async (connection: FakeConnection) => {
      const reply = encodeReply({ type: 'ADD_MMIO', result: 0 }, 'x86_64')
      await connection.write(Buffer.concat([reply, reply.subarray(0, 1)]))
    }
    const guest = openGuest(firstAnswers(twice))
    const session = openSession(guest.dial)
    expect(await session.run(mmio(1))).toBe('ok 0')
    expect(await session.run(mmio(2))).toBe('ok 0')
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['protocol'])
    expect(guest.connections.map(({ received }) => received)).toEqual([1025, 1025])
  })

  it('a second reply to one request belongs to no request', async () => {
    const twice = async (connection: FakeConnection) => {
      await connection.reply({ type: 'ADD_MMIO', result: -17 })
      await connection.reply({ type: 'ADD_MMIO', result: -22 })
    }
    const guest = openGuest(firstAnswers(twice))
    const session = openSession(guest.dial)
    expect(await session.run(mmio(1))).toBe('ok -17')
    await settle()
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['protocol'])
    expect(await session.run(mmio(2))).toBe('ok 0')
  })
})

describe('between requests', () => {
  it.each(['end', 'close', 'reset'] as const)("the guest's %s is noticed at once, and nothing is lost", async (how) => {
    const guest = openGuest([(connection) => connection.handshake().then(() => connection[how]()), yes])
    const session = openSession(guest.dial)
    await session.ready()
    await settle()
    expect(session.client.state).toBe('WaitingServer')
    expect(session.states).toEqual(['WaitingService', 'ServiceConnected', 'WaitingServer'])
    expect(await session.run(mmio())).toBe('ok 0')
  })

  it('bytes that were not asked for end the connection', async () => {
    const chatty = async (connection: FakeConnection) => {
      await connection.handshake()
      await connection.write(Buffer.of(1))
    }
    const guest = openGuest([chatty, yes])
    const session = openSession(guest.dial)
    await session.ready()
    await settle()
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['protocol'])
    expect(await session.run(mmio())).toBe('ok 0')
  })
})

describe('silence', () => {
  it('ends after 10 s, for a CPU request after 30 s', async () => {
    const guest = openGuest((connection) => connection.handshake())
    const session = openSession(guest.dial)
    expect(await session.run(mmio())).toBe('indeterminate TIMEOUT')
    expect(session.clock.now()).toBe(10_000)
    await session.ready()
    const start = session.clock.now()
    expect(await session.run({ type: 'ADD_CPU', apicIds: [1] })).toBe('indeterminate TIMEOUT')
    expect(session.clock.now()).toBe(start + 30_000)
  })

  it('a late reply is not taken for the next one', async () => {
    let late!: () => Promise<void>
    const guest = openGuest(
      firstAnswers(async (connection) => {
        late = () => connection.reply({ type: 'ADD_MMIO', result: -17 })
      }),
    )
    const session = openSession(guest.dial)
    const first = outcomeOf(session.client.request(mmio(1), { timeoutMs: 250 }))
    const second = outcomeOf(session.client.request(mmio(2)))
    expect(await session.clock.drive(first)).toBe('indeterminate TIMEOUT')
    expect(session.clock.now()).toBe(250)
    await late().catch(() => {})
    expect(await session.clock.drive(second)).toBe('ok 0')
  })
})

describe('a caller who stops waiting', () => {
  it('while the request waits: not sent, for time and for a signal; the one under way goes on', async () => {
    let answer!: () => Promise<void>
    const guest = openGuest(async (connection) => {
      await connection.handshake()
      const request = await connection.readRequest()
      await new Promise<void>((resolve) => {
        answer = async () => resolve()
      })
      await connection.reply(success(request))
      await yesAgain(connection)
    })
    const session = openSession(guest.dial)
    await session.ready()
    const first = outcomeOf(session.client.request(mmio(1)))
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    const aborted = session.client.request(mmio(2), { signal: controller.signal })
    const late = outcomeOf(session.client.request(mmio(3), { timeoutMs: 50 }))
    const last = outcomeOf(session.client.request(mmio(4)))
    await settle()
    controller.abort(reason)
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', outcome: 'not-sent', cause: reason })
    session.clock.advance(50)
    expect(await late).toBe('not-sent TIMEOUT')
    await answer()
    expect([await first, await last]).toEqual(['ok 0', 'ok 0'])
    expect(guest.connections.map(({ received }) => received)).toEqual([1 + 2 * 1024])
  })

  it('after it was sent: indeterminate, and a new connection for the next', async () => {
    const guest = openGuest([(connection) => connection.handshake(), yes])
    const session = openSession(guest.dial)
    await session.ready()
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    const aborted = session.client.request(mmio(1), { signal: controller.signal })
    const next = outcomeOf(session.client.request(mmio(2)))
    await settle()
    controller.abort(reason)
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED', outcome: 'indeterminate', cause: reason })
    expect(await session.clock.drive(next)).toBe('ok 0')
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['request-aborted'])
  })

  it('not at all: the signal is let go of, whatever the outcome', async () => {
    const guest = openGuest([(connection) => connection.handshake().then(() => connection.silence()), yes])
    const session = openSession(guest.dial)
    const { signal } = new AbortController()
    await session.clock.drive(session.client.ready({ signal }))
    expect(await session.run(mmio(1), { signal })).toBe('indeterminate TIMEOUT')
    expect(await session.run(mmio(2), { signal })).toBe('ok 0')
    expect(getEventListeners(signal, 'abort')).toEqual([])
    expect(session.clock.pending).toBe(0)
  })

  it('before the call: nothing happens', async () => {
    const guest = openGuest(yes)
    const session = openSession(guest.dial)
    await session.ready()
    expect(await outcomeOf(session.client.request(mmio(), { signal: AbortSignal.abort() }))).toBe('not-sent ABORTED')
    expect(guest.connections[0]!.received).toBe(1)
  })
})

describe('the queue', () => {
  it('takes as many as it may hold, and refuses one more', async () => {
    const guest = openGuest(yes)
    const session = openSession(guest.dial, { queue: { limit: 2 } })
    const outcomes = [1, 2, 3].map((n) => outcomeOf(session.client.request(mmio(n))))
    expect(await outcomes[2]).toBe('not-sent QUEUE_FULL')
    expect(await session.clock.drive(Promise.all(outcomes))).toEqual(['ok 0', 'ok 0', 'not-sent QUEUE_FULL'])
  })

  it('is empty, if asked for: a second request is refused while the first one is under way', async () => {
    const guest = openGuest(yes)
    const session = openSession(guest.dial, { queue: 'busy' })
    const outcomes = [1, 2].map((n) => outcomeOf(session.client.request(mmio(n))))
    expect(await session.clock.drive(Promise.all(outcomes))).toEqual(['ok 0', 'not-sent BUSY'])
    expect(await session.run(mmio(3))).toBe('ok 0')
  })

  it('outlives a connection that breaks', async () => {
    const guest = openGuest([
      ...firstAnswers(async (connection) => connection.reset()).slice(0, 1),
      async (connection) => {
        await connection.handshake()
        await connection.reply(success(await connection.readRequest()))
        connection.end()
      },
      yes,
    ])
    const session = openSession(guest.dial)
    await session.ready()
    const outcomes = [1, 2, 3, 4].map((n) => outcomeOf(session.client.request(mmio(n))))
    const [first, second, , fourth] = await session.clock.drive(Promise.all(outcomes))
    expect([first, second, fourth]).toEqual(['indeterminate DISCONNECTED', 'ok 0', 'ok 0'])
  })
})

describe('close()', () => {
  it('rejects what is under way as indeterminate and what waits as not sent, and is over when the stream has closed', async () => {
    const guest = openGuest((connection) => connection.handshake())
    const dial = faultyDial(guest.dial, {})
    const session = openSession(dial)
    await session.ready()
    const outcomes = [1, 2, 3].map((n) => outcomeOf(session.client.request(mmio(n))))
    await settle()
    const closed = session.client.close()
    expect(session.client.close()).toBe(closed)
    await closed
    expect(dial.streams.map(({ closed }) => closed)).toEqual([true])
    expect(await Promise.all(outcomes)).toEqual(['indeterminate CLOSED', 'not-sent CLOSED', 'not-sent CLOSED'])
    expect(session.clock.pending).toBe(0)
    expect(await outcomeOf(session.client.request(mmio()))).toBe('not-sent CLOSED')
    expect(session.client.state).toBe('Closed')
  })

  it('ends an attempt that hangs', async () => {
    let signal: AbortSignal | undefined
    const session = openSession((options) => {
      signal = options.signal
      return new Promise((_resolve, reject) => options.signal.addEventListener('abort', () => reject(options.signal.reason)))
    })
    const waiting = outcomeOf(session.client.request(mmio()))
    await settle()
    await session.client.close()
    expect(signal?.aborted).toBe(true)
    expect(await waiting).toBe('not-sent CLOSED')
  })
})
