// What exercise.mjs does with sockets that keep messages apart.
import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { abstractAddress } from '../../../native/exercise.mjs'

const wide = 256 * 1024
const { EMSGSIZE, EPIPE } = constants.errno

/** Two connected message sockets. */
function pairOf(binding) {
  const { AF_UNIX, SOCK_SEQPACKET } = binding
  const listener = binding.typedSocket(AF_UNIX, SOCK_SEQPACKET)
  binding.bind(listener, abstractAddress(binding))
  binding.listen(listener, 1)
  const one = binding.typedSocket(AF_UNIX, SOCK_SEQPACKET)
  binding.connect(one, binding.getsockname(listener))
  const other = binding.accept(listener).descriptor
  binding.close(listener)
  return [one, other]
}

/** For a thread that ends meanwhile. */
export function beginWaiting(binding) {
  const [one, other] = pairOf(binding)
  while (binding.sendMessage(one, Buffer.alloc(wide / 4), false, undefined));
  binding.sendWaiting(one, Buffer.alloc(wide / 4), false, () => {})
  return [one, other]
}

export const messageChecks = (tools) => ({ ...boundChecks(tools), ...waitChecks(tools) })

const boundChecks = ({ binding, ready, inet, openDescriptors }) => ({
  async 'messages keep their bounds'() {
    const { AF_UNIX, SOCK_SEQPACKET, SOL_SOCKET, SO_TIMESTAMP } = binding
    const listener = binding.typedSocket(AF_UNIX, SOCK_SEQPACKET)
    binding.bind(listener, abstractAddress(binding))
    binding.listen(listener, 1)
    const one = binding.typedSocket(AF_UNIX, SOCK_SEQPACKET)
    binding.connect(one, binding.getsockname(listener))
    const other = binding.accept(listener).descriptor
    binding.setsockopt(other, SOL_SOCKET, SO_TIMESTAMP, new Uint8Array(Int32Array.of(1).buffer))
    assert.equal(binding.messageLength(other), undefined)
    assert.equal(binding.receiveMessage(other, 8), undefined)
    const sent = (text) => assert.equal(binding.sendMessage(one, Buffer.from(text), true, undefined), true)
    for (const text of ['whole', 'cut short', '', 'dropped']) sent(text)
    assert.equal(binding.messageLength(other), 5)
    const told = (limit) => {
      const { bytes, length, end } = binding.receiveMessage(other, limit)
      return [Buffer.from(bytes).toString(), length, end]
    }
    assert.deepEqual(told(wide), ['whole', 5, false])
    assert.deepEqual(told(3), ['cut', 9, false])
    assert.deepEqual(told(8), ['', 0, false])
    assert.deepEqual(told(0), ['', 7, false])
    binding.send(one, Buffer.from('with'), [listener])
    const before = openDescriptors()
    assert.deepEqual(told(8), ['with', 4, false])
    assert.equal(openDescriptors(), before)
    assert.throws(() => binding.sendMessage(one, Buffer.alloc(1 << 24), false, undefined), { code: 'EMSGSIZE' })
    let waiting = 0
    while (binding.sendMessage(one, Buffer.alloc(wide / 4), false, undefined)) waiting++
    assert.equal(waiting > 0, true)
    for (; waiting > 0; waiting--) assert.deepEqual(told(1)[1], wide / 4)
    assert.equal(binding.hungUp(other), false)
    binding.shutdown(one)
    assert.deepEqual(told(8), ['', 0, true])
    assert.equal(binding.hungUp(other), false)
    binding.close(one)
    assert.equal(binding.hungUp(other), true)
    assert.throws(() => binding.sendMessage(other, Buffer.alloc(1), false, undefined), { code: 'EPIPE', syscall: 'sendmsg' })
    assert.throws(() => binding.sendMessage(other, Buffer.alloc(1), 1, undefined), TypeError)
    assert.throws(() => binding.typedSocket(AF_UNIX, 0o4001), TypeError)
    assert.throws(() => binding.receiveMessage(listener, 1), { syscall: 'recvmsg' })
    assert.throws(() => binding.messageLength(listener), { syscall: 'recvmsg' })
    for (const descriptor of [listener, other]) binding.close(descriptor)
  },

  async 'datagrams say who sent them'() {
    const [one, other] = [0, 1].map(() => {
      const descriptor = binding.typedSocket(binding.AF_INET, binding.SOCK_DGRAM)
      binding.bind(descriptor, inet(0))
      return descriptor
    })
    const [from, to] = [one, other].map((descriptor) => binding.getsockname(descriptor))
    assert.equal(binding.sendMessage(one, Buffer.from('hello'), false, to), true)
    await ready(other, binding.READABLE)
    const got = binding.receiveMessage(other, 64)
    assert.deepEqual([Buffer.from(got.bytes).toString(), Buffer.compare(got.from, from)], ['hello', 0])
    for (const descriptor of [one, other]) binding.close(descriptor)
  },
})

const waitChecks = ({ binding, ready, openDescriptors }) => ({
  async 'a send waits on a thread, until there is room or the end'() {
    const [one, other] = pairOf(binding)
    const sent = (bytes) => new Promise((resolve) => binding.sendWaiting(one, bytes, true, resolve))
    assert.equal(await sent(Buffer.from('at once')), 0)
    assert.equal(Buffer.from(binding.receiveMessage(other, 64).bytes).toString(), 'at once')
    let waiting = 0
    while (binding.sendMessage(one, Buffer.alloc(wide / 4), false, undefined)) waiting++
    const room = sent(Buffer.alloc(wide / 4, 7))
    for (; waiting > 0; waiting--) binding.receiveMessage(other, 1)
    assert.equal(await room, 0)
    await ready(other, binding.READABLE)
    assert.equal(binding.receiveMessage(other, 1).length, wide / 4)
    assert.equal(await sent(Buffer.alloc(1 << 24)), EMSGSIZE)
    const before = openDescriptors()
    while (binding.sendMessage(one, Buffer.alloc(wide / 4), false, undefined));
    const cut = sent(Buffer.alloc(wide / 4))
    assert.equal(openDescriptors(), before + 1)
    binding.cut(one)
    binding.close(one)
    assert.equal(await cut, EPIPE)
    assert.equal(openDescriptors(), before - 1)
    assert.throws(() => binding.cut(one), { code: 'EBADF' })
    assert.throws(() => binding.sendWaiting(other, 'text', false, () => {}), TypeError)
    assert.throws(() => binding.sendWaiting(other, Buffer.alloc(1), 0, () => {}), TypeError)
    assert.throws(() => binding.sendWaiting(other, Buffer.alloc(1), false, 0), TypeError)
    binding.close(other)
  },
})
