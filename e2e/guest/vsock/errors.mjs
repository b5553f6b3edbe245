// What the kernel answers, and what the library makes of it. Towards a VMM: silent.mjs; without the modules: without-modules.mjs.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { addonPath, connect, listen } from '@upcall/vsock'
import { finish, openDescriptors, start, startNode, TIMEOUT, vsockError } from './support.mjs'

test('there is no listener: ECONNREFUSED, although the kernel says ECONNRESET', TIMEOUT, async () => {
  const refused = vsockError('ECONNREFUSED', 'ECONNRESET', { retryable: true, says: /there is no listener.*Start the server/ })
  await assert.rejects(connect('vsock://local:4321'), refused)
})

test('retry waits for a server that starts late', TIMEOUT, async (t) => {
  const connecting = connect('vsock://local:4322', { retry: true, timeoutMs: 30_000 })
  await delay(300)
  const server = await listen('vsock://local:4322')
  t.after(() => server.close())
  const socket = await connecting
  socket.destroy()
})

test('a full backlog: ECONNREFUSED, as for nobody', TIMEOUT, async (t) => {
  const { child, said } = await startNode(t, 'never-accepts.mjs', { args: [addonPath(), '4323', '2'], ready: /listening/ })
  const waiting = []
  t.after(() => {
    for (const socket of waiting) socket.destroy()
  })
  const fill = async () => {
    for (let i = 0; i < 10; i++) waiting.push(await connect('vsock://local:4323'))
  }
  await assert.rejects(fill(), vsockError('ECONNREFUSED', 'ECONNRESET', { retryable: true, says: /backlog/ }))
  assert.ok(waiting.length >= 2, `${waiting.length} connections waited; the backlog is 2; ${said()}`)
  assert.equal(child.exitCode, null)
})

test('a listener of SOCK_SEQPACKET does not accept a stream', TIMEOUT, async (t) => {
  await start(t, ['socat', '-d', '-d', 'VSOCK-LISTEN:4324,type=5', 'PIPE'], { ready: /listening/, stream: 'stderr' })
  await assert.rejects(connect('vsock://local:4324'), vsockError('ECONNREFUSED', 'ECONNRESET'))
})

test('a port below 1024 without the right to it: EACCES', TIMEOUT, async (t) => {
  const { stdout, stderr, status } = await finish(t, [process.execPath, 'as-nobody.mjs'], {
    ...{ cwd: import.meta.dirname, uid: 65_534, gid: 65_534 },
  })
  assert.equal(status, 0, stderr)
  const { privileged, free, cid, connected } = JSON.parse(stdout)
  assert.deepEqual({ code: privileged.code, errno: privileged.errno }, { code: 'EACCES', errno: 'EACCES' })
  assert.match(privileged.message, /ports below 1024 are privileged .*Use a higher port/)
  assert.equal(free, 'listening')
  assert.equal(connected, 'connected')
  assert.equal(cid.code, 'EACCES')
  assert.match(cid.message, /read permission on \/dev\/vsock/)
})

test('root may bind them', TIMEOUT, async (t) => {
  const server = await listen('vsock://local:219')
  t.after(() => server.close())
})

test('listening on a CID that is not ours: EADDRNOTAVAIL', TIMEOUT, async () => {
  const refused = vsockError('EADDRNOTAVAIL', 'EADDRNOTAVAIL', {
    op: 'listen',
    retryable: false,
    says: /does not belong to this machine/,
  })
  await assert.rejects(listen('vsock://77:5000'), refused)
})

test('listening on a port that is in use: EADDRINUSE', TIMEOUT, async (t) => {
  const server = await listen('vsock://local:5001')
  t.after(() => server.close())
  await assert.rejects(listen('vsock://local:5001'), vsockError('EADDRINUSE', 'EADDRINUSE', { op: 'listen', retryable: true }))
})

for (const [name, address] of [
  ['the host', 'vsock://host:5000'],
  ['another guest', 'vsock://77:5000'],
  ['the hypervisor', 'vsock://hypervisor:5000'],
]) {
  test(`connecting to ${name} without a vsock device: ENODEV`, TIMEOUT, async () => {
    await assert.rejects(connect(address), vsockError('ENODEV', 'ENODEV', { retryable: true, says: /vsock device/ }))
  })
}

test('a peer that is killed with bytes unread: EOF, and writing fails with EPIPE', TIMEOUT, async (t) => {
  const { child, exited } = await startNode(t, 'never-reads.mjs', { args: ['5002'], ready: /listening/ })
  const socket = await connect('vsock://local:5002', { allowHalfOpen: true })
  t.after(() => socket.destroy())
  await new Promise((resolve) => socket.write(Buffer.alloc(10_000), resolve))
  const ended = once(socket, 'end')
  socket.resume()
  child.kill('SIGKILL')
  await exited
  await ended
  assert.equal(socket.errored, null)
  const failed = once(socket, 'error')
  socket.write('anybody?')
  const [error] = await failed
  assert.equal(error.code, 'EPIPE')
})

test('what was refused left no descriptor', TIMEOUT, async () => {
  const before = openDescriptors()
  for (let i = 0; i < 50; i++) await assert.rejects(connect('vsock://local:4321'), { code: 'ECONNREFUSED' })
  for (let i = 0; i < 50; i++) await assert.rejects(connect('vsock://host:5000'), { code: 'ENODEV' })
  for (let i = 0; i < 50; i++) await assert.rejects(listen('vsock://77:5000'), { code: 'EADDRNOTAVAIL' })
  assert.equal(openDescriptors(), before)
})
