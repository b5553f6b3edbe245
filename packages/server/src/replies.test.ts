import { describe, expect, test } from 'vitest'
import { replying, settle, setUp } from '../testing/rig.js'

// `receive` may return an async iterable: replies that take time to make.

/** A promise that the test settles. */
function gate() {
  let open!: () => void
  let fail!: (error: Error) => void
  const promise = new Promise<void>((resolve, reject) => {
    open = resolve
    fail = reject
  })
  return { promise, open, fail }
}

describe('an async generator of replies', () => {
  test('is written reply by reply, and nothing is read before its end', async () => {
    const gates = [gate(), gate()]
    const { connect, sessions, clock } = setUp({
      session: replying(async function* (chunk) {
        for (const [i, { promise }] of gates.entries()) {
          await promise
          yield Buffer.from(`[${chunk}${i}]`)
        }
      }),
    })
    const { host, received } = connect()
    host.write('ea')
    await settle()
    host.write('b')
    await settle()
    expect([received(), sessions[0]!.received]).toEqual(['hi', ['a']])
    // The service may take any time, as the kernel does.
    expect(clock.pending).toBe(0)
    gates[0]!.open()
    await settle()
    expect([received(), sessions[0]!.received]).toEqual(['hi[a0]', ['a']])
    gates[1]!.open()
    await settle()
    expect([received(), sessions[0]!.received]).toEqual(['hi[a0][a1][b0][b1]', ['a', 'b']])
  })

  test('makes a reply only when the client has taken those before', async () => {
    let made = 0
    const { connect } = setUp({
      session: replying(async function* () {
        while (made < 100) {
          made += 1
          yield Buffer.alloc(64, 'x')
        }
      }),
    })
    const { host } = connect()
    host.pause()
    host.write('ego')
    await settle()
    expect(made).toBeGreaterThan(0)
    expect(made).toBeLessThan(10)
    host.resume()
    for (let i = 0; i < 100 && made < 100; i++) await settle()
    expect(made).toBe(100)
  })

  test('has a client that leaves a reply unread for 30 s cut off', async () => {
    let over = 0
    const { connect, advance, ends } = setUp({
      session: replying(async function* () {
        try {
          for (;;) yield Buffer.alloc(64)
        } finally {
          over++
        }
      }),
    })
    const { host } = connect()
    host.pause()
    host.write('ex')
    await settle()
    await advance(29_999)
    expect([ends, over]).toEqual([[], 0])
    await advance(1)
    expect([ends, over]).toEqual([['write-timeout'], 1])
  })

  test('that fails in the middle ends the connection with its error, after the replies before', async () => {
    const { connect } = setUp({
      session: replying(async function* () {
        yield Buffer.from('part')
        throw new Error('no more')
      }),
    })
    const { host, connection, received } = connect()
    host.write('ex')
    await expect(connection.closed).resolves.toEqual({ reason: 'service-error', error: new Error('no more') })
    expect(received()).toBe('hipart')
  })

  test('that makes anything but bytes has failed, and is told to end', async () => {
    let over = 0
    const { connect } = setUp({
      session: replying(async function* () {
        try {
          yield 'text' as never
        } finally {
          over++
        }
      }),
    })
    const { host, connection } = connect()
    host.write('ex')
    await expect(connection.closed).resolves.toMatchObject({
      reason: 'service-error',
      error: new TypeError('reply: must be a Uint8Array, got "text"'),
    })
    await settle()
    expect(over).toBe(1)
  })

  test.each<[string, 'host' | 'server']>([
    ['the client leaves', 'host'],
    ['the server closes', 'server'],
  ])('is told to end when %s between two replies, and comes to its `finally` when it goes on', async (_how, side) => {
    const waiting = gate()
    let over = 0
    const { connect, server } = setUp({
      session: replying(async function* () {
        try {
          yield Buffer.from('part')
          await waiting.promise
          yield Buffer.from('late')
        } finally {
          over++
        }
      }),
    })
    const { host, connection, received } = connect()
    host.write('ex')
    await settle()
    if (side === 'host') host.destroy()
    else void server.close()
    await connection.closed
    waiting.open()
    await settle()
    expect([received(), over]).toEqual(['hipart', 1])
  })

  test('that fails after the end fails alone', async () => {
    const waiting = gate()
    const { connect } = setUp({
      session: replying(async function* () {
        await waiting.promise
        yield Buffer.from('late')
      }),
    })
    const { host, connection } = connect()
    host.write('ex')
    await settle()
    await expect(connection.close()).resolves.toEqual({ reason: 'server-closed' })
    waiting.fail(new Error('too late'))
    await settle()
  })
})

test('an iterable that is both is pulled as an async one, and an iterator of its own kind is called as its own', async () => {
  class Countdown implements AsyncIterator<Uint8Array> {
    #left = 2
    returned = false
    async next(): Promise<IteratorResult<Uint8Array>> {
      return this.#left-- > 0 ? { done: false, value: Buffer.from('x') } : { done: true, value: undefined }
    }
    async return(): Promise<IteratorResult<Uint8Array>> {
      this.returned = true
      return { done: true, value: undefined }
    }
    [Symbol.asyncIterator]() {
      return this
    }
    [Symbol.iterator](): never {
      throw new Error('the wrong one')
    }
  }
  const replies = new Countdown()
  const { connect } = setUp({ session: replying(() => replies) })
  const { host, received } = connect()
  host.write('ego')
  await settle()
  expect([received(), replies.returned]).toEqual(['hixx', false])
})

test('replies that arrive after the end are told to end', async () => {
  let late!: (replies: AsyncIterable<Uint8Array>) => void
  let returned = 0
  const { connect } = setUp({ session: replying(() => new Promise((resolve) => (late = resolve))) })
  const { host, connection } = connect()
  host.write('ex')
  await settle()
  await connection.close()
  const next = async () => ({ done: true as const, value: undefined })
  late({
    [Symbol.asyncIterator]: () => ({
      next,
      return() {
        returned++
        return next()
      },
    }),
  })
  await settle()
  expect(returned).toBe(1)
})
