// Many connections, many bytes.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { connect } from '@upcall/vsock'
import { bothWays } from './patterned.mjs'
import { echoServer, openDescriptors, readAll, startNode } from './support.mjs'

/** The suite in full; `--small`: what CI has time for. */
const isSmall = process.argv.includes('--small')
const CONNECTIONS = isSmall ? 100 : 1_000
/** Enough for the credit and every buffer to go round many times; a GiB each way is for the suite vhost-user. */
const MIB_EACH_WAY = isSmall ? 16 : 256

/** How many there are after a first connection: a listener keeps a spare one for the next. */
async function settledDescriptors(server) {
  const first = await connect(server.address)
  first.end()
  await Promise.all([readAll(first), once(first, 'close')])
  return openDescriptors()
}

test(`${CONNECTIONS} connections at once, each with bytes of its own, and no descriptor left`, {
  timeout: 300_000,
}, async (t) => {
  const server = await echoServer(t, 'vsock://local:any', { maxPending: CONNECTIONS })
  const before = await settledDescriptors(server)
  const clients = []
  for (let i = 0; i < CONNECTIONS; i++) clients.push(await connect(server.address, { timeoutMs: 30_000 }))
  assert.equal(openDescriptors(), before + 2 * CONNECTIONS)
  const good = await Promise.all(
    clients.map(async (client, i) => {
      const sent = Buffer.alloc(2_000 + i, `connection ${i} `)
      const received = readAll(client)
      client.end(sent)
      return sent.equals(await received)
    }),
  )
  assert.equal(good.filter(Boolean).length, CONNECTIONS)
  await Promise.all(clients.map((client) => client.closed || once(client, 'close')))
  while (server.connections.size > 0) await new Promise(setImmediate)
  assert.equal(openDescriptors(), before)
})

test(`${CONNECTIONS} connections one after the other, half of them reset, and no descriptor left`, {
  timeout: 300_000,
}, async (t) => {
  const server = await echoServer(t)
  const before = await settledDescriptors(server)
  for (let i = 0; i < CONNECTIONS; i++) {
    const client = await connect(server.address)
    client.on('error', () => {})
    if (i % 2 === 0) client.write('unread')
    client.destroy()
    await once(client, 'close')
  }
  while (server.connections.size > 0) await new Promise(setImmediate)
  assert.equal(openDescriptors(), before)
})

test(`${MIB_EACH_WAY} MiB each way at the same time, with checksums`, { timeout: 500_000 }, async (t) => {
  const amount = MIB_EACH_WAY << 20
  const { child } = await startNode(t, 'both-ways.mjs', {
    args: ['6100', String(amount)],
    ready: /listening/,
    stdio: ['pipe', 'pipe', 'pipe', 'ipc'],
  })
  const told = once(child, 'message')
  const started = performance.now()
  const socket = await connect('vsock://local:6100', { allowHalfOpen: true })
  t.after(() => socket.destroy())
  const own = await bothWays(socket, 'towards the server ', amount)
  const [peer] = await told
  assert.equal(own.length, amount)
  assert.equal(peer.length, amount)
  assert.equal(peer.received, own.sent, 'towards the server')
  assert.equal(own.received, peer.sent, 'towards the client')
  const seconds = (performance.now() - started) / 1_000
  t.diagnostic(`${((2 * amount) / 1e6 / seconds).toFixed(0)} MB/s, both ways together, checksums included`)
})
