// Addresses, options, and what a socket can be used for.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { addonPath, Cid, connect, listen, localCid, VsockSocket } from '@upcall/vsock'
import { sockets } from './observed.mjs'
import { echoServer, finish, openDescriptors, readAll, TIMEOUT } from './support.mjs'

test('localCid() without a device: 1, since only loopback is there', TIMEOUT, () => {
  assert.equal(localCid(), Cid.local)
})

test('both ends know both addresses', TIMEOUT, async (t) => {
  const server = await listen('vsock://any:any')
  t.after(() => server.close())
  assert.equal(server.address.cid, Cid.any)
  const client = await connect({ transport: 'vsock', cid: Cid.local, port: server.address.port })
  t.after(() => client.destroy())
  const { value: accepted } = await server[Symbol.asyncIterator]().next()
  t.after(() => accepted.destroy())
  assert.deepEqual(client.remote, { transport: 'vsock', cid: Cid.local, port: server.address.port })
  assert.deepEqual(accepted.local, client.remote)
  assert.deepEqual(accepted.remote, client.local)
  assert.equal(client.local.cid, Cid.local)
  assert.ok(client.local.port > 1023)
  for (const socket of [client, accepted]) {
    assert.ok(socket instanceof Socket)
    assert.ok(socket instanceof VsockSocket)
  }
})

test('buffer sizes reach the kernel, on connecting, listening and accepted sockets', TIMEOUT, async (t) => {
  sockets.length = 0
  const server = await echoServer(t, 'vsock://local:any', { vsock: { bufferSize: 1 << 20 } })
  const client = await connect(server.address, { vsock: { bufferSize: 8_192, bufferMinSize: 4_096, bufferMaxSize: 16_384 } })
  client.end('small window')
  assert.equal(String(await readAll(client)), 'small window')
  const seen = Object.fromEntries(sockets.map(({ role, size, min, max }) => [role, { size, min, max }]))
  assert.deepEqual(seen, {
    listening: { size: 1 << 20, min: 128, max: 1 << 20 },
    connecting: { size: 8_192, min: 4_096, max: 16_384 },
    accepted: { size: 1 << 20, min: 128, max: 1 << 20 },
  })
})

test("the defaults are the kernel's, and the deadline is the connect timeout", TIMEOUT, async (t) => {
  const server = await echoServer(t)
  sockets.length = 0
  const client = await connect(server.address, { timeoutMs: 1_234 })
  client.destroy()
  const { flags, size, min, max, timeoutMs } = sockets.find(({ role }) => role === 'connecting')
  assert.deepEqual({ flags, size, min, max }, { flags: 0, size: 262_144, min: 128, max: 262_144 })
  // In jiffies of 4 ms, from the deadline on or a moment later.
  assert.ok(timeoutMs > 1_000 && timeoutMs < 1_260, `the kernel waits ${timeoutMs} ms`)
})

test('a small window carries much, byte by byte the same', TIMEOUT, async (t) => {
  const options = { vsock: { bufferSize: 4_096 } }
  const server = await echoServer(t, 'vsock://local:any', options)
  const client = await connect(server.address, options)
  const sent = Buffer.alloc(3 << 20, 'a window of 4 KiB. ')
  const received = readAll(client)
  client.end(sent)
  assert.ok(sent.equals(await received))
})

test('toHost sets the flag', TIMEOUT, async () => {
  sockets.length = 0
  await assert.rejects(connect('vsock://77:5000', { vsock: { toHost: true } }), { code: 'ENODEV' })
  assert.equal(sockets[0].flags, 1)
})

test('for await over a server, await using of one', TIMEOUT, async () => {
  const server = await listen('vsock://local:any')
  const clients = await Promise.all([0, 1, 2].map(() => connect(server.address)))
  let taken = 0
  for await (const socket of server) {
    socket.end(`number ${taken++}`)
    if (taken === clients.length) break
  }
  const words = await Promise.all(clients.map(async (client) => String(await readAll(client))))
  assert.deepEqual(words.sort(), ['number 0', 'number 1', 'number 2'])
  for (const client of clients) client.end()
  await server[Symbol.asyncDispose]()
  await assert.rejects(connect(server.address), { code: 'ECONNREFUSED' })
})

test('an abort ends connecting, and a server', TIMEOUT, async () => {
  const controller = new AbortController()
  const server = await listen('vsock://local:any', { signal: controller.signal })
  const closed = once(server, 'close')
  controller.abort()
  await closed
  await assert.rejects(connect(server.address, { signal: controller.signal }), { code: 'ABORTED' })
})

test('worker threads: a server in one, clients here', TIMEOUT, async (t) => {
  const worker = new Worker(join(import.meta.dirname, 'echo-worker.mjs'))
  t.after(() => worker.terminate())
  const [address] = await once(worker, 'message')
  const sent = Buffer.alloc(500_000, 'worker')
  const echoes = [1, 2, 3].map(async () => {
    const client = await connect(address)
    client.end(sent)
    return (await readAll(client)).equals(sent)
  })
  assert.deepEqual(await Promise.all(echoes), [true, true, true])
})

test('a worker that is terminated closes its sockets', TIMEOUT, async () => {
  const before = openDescriptors()
  const worker = new Worker(join(import.meta.dirname, 'echo-worker.mjs'))
  const [address] = await once(worker, 'message')
  const client = await connect(address)
  client.write('ping')
  assert.equal(String((await once(client, 'data'))[0]), 'ping')
  const closed = once(client, 'close')
  await worker.terminate()
  await closed
  assert.equal(openDescriptors(), before)
  await assert.rejects(connect(address), { code: 'ECONNREFUSED' })
})

test('unref: a process with an idle server and an idle connection ends by itself', TIMEOUT, async (t) => {
  const { status, stdout, stderr } = await finish(t, [process.execPath, join(import.meta.dirname, 'unreferenced.mjs')])
  assert.equal(status, 0, stderr)
  assert.equal(stdout, 'leaving\n')
})

test('every function of the addon and every end of a descriptor (exercise.mjs)', { timeout: 300_000 }, async (t) => {
  const exercise = join(addonPath(), '../../../native/exercise.mjs')
  const { status, stdout, stderr } = await finish(t, [process.execPath, exercise, addonPath()])
  assert.equal(status, 0, stderr)
  t.diagnostic(stdout.trim())
})
