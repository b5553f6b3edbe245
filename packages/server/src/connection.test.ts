import { describe, expect, test } from 'vitest'
import { Echo, pair, replying, settle, setUp } from '../testing/rig.js'
import type { GuestConnection } from './service.js'

describe('a connection', () => {
  test('gets the greeting of the service that its first byte names, then replies', async () => {
    const { connect, server } = setUp()
    const { host, received, connection } = connect('vm 7')
    expect(connection).toMatchObject({ id: 1, remote: 'vm 7', service: undefined })
    await settle()
    expect(received()).toBe('')
    host.write('e')
    await settle()
    expect(received()).toBe('hi')
    expect(connection.service).toBe(0x65)
    host.write('one')
    await settle()
    expect(received()).toBe('hi[one]')
    expect(server.connections.size).toBe(1)
  })

  test('goes on over a stream that drains before its write returns', async () => {
    const { connect } = setUp()
    const { guest, host, received } = connect()
    const write = guest.write.bind(guest)
    guest.write = (chunk: Uint8Array) => {
      write(chunk)
      guest.emit('drain')
      return false
    }
    for (const chunk of ['e', 'one', 'two']) host.write(chunk)
    await settle()
    expect(received()).toBe('hi[one][two]')
  })

  test('passes on what came after the service byte in the same chunk', async () => {
    const { connect } = setUp()
    const { host, received } = connect()
    host.write('eone')
    await settle()
    expect(received()).toBe('hi[one]')
  })

  test('passes chunks as they were read, never joined or cut', async () => {
    const { connect, sessions } = setUp()
    const { host } = connect()
    for (const chunk of ['e', 'a', 'bc', 'def']) host.write(chunk)
    await settle()
    expect(sessions[0]!.received).toEqual(['a', 'bc', 'def'])
  })

  test('reads nothing while the service works, and not the end either', async () => {
    let release!: () => void
    const { connect, sessions, ends, server } = setUp({
      session: replying(async (chunk) => {
        await new Promise<void>((resolve) => {
          release = resolve
        })
        return [Buffer.from(`[${chunk}]`)]
      }),
    })
    const { host, received, state } = connect()
    host.write('e')
    await settle()
    host.write('a')
    host.write('b')
    host.end()
    await settle()
    expect(sessions[0]!.received).toEqual(['a'])
    expect(received()).toBe('hi')
    release()
    await settle()
    expect(received()).toBe('hi[a]')
    expect(sessions[0]!.received).toEqual(['a', 'b'])
    expect(ends).toEqual([])
    release()
    await settle()
    expect(received()).toBe('hi[a][b]')
    expect(state).toEqual({ eof: true, closed: true })
    expect(ends).toEqual(['client'])
    expect(sessions[0]!.closed).toBe(1)
    expect(server.connections.size).toBe(0)
  })

  test('takes replies from the service only as fast as the client reads them, and reads nothing meanwhile', async () => {
    let made = 0
    const { connect, sessions } = setUp({
      session: replying(function* () {
        for (let i = 0; i < 100; i++) {
          made += 1
          yield Buffer.alloc(64, 'x')
        }
      }),
    })
    const { host, connection } = connect()
    host.pause()
    host.write('ego')
    host.write('again')
    await settle()
    expect(made).toBeGreaterThan(0)
    expect(made).toBeLessThan(10)
    expect(sessions[0]!.received).toEqual(['go'])
    host.resume()
    for (let i = 0; i < 100 && made < 200; i++) await settle()
    expect(made).toBe(200)
    expect(sessions[0]!.received).toEqual(['go', 'again'])
    await connection.close()
  })

  test('is served beside others: a service that takes its time holds up no other connection', async () => {
    const { connect } = setUp({
      session: replying((chunk, { id }) => (id === 1 ? new Promise<never>(() => {}) : [chunk])),
    })
    const first = connect()
    const second = connect()
    first.host.write('ex')
    second.host.write('ey')
    await settle()
    expect(first.received()).toBe('hi')
    expect(second.received()).toBe('hiy')
  })

  test('may have been written to before', async () => {
    const { server } = setUp()
    const [guest, host] = pair()
    let received = ''
    guest.write('x'.repeat(200))
    expect(guest.writableNeedDrain).toBe(true)
    server.accept(guest)
    host.on('data', (chunk) => {
      received += chunk
    })
    await settle()
    host.write('e')
    await settle()
    expect(received).toBe(`${'x'.repeat(200)}hi`)
  })

  test('survives a client that answers in the same turn', async () => {
    const { connect, sessions } = setUp()
    const { host } = connect()
    let left = 3
    host.on('data', () => {
      if (left-- > 0) host.write('again')
    })
    host.write('e')
    await settle()
    expect(sessions[0]!.received).toEqual(['again', 'again', 'again'])
  })
})

describe('delay', () => {
  test('runs on the clock of the server', async () => {
    const { connect, clock, advance } = setUp({
      session: replying(async (chunk, connection) => {
        await connection.delay(12_200)
        return [chunk]
      }),
    })
    const { host, received } = connect()
    host.write('ex')
    await settle()
    await advance(12_199)
    expect(received()).toBe('hi')
    await advance(1)
    expect(received()).toBe('hix')
    expect(clock.pending).toBe(0)
  })

  test('rejects when the connection ends first, and leaves no timer', async () => {
    let waiting!: Promise<void>
    let held!: GuestConnection
    const { connect, clock } = setUp({
      session: (connection) => {
        held = connection
        waiting = connection.delay(1_000)
        // A delay that nothing waits for is not an unhandled rejection.
        void connection.delay(2_000)
        return new Echo(connection)
      },
    })
    const { host, connection } = connect()
    host.write('e')
    await settle()
    await connection.close()
    await expect(waiting).rejects.toThrow('delay connection 1: the connection ended during a delay of 1000 ms')
    await expect(held.delay(1)).rejects.toThrow('ended')
    expect(clock.pending).toBe(0)
  })
})
