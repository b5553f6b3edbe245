import { isUpcallError } from '@upcall/client'
import { dialSequence, faultyDial, settle } from '@upcall/testkit'
import { encodeConnect } from '@upcall/wire'
import { describe, expect, it } from 'vitest'
import { mmio, openGuest, openSession, outcomeOf, yes, yesAgain } from './support/session.js'

const refused = () => Object.assign(new Error('refused'), { code: 'ECONNREFUSED', retryable: true })

describe('dialling', () => {
  it('is repeated with growing delays until the guest answers, and waiting requests then go out', async () => {
    const guest = openGuest(yes)
    const dial = dialSequence(refused(), refused(), refused(), guest.dial)
    const session = openSession(dial)
    expect(await session.run(mmio())).toBe('ok 0')
    expect(dial.attempts).toBe(4)
    expect(session.reconnects.map(({ attempt, delayMs, reason }) => [attempt, delayMs, reason])).toEqual([
      [1, 15, 'dial-failed'],
      [2, 25, 'dial-failed'],
      [3, 45, 'dial-failed'],
    ])
    expect(session.states).toEqual(['WaitingService', 'ServiceConnected', 'ServiceBusy', 'ServiceConnected'])
  })

  it('is aborted after 5 s of silence', async () => {
    const guest = openGuest(yes)
    const signals: AbortSignal[] = []
    const attempts = dialSequence('silence', guest.dial)
    const session = openSession((options) => {
      signals.push(options.signal)
      return attempts(options)
    })
    const ready = session.client.ready()
    await settle()
    session.clock.advance(4_999)
    expect(signals.map(({ aborted }) => aborted)).toEqual([false])
    session.clock.advance(1)
    expect(signals[0]!.aborted).toBe(true)
    await session.clock.drive(ready)
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['dial-timeout'])
  })

  it('is not repeated after a final error: everything is rejected, unsent, until reconnect()', async () => {
    const guest = openGuest(yes)
    const final = Object.assign(new Error('no permission'), { retryable: false })
    const session = openSession(dialSequence(final, guest.dial))
    const waiting = outcomeOf(session.client.request(mmio()))
    await expect(session.clock.drive(session.client.ready())).rejects.toMatchObject({ code: 'UNREACHABLE', cause: final })
    expect(await waiting).toBe('not-sent UNREACHABLE')
    expect(session.client.state).toBe('ReconnectError')
    await expect(session.client.ready()).rejects.toMatchObject({ code: 'UNREACHABLE', outcome: 'not-sent', cause: final })
    expect(await outcomeOf(session.client.request(mmio()))).toBe('not-sent UNREACHABLE')
    session.client.reconnect()
    expect(await session.run(mmio())).toBe('ok 0')
  })

  it('ends when 30 s have passed without a ready state, and names the last failure', async () => {
    const error = refused()
    const session = openSession(dialSequence(error))
    const result = await session.clock.drive(session.client.request(mmio()).catch((error: unknown) => error))
    expect(session.clock.now()).toBe(30_000)
    expect(isUpcallError(result) && [result.code, result.outcome]).toEqual(['UNREACHABLE', 'not-sent'])
    expect((result as Error).cause).toMatchObject({ code: 'TIMEOUT', cause: error })
    expect(session.clock.pending).toBe(0)
  })

  it('has its full budget again after every ready state', async () => {
    // 20 s of refusals before each of three connections: more than one budget in all.
    const guest = openGuest([(connection) => connection.handshake().then(() => connection.close()), yes])
    let openAt = 20_000
    const session = openSession(async (options) => {
      if (session.clock.now() < openAt) throw refused()
      openAt = session.clock.now() + 20_000
      return guest.dial(options)
    })
    await session.ready()
    await settle()
    expect(session.client.state).toBe('WaitingServer')
    expect(await session.run(mmio())).toBe('ok 0')
    expect(session.clock.now()).toBeGreaterThan(40_000)
  })

  it('once only, if told not to reconnect', async () => {
    const dial = dialSequence(refused())
    const session = openSession(dial, { reconnect: false })
    expect(await session.run(mmio())).toBe('not-sent UNREACHABLE')
    expect(dial.attempts).toBe(1)
  })
})

