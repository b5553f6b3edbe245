// Runs every function of the addon over AF_UNIX and TCP loopback, and every way a descriptor can end. Plain JavaScript on the bare
// addon, so that it also runs on another machine's Node under qemu-user, and under valgrind.
//
//   node packages/vsock/native/exercise.mjs <path of upcall_vsock.node>
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readlinkSync } from 'node:fs'
import { Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { abstractAddress, collected, endThreads, exercise, loadAddon, ready as readyOf } from '../../../native/exercise.mjs'
import { beginWaiting, messageChecks } from './exercise-messages.mjs'

const binding = loadAddon()
const ready = (descriptor, events) => readyOf(binding, descriptor, events)

const LOOPBACK = [127, 0, 0, 1]
const wide = 256 * 1024

function inet(port) {
  const bytes = Buffer.alloc(16)
  new Uint16Array(bytes.buffer, bytes.byteOffset, 1)[0] = binding.AF_INET
  bytes.writeUInt16BE(port, 2)
  bytes.set(LOOPBACK, 4)
  return bytes
}

const families = {
  unix: { family: 'AF_UNIX', address: () => abstractAddress(binding) },
  tcp: { family: 'AF_INET', address: () => inet(0) },
}

function listening({ family, address }, backlog = 16) {
  const descriptor = binding.socket(binding[family])
  binding.bind(descriptor, address())
  binding.listen(descriptor, backlog)
  return descriptor
}

async function connected(family, address) {
  const descriptor = binding.socket(binding[family])
  if (!binding.connect(descriptor, address)) await ready(descriptor, binding.WRITABLE)
  binding.finishConnect(descriptor)
  return descriptor
}

function adopt(descriptor) {
  const options = { readable: true, writable: true, allowHalfOpen: true }
  return binding.adopt(descriptor, binding.placeholder(), (fd) => new Socket({ fd, ...options }))
}

/** Until EOF, and without closing the other half, as iterating would. */
async function received(socket) {
  const chunks = []
  socket.on('data', (chunk) => chunks.push(chunk))
  await once(socket, 'end')
  return Buffer.concat(chunks)
}

async function pair(kind) {
  const listener = listening(kind)
  const pending = ready(listener, binding.READABLE)
  const client = await connected(kind.family, binding.getsockname(listener))
  await pending
  const accepted = binding.accept(listener)
  assert.equal(accepted.peer.length >= 2, true)
  assert.equal(binding.accept(listener), undefined)
  binding.close(listener)
  return [client, accepted.descriptor]
}

async function arrived(descriptor) {
  await ready(descriptor, binding.READABLE)
  return binding.receive(descriptor, 64)
}

const checks = {
  ...messageChecks({ binding, ready, inet, openDescriptors }),

  async 'data both ways, and half-close'() {
    for (const kind of Object.values(families)) {
      const [client, server] = (await pair(kind)).map(adopt)
      const sent = Buffer.alloc(wide, 'upcall')
      client.end(sent)
      assert.equal(sent.equals(await received(server)), true)
      server.end(sent)
      assert.equal(sent.equals(await received(client)), true)
      await Promise.all([client, server].map((socket) => socket.closed || once(socket, 'close')))
    }
  },

  async 'a refused connect says so'() {
    const listener = listening(families.tcp)
    const address = binding.getsockname(listener)
    binding.close(listener)
    await assert.rejects(connected('AF_INET', address), { code: 'ECONNREFUSED', syscall: 'connect' })
    await assert.rejects(connected('AF_UNIX', families.unix.address()), { code: 'ECONNREFUSED', syscall: 'connect' })
  },

  async 'a pending connect can be closed'() {
    const listener = listening(families.tcp, 0)
    const address = binding.getsockname(listener)
    const waiting = Array.from({ length: 4 }, () => {
      const descriptor = binding.socket(binding.AF_INET)
      binding.connect(descriptor, address)
      binding.watch(descriptor, binding.WRITABLE, () => {})
      return descriptor
    })
    await turn()
    for (const descriptor of [...waiting, listener]) binding.close(descriptor)
  },

  async 'closing inside the callback, twice, and use after close'() {
    const [client, server] = await pair(families.unix)
    await new Promise((resolve) => {
      binding.watch(client, binding.WRITABLE, () => {
        binding.close(client)
        binding.close(client)
        resolve()
      })
    })
    for (const name of ['getsockname', 'getpeername', 'accept', 'finishConnect']) {
      assert.throws(() => binding[name](client), { code: 'EBADF' }, name)
    }
    assert.throws(() => binding.watch(client, binding.READABLE, () => {}), { code: 'EBADF' })
    binding.unwatch(client)
    binding.ref(client)
    binding.unref(client)
    binding.close(server)
  },

  async 'watching again, both events, unref and ref'() {
    const [client, server] = await pair(families.tcp)
    binding.unref(client)
    assert.equal(await ready(client, binding.READABLE | binding.WRITABLE), binding.WRITABLE)
    binding.ref(client)
    const readable = ready(client, binding.READABLE)
    binding.close(server)
    assert.equal(await readable, binding.READABLE)
    binding.close(client)
  },

  'socket options'() {
    const descriptor = binding.socket(binding.AF_INET)
    const { SOL_SOCKET, SO_SNDBUF } = binding
    binding.setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, new Uint8Array(Int32Array.of(10_000).buffer))
    assert.equal(new Int32Array(binding.getsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, 4).buffer)[0], 20_000)
    assert.throws(() => binding.setsockopt(descriptor, 0x7fff, 1, new Uint8Array(4)), { syscall: 'setsockopt' })
    assert.throws(() => binding.getsockopt(descriptor, 0x7fff, 1, 4), { syscall: 'getsockopt' })
    binding.close(descriptor)
    try {
      assert.equal(Number.isInteger(binding.localCid()), true)
    } catch (error) {
      assert.match(error.syscall, /\/dev\/vsock$/)
    }
  },

  async 'adopt refuses what would go wrong, and leaves the connection alone'() {
    const [client, server] = await pair(families.unix)
    const spare = binding.placeholder()
    const boom = new Error('create failed')
    assert.throws(
      () =>
        binding.adopt(client, spare, () => {
          throw boom
        }),
      boom,
    )
    assert.throws(() => binding.adopt(client, client, () => {}), TypeError)
    assert.throws(
      () =>
        binding.adopt(client, spare, (fd) => {
          new Socket({ fd, readable: true, writable: true }).destroy()
        }),
      { code: 'EBADF', syscall: 'adopt' },
    )
    const other = binding.placeholder()
    assert.throws(() => binding.adopt(client, other, () => binding.close(other)), { code: 'EBADF', syscall: 'adopt' })
    assert.equal(binding.getpeername(client).length > 2, true)
    for (const descriptor of [client, server, spare, other]) binding.close(descriptor)
  },

  async 'a number that was inherited is inspected and taken over'() {
    let descriptor
    const listener = listening(families.unix)
    const client = adopt(await connected('AF_UNIX', binding.getsockname(listener)))
    const fd = client._handle.fd
    const seen = binding.inspect(fd)
    assert.equal(seen.family, binding.AF_UNIX)
    assert.equal(seen.type, 1)
    assert.equal(seen.listening, false)
    assert.deepEqual(seen.peer, binding.getsockname(listener))
    assert.equal(seen.local.length, 2)
    binding.closeOnExec(fd)
    client.destroy()
    await once(client, 'close')
    assert.throws(() => binding.inspect(fd), { code: 'EBADF' })
    assert.throws(() => binding.closeOnExec(fd), { code: 'EBADF' })
    assert.throws(() => binding.inherit(fd), { code: 'EBADF' })
    const file = openSync(process.execPath)
    try {
      assert.throws(() => binding.inspect(file), { code: 'ENOTSOCK' })
      assert.throws(() => binding.inherit(file), { code: 'ENOTSOCK' })
    } finally {
      closeSync(file)
    }
    const left = numberOf(() => {
      descriptor = binding.socket(binding.AF_UNIX)
    })
    const address = families.unix.address()
    binding.bind(descriptor, address)
    binding.listen(descriptor, 1)
    assert.equal(binding.inspect(left).listening, true)
    assert.equal('peer' in binding.inspect(left), false)
    // Two objects own one number here. The second close meets a number that nothing has taken since.
    const taken = binding.inherit(left)
    assert.equal(address.equals(binding.getsockname(taken)), true)
    binding.close(taken)
    assert.throws(() => binding.inspect(left), { code: 'EBADF' })
    binding.close(descriptor)
    binding.close(listener)
  },

  'datagrams need a receiver'() {
    const bytes = new Uint8Array(1)
    assert.throws(() => binding.sendDatagram(families.unix.address(), bytes), { code: 'ECONNREFUSED', syscall: 'sendto' })
    assert.throws(() => binding.sendDatagram(inet(1), bytes), TypeError)
    assert.throws(() => binding.sendDatagram(families.unix.address(), new Uint8Array(0)), TypeError)
    assert.throws(() => binding.sendDatagram(families.unix.address(), new Uint8Array(4097)), TypeError)
  },

  async 'descriptors that travel'() {
    const [one, other] = await pair(families.unix)
    const [passed, far] = await pair(families.unix)
    const text = Buffer.from('52 keep')
    assert.equal(binding.receive(other, 8), undefined)
    assert.equal(binding.send(one, text, [passed]), text.length)
    const got = await arrived(other)
    assert.equal(Buffer.from(got.bytes).toString(), '52 keep')
    assert.equal(got.descriptors.length, 1)
    const [came] = got.descriptors
    binding.close(passed)
    binding.write(far, Buffer.from('through'))
    const bytes = Buffer.alloc(16)
    assert.equal(binding.read(came, bytes), 7)
    assert.equal(bytes.toString('latin1', 0, 7), 'through')
    assert.equal(binding.read(came, bytes), undefined)
    binding.shutdown(far)
    assert.equal(binding.read(came, bytes), 0)
    // What comes of too many is a test of the package's: qemu-user, under which this also runs, forgets to say MSG_CTRUNC.
    assert.throws(() => binding.send(one, text, Array(17).fill(far)), TypeError)
    assert.throws(() => binding.send(one, text, far), TypeError)
    assert.throws(() => binding.send(one, text, [{}]), TypeError)
    binding.close(one)
    assert.equal((await arrived(other)).bytes.length, 0)
    for (const descriptor of [other, came, far]) binding.close(descriptor)
    for (const name of ['receive', 'read', 'write', 'describe', 'unblock', 'shutdown', 'release']) {
      assert.throws(() => binding[name](far, name === 'receive' ? 1 : bytes), { code: 'EBADF' }, name)
    }
  },

  async 'what a descriptor is, and whose'() {
    const fd = openSync('/dev/null', 'r')
    const descriptor = binding.duplicate(fd)
    closeSync(fd)
    const { mode, device, flags, terminal } = binding.describe(descriptor)
    assert.deepEqual([mode & 0o170000, device, flags & 3, terminal], [0o020000, 0x103, 0, false])
    binding.unblock(descriptor)
    binding.unblock(descriptor)
    assert.equal(binding.describe(descriptor).flags & 0o4000, 0o4000)
    assert.equal(binding.read(descriptor, Buffer.alloc(1)), 0)
    assert.throws(() => binding.write(descriptor, Buffer.alloc(1)), { code: 'EBADF', syscall: 'write' })
    assert.throws(() => binding.shutdown(descriptor), { code: 'ENOTSOCK' })
    assert.throws(() => binding.read(descriptor, new Uint8Array(0)), TypeError)
    const number = binding.release(descriptor)
    assert.throws(() => binding.describe(descriptor), { code: 'EBADF' })
    closeSync(number)
    assert.throws(() => binding.duplicate(number), { code: 'EBADF', syscall: 'fcntl' })
  },

  'wrong arguments are TypeErrors'() {
    const good = binding.socket(binding.AF_UNIX)
    const junk = [
      undefined,
      null,
      -1,
      1.5,
      Number.NaN,
      1e300,
      'x',
      Symbol('s'),
      1n,
      {},
      [],
      new Proxy({}, {}),
      new Date(),
      () => {},
    ]
    const wrongBytes = [
      ...junk,
      new Uint8Array(0),
      new Uint8Array(1),
      new Uint8Array(500),
      new Uint16Array(8),
      new ArrayBuffer(16),
    ]
    const functions = Object.entries(binding).filter(([, value]) => typeof value === 'function')
    for (const [name, call] of functions) {
      if (name === 'placeholder' || name === 'localCid') continue
      assert.throws(() => call(), TypeError, `${name}()`)
      for (const value of junk) {
        if (name === 'socket' && typeof value === 'number' && value === 1) continue
        assert.throws(() => call(value, value, value, value), TypeError, `${name}(${String(value)})`)
      }
    }
    for (const value of wrongBytes) {
      for (const name of ['bind', 'connect']) assert.throws(() => binding[name](good, value), TypeError, name)
      assert.throws(
        () => binding.setsockopt(good, 1, 1, value),
        value instanceof Uint8Array && value.length === 1 ? { syscall: 'setsockopt' } : TypeError,
      )
    }
    for (const value of junk) {
      assert.throws(() => binding.listen(good, value), TypeError)
      if (typeof value !== 'function') assert.throws(() => binding.watch(good, binding.READABLE, value), TypeError)
      assert.throws(() => binding.watch(good, value, () => {}), TypeError)
      assert.throws(() => binding.getsockopt(good, 1, 4, value), TypeError)
    }
    assert.throws(() => binding.watch(good, 16, () => {}), TypeError)
    assert.throws(() => binding.close(Object.create(good)), TypeError)
    binding.close(good)
  },

  async 'forgotten descriptors are closed by the garbage collector'() {
    const before = await leastDescriptors()
    for (let i = 0; i < 50; i++) forget(i % 2 === 1)
    assert.equal(openDescriptors(), before + 50)
    assert.equal(await leastDescriptors(), before)
  },

  async 'a thread that ends takes its descriptors with it'() {
    const before = await leastDescriptors()
    await endThreads(import.meta.url)
    assert.equal(await leastDescriptors(), before)
  },
}

