import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { expect, it, vi } from 'vitest'
import { socketEnd } from './end.js'
import { relay } from './relay.js'

/** Both ends of a TCP connection over the loopback. */
async function tcpPair(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection')
  const { port } = server.address() as AddressInfo
  const dialled = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const [socket] = await accepted
  server.close()
  for (const each of [socket, dialled]) each.on('error', () => {})
  return [socket, dialled]
}

it('a TCP peer that resets in the middle ends the relay, and is told of as a break', async () => {
  const [near, dialer] = await tcpPair()
  const [target, far] = await tcpPair()
  const relayed = relay(socketEnd(near, { halfClose: true }), socketEnd(far, { halfClose: true }), {
    signal: new AbortController().signal,
  })
  const gone = new Promise((resolve) => dialer.once('close', resolve))
  dialer.write(Buffer.alloc(5_000_000))
  // More than both kernels take is under way, and the target reads nothing.
  await vi.waitFor(() => expect(far.writableLength).toBeGreaterThan(0), { timeout: 10_000 })
  target.resetAndDestroy()
  const { broken } = await relayed
  expect(broken?.error).toMatchObject({ code: 'ECONNRESET' })
  await gone
  expect([near.closed, far.closed]).toEqual([true, true])
})
