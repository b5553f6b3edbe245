// Connections that another program made over AF_VSOCK, and this one inherited. Listening sockets are tested on the host, too.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { connect, createSocket } from '@upcall/vsock'
import { echoServer, openDescriptors, readAll, start, TIMEOUT } from './support.mjs'

const program = join(import.meta.dirname, 'inherits.mjs')

test('a child goes on with the connection of its parent', TIMEOUT, async (t) => {
  const server = await echoServer(t, 'vsock://local:any', { allowHalfOpen: true })
  const socket = await connect(server.address)
  t.after(() => socket.destroy())
  // Otherwise the parent takes the bytes that are the child's.
  socket._handle.readStop()
  const child = spawn(process.execPath, [program, '3'], { stdio: ['ignore', 'pipe', 'inherit', socket._handle.fd] })
  t.after(() => child.kill('SIGKILL'))
  const said = JSON.parse(String(await readAll(child.stdout)))
  assert.deepEqual(said.remote, server.address)
  assert.equal(said.local.port, socket.local.port)
  assert.equal(said.echo, 'hello')
  assert.deepEqual([said.closed.length, said.opened], [1, []], 'the connection is closed, and nothing else is open')
})

test("socat gives a program its connection as the program's stdin", TIMEOUT, async (t) => {
  const listen = ['socat', '-d', '-d', 'VSOCK-LISTEN:6101', `EXEC:${process.execPath} ${program} 0 echo,nofork`]
  await start(t, listen, { ready: /listening on/, stream: 'stderr' })
  const socket = await connect('vsock://local:6101', { allowHalfOpen: true })
  t.after(() => socket.destroy())
  socket.end('through socat')
  assert.equal(String(await readAll(socket)), 'through socat')
})

test('a descriptor of AF_VSOCK that is closed is told', TIMEOUT, async (t) => {
  const server = await echoServer(t)
  const socket = await connect(server.address)
  const { fd } = socket._handle
  socket.destroy()
  await once(socket, 'close')
  const before = openDescriptors()
  assert.throws(() => createSocket({ fd }), { code: 'EBADF', op: 'connect', subject: `fd ${fd}` })
  assert.equal(openDescriptors(), before)
})
