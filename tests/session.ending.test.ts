import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { UpcallClient } from '@upcall/client'
import { deviceManagerProtocol } from '@upcall/device-manager'
import { duplexPair, FakeConnection } from '@upcall/testkit'
import { encodeConnect, encodeReply, MESSAGE_SIZE } from '@upcall/wire'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { mmio, outcomeOf, success } from './support/session.js'

// The end of one direction is not the end of both, and an end that comes right after a reply does not take the reply away.

type Guest = (connection: FakeConnection, stream: Duplex) => Promise<void>

const REPLY = encodeReply(success(mmio()), 'x86_64')

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'upcall-ending-'))
})
afterAll(() => rm(dir, { recursive: true }))

let sockets = 0
/** A dialer to a guest, in memory or over a Unix socket, for one connection after another. */
async function guestOver(kind: 'memory' | 'unix', guest: Guest) {
  let connections = 0
  const serve = (stream: Duplex) => {
    const connection = new FakeConnection(stream, ++connections, 'x86_64')
    void guest(connection, stream).catch(() => {})
  }
  if (kind === 'memory') {
    return async () => {
      const [near, far] = duplexPair()
      serve(far)
      return near
    }
  }
  const path = join(dir, `${++sockets}.sock`)
  const server: Server = createServer({ allowHalfOpen: true }, serve)
  await new Promise<void>((resolve) => server.listen(path, resolve))
  onTestFinished(() => void server.close())
  return () =>
    new Promise<Socket>((resolve, reject) => {
      const socket = netConnect({ path, allowHalfOpen: true })
      socket.once('connect', () => resolve(socket)).once('error', reject)
    })
}

function open(dial: () => Promise<Duplex>, options: object = {}) {
  const client = new UpcallClient({
    dial,
    service: deviceManagerProtocol({ arch: 'x86_64' }),
    reconnect: { minDelayMs: 1 },
    ...options,
  })
  onTestFinished(() => client.close())
  return client
}

describe.each(['memory', 'unix'] as const)('over %s', (kind) => {
  test.each<[string, (stream: Duplex) => void]>([
    ['its end', (stream) => void stream.end(REPLY)],
    ['a close', (stream) => void stream.end(REPLY, () => stream.destroy())],
    [
      'its end in pieces',
      (stream) => {
        stream.write(REPLY.subarray(0, 1000))
        stream.end(REPLY.subarray(1000))
      },
    ],
  ])('a whole reply with %s right after it is the reply', async (_what, answer) => {
    const dial = await guestOver(kind, async (connection, stream) => {
      await connection.handshake()
      await connection.readMessage()
      answer(stream)
    })
    const client = open(dial)
    for (let n = 0; n < 2; n++) {
      const again = new Promise((resolve) => client.once('reconnect', resolve))
      expect(await outcomeOf(client.request(mmio()))).toBe('ok 0')
      await again
    }
  })

  test('a reply that is cut off by the end does not count', async () => {
    const dial = await guestOver(kind, async (connection, stream) => {
      await connection.handshake()
      await connection.readMessage()
      stream.end(REPLY.subarray(0, MESSAGE_SIZE - 1))
    })
    const client = open(dial)
    expect(await outcomeOf(client.request(mmio()))).toBe('indeterminate DISCONNECTED')
  })

  test.each<[string, (stream: Duplex) => void]>([
    ['before a byte of it', (stream) => void stream.end()],
    ['in the middle of it', (stream) => void stream.end(encodeConnect().subarray(0, 100))],
    ['without a word', (stream) => void stream.destroy()],
  ])('a greeting that ends %s makes no connection: the request goes out on the next one', async (_what, end) => {
    const dial = await guestOver(kind, async (connection, stream) => {
      await connection.readService()
      if (connection.number === 1) return end(stream)
      await connection.greet()
      await connection.readMessage()
      stream.write(REPLY)
    })
    const client = open(dial)
    expect(await outcomeOf(client.request(mmio()))).toBe('ok 0')
  })

  test('a request that is made after the greeting and the end came together goes out on the next connection', async () => {
    const dial = await guestOver(kind, async (connection, stream) => {
      await connection.readService()
      if (connection.number === 1) {
        stream.end(encodeConnect())
        return
      }
      await connection.greet()
      await connection.readMessage()
      stream.write(REPLY)
    })
    const client = open(dial)
    const again = new Promise((resolve) => client.once('reconnect', resolve))
    await client.ready()
    await again
    expect(await outcomeOf(client.request(mmio()))).toBe('ok 0')
  })
})