describe('a guest in the middle of its boot', () => {
  it('accepts and hangs up: tried again, not sent', async () => {
    const guest = openGuest([(connection) => connection.close(), (connection) => connection.reset(), yes])
    const session = openSession(guest.dial)
    expect(await session.run(mmio())).toBe('ok 0')
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['disconnected', 'disconnected'])
  })

  it('reads the service byte and hangs up: tried again, not sent', async () => {
    const hangUp = (how: 'close' | 'end' | 'reset') => async (connection: Parameters<typeof yes>[0]) => {
      await connection.readService()
      connection[how]()
    }
    const guest = openGuest([hangUp('close'), hangUp('end'), hangUp('reset'), yes])
    const session = openSession(guest.dial)
    expect(await session.run(mmio())).toBe('ok 0')
    expect(guest.connections.map(({ received }) => received)).toEqual([1, 1, 1, 1025])
  })

  it('accepts and stays silent: given up after 5 s', async () => {
    const guest = openGuest([() => {}, yes])
    const session = openSession(guest.dial)
    expect(await session.run(mmio())).toBe('ok 0')
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['greeting-timeout'])
    expect(session.clock.now()).toBe(5_015)
  })

  it('never read the service byte: given up after 5 s', async () => {
    const guest = openGuest(yes)
    const dial = faultyDial(guest.dial, (number) => (number === 1 ? { write: { stallAt: 0 } } : undefined))
    const session = openSession(dial)
    expect(await session.run(mmio())).toBe('ok 0')
    expect(session.reconnects.map(({ reason }) => reason)).toEqual(['greeting-timeout'])
  })
})

describe('the greeting', () => {
  it.each([1, 2, 15, 16, 17, 511, 1023])('in pieces of %i bytes is one greeting', async (every) => {
    const guest = openGuest(yes)
    const session = openSession(faultyDial(guest.dial, { read: { every } }))
    expect(await session.run(mmio())).toBe('ok 0')
    expect(session.reconnects).toEqual([])
  })

  it.each([
    ['eofAt', 'disconnected'],
    ['resetAt', 'disconnected'],
    ['stallAt', 'greeting-timeout'],
  ] as const)('cut off by %s at any byte does not count, and the next connection serves', async (fault, reason) => {
    for (let at = 0; at < 1024; at += at < 20 || at > 1015 ? 1 : 31) {
      const guest = openGuest(yes)
      const dial = faultyDial(guest.dial, (number) => (number === 1 ? { read: { [fault]: at } } : undefined))
      const session = openSession(dial)
      expect(await session.run(mmio()), `at byte ${at}`).toBe('ok 0')
      expect(
        session.reconnects.map(({ reason }) => reason),
        `at byte ${at}`,
      ).toEqual([reason])
      expect(dial.streams[0]!.destroyed, `at byte ${at}: the first stream is closed`).toBe(true)
    }
  })

  it('is checked in all 16 bytes of its header, and nowhere else', async () => {
    for (let at = 0; at < 1024; at += at < 20 || at > 1015 ? 1 : 53) {
      const greeting = encodeConnect()
      greeting[at]! ^= 0x40
      const damaged = async (connection: Parameters<typeof yes>[0]) => {
        await connection.readService()
        await connection.write(greeting)
        await yesAgain(connection)
      }
      const guest = openGuest([damaged, yes])
      const session = openSession(guest.dial)
      expect(await session.run(mmio()), `byte ${at}`).toBe('ok 0')
      expect(
        session.reconnects.map(({ reason }) => reason),
        `byte ${at}`,
      ).toEqual(at < 16 ? ['protocol'] : [])
    }
  })

  it('with a byte too many is refused, whether it comes along or later', async () => {
    for (const every of [undefined, 1024]) {
      const extra = async (connection: Parameters<typeof yes>[0]) => {
        await connection.readService()
        await connection.write(Buffer.concat([encodeConnect(), Buffer.of(0)]))
      }
      const guest = openGuest([extra, yes])
      const session = openSession(faultyDial(guest.dial, { read: { every } }))
      await session.ready()
      await settle()
      expect(session.reconnects.map(({ reason }) => reason)).toEqual(['protocol'])
      expect(await session.run(mmio())).toBe('ok 0')
    }
  })
})

describe('waiting for ready', () => {
  it('ends with its own time, its signal or the client, and leaves the client trying', async () => {
    const session = openSession(dialSequence('silence'))
    await expect(session.clock.drive(session.client.ready({ timeoutMs: 100 }))).rejects.toMatchObject({
      code: 'TIMEOUT',
      outcome: 'not-sent',
    })
    expect(session.clock.now()).toBe(100)
    const controller = new AbortController()
    const reason = new Error('enough')
    const waiting = session.client.ready({ signal: controller.signal })
    controller.abort(reason)
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect(session.client.state).toBe('WaitingServer')
    const closing = session.client.ready()
    const closed = session.client.close()
    await expect(closing).rejects.toMatchObject({ code: 'CLOSED', outcome: 'not-sent' })
    await session.clock.drive(closed)
  })
})
