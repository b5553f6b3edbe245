// Message sockets (SOCK_SEQPACKET) over AF_VSOCK. Over Unix sockets they are tested without a guest.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connect, connectSeqpacket, listen, listenSeqpacket } from '@upcall/vsock'
import { openDescriptors, TIMEOUT, vsockError } from './support.mjs'

async function pair(t, options = {}, accepted = options) {
  const server = await listenSeqpacket('vsock+seq://local:any', accepted)
  t.after(() => server.close())
  const near = await connectSeqpacket(server.address, options)
  const { value: far } = await server[Symbol.asyncIterator]().next()
  t.after(() => {
    near.destroy()
    far.destroy()
  })
  return [near, far]
}

const text = (data) => Buffer.from(data).toString()

test('messages keep their bounds and MSG_EOR, both ways, and both ends know both addresses', TIMEOUT, async (t) => {
  const [near, far] = await pair(t)
  assert.deepEqual(near.remote, far.local)
  assert.deepEqual(near.local, far.remote)
  assert.equal(near.local.type, 'seqpacket')
  await Promise.all([near.send(Buffer.from('one'), { eor: true }), near.send(Buffer.from('two')), far.send(Buffer.from('back'))])
  const got = [await far.receive(), await far.receive()]
  assert.deepEqual(
    got.map(({ data, eor, sentBytes }) => [text(data), eor, sentBytes]),
    [
      ['one', true, 3],
      ['two', false, 3],
    ],
  )
  assert.equal(text((await near.receive()).data), 'back')
  near.end()
  assert.equal(await far.receive(), undefined)
  await far.send(Buffer.from('after the end of the other'))
  far.end()
  assert.equal(text((await near.receive()).data), 'after the end of the other')
  assert.equal(await near.receive(), undefined)
  await Promise.all([near.closed, far.closed])
  assert.deepEqual([near.errored, far.errored], [null, null])
})

// 62144 bytes of the third message go into the buffer. A non-blocking send that is repeated would make them a part of a longer message.
test('a message that has room only in part waits, and stays whole', TIMEOUT, async (t) => {
  const [near, far] = await pair(t)
  const sent = [1, 2, 3, 4, 5, 6].map((byte) => Buffer.alloc(100_000, byte))
  const sending = Promise.all(sent.map((message) => near.send(message)))
  for (const message of sent) {
    const { data, sentBytes } = await far.receive()
    assert.equal(sentBytes, message.length)
    assert.equal(Buffer.compare(data, message), 0)
  }
  await sending
})

test('a send that waits is ended by destroy(), and its thread with it', TIMEOUT, async (t) => {
  const [near, far] = await pair(t)
  const before = openDescriptors()
  const sends = Array.from({ length: 4 }, () => near.send(Buffer.alloc(200_000)))
  await sends[0]
  const ended = Promise.allSettled(sends.slice(1))
  near.destroy()
  for (const { status, reason } of await ended) assert.deepEqual([status, reason.code], ['rejected', 'ABORTED'])
  far.destroy()
  // The duplicate that the thread had.
  while (openDescriptors() > before - 2) await new Promise((resolve) => setTimeout(resolve, 10))
})

test("EMSGSIZE: longer than this end's buffer, and than the peer's", TIMEOUT, async (t) => {
  const [near, far] = await pair(t, {}, { vsock: { bufferSize: 65_536 } })
  assert.deepEqual([near.maxMessageBytes, far.maxMessageBytes], [262_144, 65_536])
  await assert.rejects(near.send(Buffer.alloc(262_145)), { code: 'EMSGSIZE', op: 'send' })
  await assert.rejects(near.send(Buffer.alloc(65_537)), {
    code: 'EMSGSIZE',
    what: /^the message is longer than the peer's buffer/,
  })
  await near.send(Buffer.alloc(65_536, 7))
  assert.equal((await far.receive()).sentBytes, 65_536)
})

test('a longer message than maxReceiveBytes is cut, and that is told', TIMEOUT, async (t) => {
  const [near, far] = await pair(t, {}, { maxReceiveBytes: 4 })
  await near.send(Buffer.from('longer'))
  await near.send(Buffer.from('next'))
  const got = [await far.receive(), await far.receive()]
  assert.deepEqual(
    got.map(({ data, sentBytes }) => [text(data), sentBytes]),
    [
      ['long', 6],
      ['next', 4],
    ],
  )
})

test('a peer that closes: what it sent is there, then EPIPE; a socket that only waits closes, too', TIMEOUT, async (t) => {
  const [near, far] = await pair(t)
  await far.send(Buffer.from('bye'))
  far.destroy()
  const messages = []
  for await (const data of near) messages.push(text(data))
  assert.deepEqual(messages, ['bye'])
  await near.closed
  assert.equal(near.errored, null)
  await assert.rejects(near.send(Buffer.from('x')), { code: 'EPIPE' })
})

test('refused: no listener, and a listener of the other type', TIMEOUT, async (t) => {
  const streams = await listen('vsock://local:any')
  t.after(() => streams.close())
  const messages = await listenSeqpacket('vsock+seq://local:any')
  t.after(() => messages.close())
  const refused = vsockError('ECONNREFUSED', 'ECONNRESET', { retryable: true })
  await assert.rejects(connectSeqpacket('vsock+seq://local:999'), refused)
  await assert.rejects(connectSeqpacket({ ...streams.address, type: 'seqpacket' }), refused)
  const { type: _, ...stream } = messages.address
  await assert.rejects(connect(stream), refused)
  // One space of ports for both.
  await assert.rejects(listen(stream), vsockError('EADDRINUSE', 'EADDRINUSE', { op: 'listen' }))
})

test('ESOCKTNOSUPPORT where the transport has not negotiated it: there is no device', TIMEOUT, async () => {
  const says = /^connect vsock\+seq:\/\/host:1: the transport to that CID does not carry message sockets/
  await assert.rejects(
    connectSeqpacket('vsock+seq://host:1'),
    vsockError('ESOCKTNOSUPPORT', 'ESOCKTNOSUPPORT', { retryable: false, says }),
  )
})

test('5 connections of ten messages each leave no descriptor', TIMEOUT, async (t) => {
  const server = await listenSeqpacket('vsock+seq://local:any')
  t.after(() => server.close())
  const echo = async (socket) => {
    for await (const data of socket) await socket.send(data)
    socket.end()
  }
  server.on('connection', (socket) => void echo(socket))
  const before = openDescriptors()
  await Promise.all(
    Array.from({ length: 5 }, async (_, id) => {
      const socket = await connectSeqpacket(server.address)
      for (let i = 0; i < 10; i++) {
        await socket.send(Buffer.from(`${id}.${i}`))
        assert.equal(text((await socket.receive()).data), `${id}.${i}`)
      }
      socket.end()
      assert.equal(await socket.receive(), undefined)
      await socket.closed
    }),
  )
  while (openDescriptors() > before) await new Promise((resolve) => setTimeout(resolve, 10))
})
