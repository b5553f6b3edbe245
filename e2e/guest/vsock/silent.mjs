// A guest with a vsock device whose VMM never answers: what a connect to the host or to a foreign CID meets in a guest that is stuck.
import './observed.mjs'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { transportCompliance, vsockTransport } from '@upcall/testkit'
import { Cid, connect, listen, localCid } from '@upcall/vsock'
import { finish, openDescriptors, readAll, TIMEOUT, vsockError } from './support.mjs'

/** The CID that e2e/suites/vsock.mjs gives the device. */
const OWN = 7
/** A deadline that never comes: what ends a connect is the kernel's own timeout. */
const never = { now: () => 0, setTimer: () => () => {} }

test("localCid() is the device's", TIMEOUT, () => assert.equal(localCid(), OWN))

test('the host is silent: ETIMEDOUT by the deadline', TIMEOUT, async () => {
  const started = performance.now()
  const late = vsockError('ETIMEDOUT', undefined, { retryable: true, says: /no answer within 400 ms\. Check the CID/ })
  await assert.rejects(connect('vsock://host:5000', { timeoutMs: 400 }), (error) =>
    error.cause ? vsockError('ETIMEDOUT', 'ETIMEDOUT')(error) : late(error),
  )
  assert.ok(performance.now() - started >= 399)
})

for (const [name, address] of [
  ['the host', 'vsock://host:5000'],
  ['another guest', 'vsock://77:5000'],
]) {
  test(`${name} is silent: the kernel's ETIMEDOUT after the connect timeout`, TIMEOUT, async () => {
    const started = performance.now()
    await assert.rejects(
      connect(address, { timeoutMs: 700, clock: never }),
      vsockError('ETIMEDOUT', 'ETIMEDOUT', { retryable: true, says: /no such guest.*vsock_loopback/ }),
    )
    const elapsed = performance.now() - started
    assert.ok(elapsed >= 690, `after ${elapsed} ms`)
  })
}

test('an abort ends it at once', TIMEOUT, async () => {
  const before = openDescriptors()
  const controller = new AbortController()
  const connecting = connect('vsock://host:5000', { timeoutMs: 600_000, signal: controller.signal })
  setTimeout(() => controller.abort(), 100)
  await assert.rejects(connecting, { code: 'ABORTED' })
  assert.equal(openDescriptors(), before)
})

test('toHost towards a sibling goes the same way', TIMEOUT, async () => {
  const sibling = connect('vsock://8:5000', { timeoutMs: 300, vsock: { toHost: true }, clock: never })
  await assert.rejects(sibling, vsockError('ETIMEDOUT', 'ETIMEDOUT'))
})

// The device does not offer VIRTIO_VSOCK_F_SEQPACKET. The library has no such sockets; the kernel's word is what its table says.
test('socat: SOCK_SEQPACKET that was not negotiated is ESOCKTNOSUPPORT', TIMEOUT, async (t) => {
  const { status, stderr } = await finish(t, ['socat', '-', 'VSOCK-CONNECT:2:5000,type=5'])
  assert.notEqual(status, 0)
  assert.match(stderr, /Socket type not supported/)
})

test("loopback works beside the device, by CID 1 and by the guest's own", TIMEOUT, async (t) => {
  const server = await listen('vsock://any:any')
  t.after(() => server.close())
  server.on('connection', (socket) => socket.end(String(socket.remote.cid)))
  for (const cid of [Cid.local, OWN]) {
    const client = await connect({ transport: 'vsock', cid, port: server.address.port })
    assert.equal(String(await readAll(client)), String(client.local.cid))
    assert.equal(client.local.cid, Cid.local)
    client.end()
  }
})

test('listening on the own CID', TIMEOUT, async (t) => {
  const server = await listen(`vsock://${OWN}:any`)
  t.after(() => server.close())
  assert.equal(server.address.cid, OWN)
  const client = await connect(server.address)
  client.destroy()
})

// What loopback cannot show: connecting that begins and never ends.
const silent = {
  ...vsockTransport(),
  mute: async () => ({ address: 'vsock://host:6000', reached: Promise.resolve(), close: async () => {} }),
}
const loopbackTests = new Set(transportCompliance(vsockTransport()).map(({ name }) => name))
for (const { name, run } of transportCompliance(silent, { timeoutMs: 60_000 })) {
  if (!loopbackTests.has(name)) test(`compliance: ${name}`, TIMEOUT, ({ signal }) => run(signal))
}
