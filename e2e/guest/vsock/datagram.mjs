// Datagrams of AF_VSOCK. Only VMware's transport has them; without VMware it delivers them on the same machine.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { bindDatagram } from '@upcall/vsock'
import { finish, openDescriptors, TIMEOUT, unload, vsockError } from './support.mjs'

/** In the kernels that are tested, x86_64 alone has it. */
const hasVmware = process.arch === 'x64'

async function bound(t, address = 'vsock://any:any') {
  const socket = await bindDatagram(address)
  t.after(() => socket.close())
  return socket
}

test('datagrams to CID 2 are delivered on this machine, up to 69608 bytes, with their sender', {
  ...TIMEOUT,
  skip: !hasVmware,
}, async (t) => {
  const before = openDescriptors()
  const [one, other] = [await bound(t), await bound(t, 'vsock://any:5000')]
  for (const size of [5, 0, 69_608]) {
    const sent = Buffer.alloc(size, 7)
    one.send(sent, 'vsock://2:5000')
    const [data, from] = await once(other, 'message')
    assert.equal(Buffer.compare(data, sent), 0)
    assert.deepEqual(from, { cid: 2, port: one.address.port, size })
    // The way back.
    other.send(Buffer.from('back'), { transport: 'vsock', ...from })
    const [answer] = await once(one, 'message')
    assert.equal(String(Buffer.from(answer)), 'back')
  }
  const refused = (code, to, bytes = 1) =>
    assert.throws(() => one.send(Buffer.alloc(bytes), to), vsockError(code, code, { op: 'send' }))
  refused('EMSGSIZE', 'vsock://2:5000', 69_609)
  refused('EHOSTUNREACH', 'vsock://2:5999')
  refused('EINVAL', 'vsock://local:5000')
  await assert.rejects(bindDatagram('vsock://any:5000'), vsockError('EADDRINUSE', 'EADDRINUSE', { op: 'bind' }))
  for (const socket of [one, other]) socket.close()
  assert.equal(openDescriptors(), before)
})

test("without VMware's transport datagrams are refused, and the message says what there is", TIMEOUT, async () => {
  if (hasVmware) {
    await unload('vmw_vsock_vmci_transport')
    await unload('vmw_vmci')
  }
  await assert.rejects(
    bindDatagram('vsock://any:any'),
    vsockError('EOPNOTSUPP', 'ENODEV', {
      op: 'bind',
      retryable: false,
      says: /virtio does not\. For messages there is connectSeqpacket\(\)/,
    }),
  )
})

// What the kernel itself says of them stands beside the library's errno table.
test('socat: SOCK_DGRAM is ENODEV under virtio', TIMEOUT, async (t) => {
  const { status, stderr } = await finish(t, ['socat', '-', 'VSOCK-CONNECT:1:5000,type=2'])
  assert.notEqual(status, 0)
  assert.match(stderr, /No such device/)
})
