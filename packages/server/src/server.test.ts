import { describe, expect, test } from 'vitest'
import { Echo, settle, setUp } from '../testing/rig.js'
import { UpcallServer } from './server.js'
import type { GuestService } from './service.js'

describe('the server', () => {
  test('reports each connection once at either end, numbered from 1', async () => {
    const { server, connect } = setUp()
    const seen: string[] = []
    server.on('connection', ({ id, remote }) => seen.push(`+${id} ${remote}`))
    server.on('disconnect', ({ id }, { reason }) => seen.push(`-${id} ${reason}`))
    connect('a')
    const { connection } = connect('b')
    await connection.close()
    await server.close()
    expect(seen).toEqual(['+1 a', '+2 b', '-2 server-closed', '-1 server-closed'])
  })

  test('closes every stream before close() resolves, is idempotent, and turns later streams away', async () => {
    const { server, connect, ends } = setUp()
    const open = [connect(), connect()]
    open[0]!.host.write('e')
    await settle()
    const closing = server.close()
    expect(server.close()).toBe(closing)
    await closing
    expect(open.map(({ guest }) => guest.closed)).toEqual([true, true])
    expect(ends).toEqual(['server-closed', 'server-closed'])
    const { connection } = connect()
    await expect(connection.closed).resolves.toEqual({ reason: 'server-closed' })
  })

  test('is closed by `await using`', async () => {
    const { server, connect } = setUp()
    const { guest } = connect()
    await server[Symbol.asyncDispose]()
    expect(guest.closed).toBe(true)
  })

  test('turns away what is over the limit, and no more than that', async () => {
    const { connect } = setUp({ maxConnections: 1 })
    const first = connect()
    const second = connect()
    await expect(second.connection.closed).resolves.toEqual({ reason: 'limit' })
    await first.connection.close()
    const third = connect()
    third.host.write('e')
    await settle()
    expect(third.received()).toBe('hi')
  })

  test.each([Number.POSITIVE_INFINITY, 2 ** 31])('may wait %d ms, with no timer that would fire at once', async (ms) => {
    const timers: number[] = []
    const setTimer = (ms: number) => {
      timers.push(ms)
      return () => {}
    }
    const { connect } = setUp({ clock: { now: () => 0, setTimer }, serviceByteTimeoutMs: ms, writeTimeoutMs: ms })
    const { host } = connect()
    host.write('ex')
    await settle()
    expect(timers.filter((ms) => ms > 2 ** 31 - 1)).toEqual([])
  })

  test('refuses options that make no sense', () => {
    const service = (byte: number): GuestService => ({ byte, open: (connection) => new Echo(connection) })
    expect(() => new UpcallServer({ services: [service(256)] })).toThrow(
      'services[0].byte: must be an integer from 0 to 255, got 256',
    )
    expect(() => new UpcallServer({ services: [service(1), service(1)] })).toThrow(
      'services[1].byte: must be free, but 0x1 belongs',
    )
    expect(() => new UpcallServer({ services: [], serviceByteTimeoutMs: 0 })).toThrow(
      'serviceByteTimeoutMs: must be a number of milliseconds above 0',
    )
    expect(() => new UpcallServer({ services: [], writeTimeoutMs: Number.NaN })).toThrow('writeTimeoutMs')
    expect(() => new UpcallServer({ services: [], writeTimeoutMs: '5' as never })).toThrow('writeTimeoutMs')
    expect(() => new UpcallServer({ services: [], maxConnections: -1 })).toThrow('maxConnections')
  })
})