/** In the thread: a listener that waits, a connect that waits, a descriptor without a watcher; then the thread ends. */
async function prepareToEnd() {
  const listener = listening(families.tcp, 0)
  const address = binding.getsockname(listener)
  for (let i = 0; i < 4; i++) {
    const descriptor = binding.socket(binding.AF_INET)
    binding.connect(descriptor, address)
    binding.watch(descriptor, binding.WRITABLE, () => {})
  }
  const idle = listening(families.unix)
  binding.watch(idle, binding.READABLE, () => {})
  binding.socket(binding.AF_UNIX)
  const [client] = await pair(families.unix)
  adopt(client)
  beginWaiting(binding)
}

function isSocket(name) {
  try {
    return readlinkSync(`/proc/self/fd/${name}`).startsWith('socket:')
  } catch {
    // Closed since it was listed.
    return false
  }
}

/** The number of the one socket that `open` opens. */
function numberOf(open) {
  const sockets = () => readdirSync('/proc/self/fd').filter(isSocket)
  const before = sockets()
  open()
  return Number(sockets().find((number) => !before.includes(number)))
}

function openDescriptors() {
  return readdirSync('/proc/self/fd').length
}

function forget(watched) {
  const descriptor = binding.socket(binding.AF_UNIX)
  if (!watched) return
  binding.watch(descriptor, binding.READABLE, () => {})
  binding.unwatch(descriptor)
}

/** How many are left after everything is collected that can be. */
async function leastDescriptors() {
  await collected()
  return openDescriptors()
}

await exercise(checks, prepareToEnd)
