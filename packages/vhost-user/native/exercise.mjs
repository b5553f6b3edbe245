// Runs every function of the addon, and every way a descriptor or a mapping can end. Plain JavaScript on the bare addon, so that it
// also runs on another machine's Node under qemu-user, and under valgrind.
//
//   node packages/vhost-user/native/exercise.mjs <path of upcall_vhost_user.node>
import assert from 'node:assert/strict'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { abstractAddress, collected, endThreads, exercise, loadAddon, ready as readyOf } from '../../../native/exercise.mjs'

const binding = loadAddon()
const address = (name) => abstractAddress(binding, name)
const ready = (descriptor, events = binding.READABLE) => readyOf(binding, descriptor, events)

const PAGE = 4096
const text = (bytes) => Buffer.from(bytes).toString()

async function pair() {
  const listener = binding.socket(binding.AF_UNIX)
  const name = address()
  binding.bind(listener, name)
  binding.listen(listener, 1)
  const waiting = ready(listener)
  const client = binding.connect(name)
  await waiting
  const server = binding.accept(listener).descriptor
  binding.close(listener)
  return [client, server]
}

const closeAll = (...descriptors) => {
  for (const descriptor of descriptors) binding.close(descriptor)
}

const checks = {
  async 'bytes and descriptors, with the bytes they came with'() {
    const [client, server] = await pair()
    assert.equal(binding.receive(server, 10), undefined)
    const bells = [binding.eventfd(), binding.eventfd()]
    assert.equal(binding.send(client, Buffer.from('plain'), []), 5)
    assert.equal(binding.send(client, Buffer.from('with'), bells), 4)
    const plain = binding.receive(server, 5)
    assert.deepEqual([Buffer.from(plain.bytes).toString(), plain.descriptors.length], ['plain', 0])
    const first = binding.receive(server, 1)
    assert.deepEqual([first.bytes.length, first.descriptors.length], [1, 2])
    const rest = binding.receive(server, 100)
    assert.deepEqual([Buffer.from(rest.bytes).toString(), rest.descriptors.length], ['ith', 0])
    const rung = ready(bells[1])
    binding.signal(first.descriptors[1])
    await rung
    binding.close(client)
    assert.equal(binding.receive(server, 1).bytes.length, 0)
    closeAll(server, ...bells, ...first.descriptors)
  },

  // That of more than eight none is left open is a test of the package's: qemu-user, under which this also runs, forgets to say MSG_CTRUNC.
  async 'eight descriptors come at once'() {
    const [client, server] = await pair()
    const bell = binding.eventfd()
    assert.throws(() => binding.send(client, Buffer.from('x'), Array(17).fill(bell)), TypeError)
    assert.equal(binding.send(client, Buffer.from('x'), Array(8).fill(bell)), 1)
    const { descriptors } = binding.receive(server, 1)
    assert.equal(descriptors.length, 8)
    closeAll(client, server, bell, ...descriptors)
  },

  async 'a full socket says so, and an empty one at the other end hangs up'() {
    const [client, server] = await pair()
    const block = Buffer.alloc(8192)
    while (binding.send(client, block, []) !== undefined);
    binding.close(server)
    assert.throws(() => binding.send(client, block, []), { code: 'EPIPE', syscall: 'sendmsg' })
    binding.close(client)
  },

  async 'eventfds: a bell that has rung is ready, and drained is not'() {
    const bell = binding.eventfd()
    for (let i = 0; i < 3; i++) binding.signal(bell)
    await ready(bell)
    binding.drain(bell)
    binding.drain(bell)
    let rung = false
    binding.watch(bell, binding.READABLE, () => {
      rung = true
    })
    await turn()
    await turn()
    assert.equal(rung, false)
    binding.close(bell)
    for (const call of [binding.drain, binding.signal]) assert.throws(() => call(bell), { code: 'EBADF' })
  },

  async 'what hangs up cannot be a bell'() {
    const [client, server] = await pair()
    binding.close(client)
    assert.throws(() => binding.drain(server), { code: 'EINVAL', syscall: 'read' })
    assert.throws(() => binding.signal(server), { code: 'EPIPE', syscall: 'write' })
    binding.close(server)
  },

  'windows over shared memory'() {
    const file = binding.memfd(10 * PAGE)
    const one = binding.map(file, 0, 10 * PAGE, 4 * PAGE, 5 * PAGE)
    const two = binding.map(file, 3 * PAGE, 7 * PAGE, 16 * PAGE, 16 * PAGE)
    binding.close(file)
    assert.deepEqual(
      one.windows.map((window) => window.byteLength / PAGE),
      [5, 5, 2],
    )
    assert.deepEqual(
      two.windows.map((window) => window.byteLength / PAGE),
      [7],
    )
    // Page 4 is the first window's last and the second's first, and page 1 of the other mapping.
    new Uint8Array(one.windows[0])[4 * PAGE] = 7
    assert.equal(new Uint8Array(one.windows[1])[0], 7)
    assert.equal(new Uint8Array(two.windows[0])[PAGE], 7)
    const words = new Uint16Array(one.windows[2], 2, 1)
    Atomics.store(words, 0, 513)
    assert.equal(new DataView(two.windows[0]).getUint16(5 * PAGE + 2, true), 513)
    for (const { mapping } of [one, two]) binding.unmap(mapping)
  },

  async 'bytes straight into windows and out of them'() {
    const [client, server] = await pair()
    const file = binding.memfd(2 * PAGE)
    const { mapping, windows: buffers } = binding.map(file, 0, 2 * PAGE, PAGE, PAGE)
    const windows = buffers.map((buffer) => new Uint8Array(buffer))
    const into = Uint32Array.of(0, PAGE - 3, 3, 1, 5, 4)
    assert.equal(binding.readInto(server, windows, into, 2), -1)
    binding.send(client, Buffer.from('straight on'), [])
    assert.equal(binding.readInto(server, windows, into, 2), 7)
    assert.deepEqual([text(windows[0].subarray(PAGE - 3)), text(windows[1].subarray(5, 9))], ['str', 'aigh'])
    assert.equal(binding.writeFrom(server, windows, into, 2), 7)
    assert.equal(binding.writeFrom(server, windows, into, 1), 3)
    assert.equal(text(binding.receive(client, 100).bytes), 'straighstr')
    for (const wrong of [
      [2, 0, 1],
      [0, PAGE, 1],
      [0, 0, PAGE + 1],
      [1, 1, 0xffffffff],
      [0, 0xffffffff, 1],
      [0, 0, 0],
    ])
      for (const call of [binding.readInto, binding.writeFrom])
        assert.throws(() => call(server, windows, Uint32Array.from(wrong), 1), TypeError, String(wrong))
    assert.throws(() => binding.readInto(server, windows, into, 3), TypeError)
    assert.throws(() => binding.readInto(server, windows, into, 1025), TypeError)
    assert.throws(() => binding.readInto(server, [into], into, 1), TypeError)
    binding.unmap(mapping)
    assert.throws(() => binding.readInto(server, windows, into, 1), TypeError)
    assert.throws(() => binding.readInto(file, [new Uint8Array(1)], Uint32Array.of(0, 0, 1), 1), { code: 'ENOTSOCK' })
    closeAll(client, server, file)
  },

  async 'a full socket, an ended socket, and a copy of its number'() {
    const [client, server] = await pair()
    const [windows, all] = [[new Uint8Array(65_536)], Uint32Array.of(0, 0, 65_536)]
    while (binding.writeFrom(server, windows, all, 1) > 0);
    assert.equal(binding.writeFrom(server, windows, all, 1), -1)
    binding.close(client)
    assert.throws(() => binding.writeFrom(server, windows, all, 1), { code: 'EPIPE', syscall: 'sendmsg' })
    // It had bytes that it has not read: this is told once.
    assert.throws(() => binding.readInto(server, windows, all, 1), { code: 'ECONNRESET', syscall: 'recvmsg' })
    assert.equal(binding.readInto(server, windows, all, 1), 0)
    binding.close(server)
    const file = openSync('/dev/null', 'r')
    const copy = binding.duplicate(file)
    closeSync(file)
    assert.throws(() => binding.readInto(copy, windows, all, 1), { code: 'ENOTSOCK' })
    assert.throws(() => binding.duplicate(file), { code: 'EBADF' })
    binding.close(copy)
  },

  'no view reaches what has been unmapped'() {
    const file = binding.memfd(PAGE)
    const { mapping, windows } = binding.map(file, 0, PAGE, PAGE, PAGE)
    const bytes = new Uint8Array(windows[0])
    const words = new Uint32Array(windows[0], 8, 2)
    bytes[0] = 1
    binding.unmap(mapping)
    assert.deepEqual([windows[0].byteLength, bytes.length, bytes[0], words.length], [0, 0, undefined, 0])
    bytes[0] = 2
    assert.throws(() => new Uint8Array(windows[0], 0, 1), TypeError)
    assert.throws(() => Atomics.load(words, 0), TypeError)
    binding.unmap(mapping)
    binding.close(file)
  },

  'a file that is too short is not mapped'() {
    const file = binding.memfd(PAGE)
    assert.throws(() => binding.map(file, 0, 2 * PAGE, PAGE, PAGE), { code: 'EINVAL', syscall: 'mmap' })
    assert.throws(() => binding.map(file, PAGE, 1, PAGE, PAGE), { code: 'EINVAL', syscall: 'mmap' })
    const bell = binding.eventfd()
    assert.throws(() => binding.map(bell, 0, PAGE, PAGE, PAGE), { syscall: 'mmap' })
    closeAll(file, bell)
  },

  'wrong arguments are TypeErrors'() {
    const good = binding.eventfd()
    const junk = [undefined, null, -1, 1.5, Number.NaN, 1e300, 'x', Symbol('s'), 1n, {}, [], new Proxy({}, {}), () => {}]
    for (const [name, call] of Object.entries(binding)) {
      if (typeof call !== 'function' || name === 'eventfd') continue
      assert.throws(() => call(), TypeError, `${name}()`)
      for (const value of junk)
        assert.throws(() => call(value, value, value, value, value), TypeError, `${name}(${String(value)})`)
    }
    for (const value of [...junk, new Uint8Array(0), new Uint8Array(8193), new Uint16Array(1)]) {
      assert.throws(() => binding.send(good, value, []), TypeError)
      assert.throws(() => binding.send(good, new Uint8Array(1), [value]), TypeError)
      assert.throws(() => binding.receive(good, value), TypeError)
      assert.throws(() => binding.unmap(value), TypeError)
    }
    assert.throws(() => binding.map(good, 0, 1, 2, 1), TypeError)
    assert.throws(() => binding.unmap(good), TypeError)
    assert.throws(() => binding.close(Object.create(good)), TypeError)
    binding.close(good)
  },

  async 'what is forgotten is collected'() {
    const before = await left()
    for (let i = 0; i < 20; i++) forget()
    assert.deepEqual(await left(), before)
  },

  async 'a thread that ends takes all it had with it'() {
    const before = await left()
    await endThreads(import.meta.url)
    assert.deepEqual(await left(), before)
  },
}

function forget() {
  const file = binding.memfd(PAGE)
  const { mapping, windows } = binding.map(file, 0, PAGE, PAGE, PAGE)
  return [mapping, windows].length
}

/** In the thread: memory mapped, bells watched, a socket with descriptors on the way; then the thread ends. */
async function prepareToEnd() {
  const [client, server] = await pair()
  const file = binding.memfd(PAGE)
  const { windows } = binding.map(file, 0, PAGE, PAGE, PAGE)
  new Uint8Array(windows[0])[0] = 1
  const bell = binding.eventfd()
  binding.watch(bell, binding.READABLE, () => {})
  binding.watch(server, binding.READABLE, () => {})
  binding.send(client, Buffer.from('x'), [file, bell])
}

/** Open descriptors and mapped guest memories, after everything is collected that can be. */
async function left() {
  await collected()
  const mappings = readFileSync('/proc/self/maps', 'utf8').match(/memfd:guest-memory/g)?.length ?? 0
  return { descriptors: readdirSync('/proc/self/fd').length, mappings }
}

await exercise(checks, prepareToEnd)
