// Debian's socat as the other end: a peer that shares no line of code with ours.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { connect, listen } from '@upcall/vsock'
import { echoServer, finish, readAll, start, TIMEOUT } from './support.mjs'

const listening = { ready: /listening on/, stream: 'stderr' }
const bytes = randomBytes(2 << 20)
const md5 = createHash('md5').update(bytes).digest('hex')

test('socat listens and echoes', TIMEOUT, async (t) => {
  await start(t, ['socat', '-d', '-d', 'VSOCK-LISTEN:6001', 'PIPE'], listening)
  const socket = await connect('vsock://local:6001')
  t.after(() => socket.destroy())
  const received = readAll(socket)
  socket.end(bytes)
  assert.ok(bytes.equals(await received))
})

test('socat listens, reads to our EOF and answers then', TIMEOUT, async (t) => {
  await start(t, ['socat', '-d', '-d', '-t', '30', 'VSOCK-LISTEN:6002', 'SYSTEM:md5sum'], listening)
  const socket = await connect('vsock://local:6002')
  t.after(() => socket.destroy())
  const answer = readAll(socket)
  socket.end(bytes)
  assert.match(String(await answer), new RegExp(`^${md5} `))
})

test('socat listens, says something and ends its half; we answer then', TIMEOUT, async (t) => {
  writeFileSync('/tmp/first', 'first')
  // What it reads and what it writes to are two programs: only so does the end of the one leave the other alone.
  const ends = 'OPEN:/tmp/first!!SYSTEM:md5sum >&2'
  const { child, said } = await start(t, ['socat', '-d', '-d', '-t', '30', 'VSOCK-LISTEN:6003', ends], listening)
  const socket = await connect('vsock://local:6003', { allowHalfOpen: true })
  t.after(() => socket.destroy())
  assert.equal(String(await readAll(socket)), 'first')
  assert.equal(socket.writable, true)
  const over = once(child, 'close')
  socket.end(bytes)
  await over
  assert.ok(said().includes(md5), said())
})

test('socat connects, sends, ends its half and reads the answer', TIMEOUT, async (t) => {
  const server = await listen('vsock://local:any', { allowHalfOpen: true })
  t.after(() => server.close())
  const served = (async () => {
    const [socket] = await once(server, 'connection')
    const all = await readAll(socket)
    socket.end(`${all.length} bytes, ${createHash('md5').update(all).digest('hex')}\n`)
    await once(socket, 'close')
    return socket.errored
  })()
  const command = ['socat', '-t', '30', '-', `VSOCK-CONNECT:1:${server.address.port}`]
  const { status, stdout, stderr } = await finish(t, command, { input: bytes })
  assert.equal(status, 0, stderr)
  assert.equal(stdout, `${bytes.length} bytes, ${md5}\n`)
  assert.equal(await served, null)
})

test('socat connects to our echo', TIMEOUT, async (t) => {
  const server = await echoServer(t)
  const command = ['sh', '-c', `socat -t 30 - VSOCK-CONNECT:1:${server.address.port} | md5sum`]
  const { stdout, stderr } = await finish(t, command, { input: bytes })
  assert.match(stdout, new RegExp(`^${md5} `), stderr)
})

test('socat is told a reset of ours', TIMEOUT, async (t) => {
  const server = await listen('vsock://local:any')
  t.after(() => server.close())
  server.on('connection', (socket) => socket.once('data', () => socket.destroy(new Error('enough'))).on('error', () => {}))
  const { status } = await finish(t, ['socat', '-t', '30', '-u', '/dev/zero', `VSOCK-CONNECT:1:${server.address.port}`])
  assert.notEqual(status, 0)
})
