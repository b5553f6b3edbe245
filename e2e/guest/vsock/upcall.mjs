// The tool and the library against `upcall serve`, over all three kinds of address.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'
import { echoServer, finish, start } from './support.mjs'

const manifest = createRequire(import.meta.url).resolve('upcall/package.json')
const upcall = [process.execPath, join(dirname(manifest), 'dist/main.js')]
const timeout = 300_000
/** The simulated guest is of this guest's architecture; so are the requests. */
const aarch64 = process.arch === 'arm64'
const arch = aarch64 ? 'aarch64' : 'x86_64'

const bytes = randomBytes(1 << 20)
const md5 = createHash('md5').update(bytes).digest('hex')

/** A simulated guest that serves there until the test ends. */
function serve(t, listen) {
  const options = ['--listen', listen, '--max-cpus', '8', '--quirks', 'none']
  return start(t, [...upcall, '--json', 'serve', ...options], { ready: /"listening"/ })
}

// One program: nothing but the address differs.
async function program(address) {
  await using_(new DeviceManager({ arch, dial: ({ signal }) => connect(address, { signal }) }), async (manager) => {
    await manager.ready({ timeoutMs: 30_000 })
    await manager.addCpus(aarch64 ? { count: 2 } : { apicIds: [1, 2] })
    await manager.addMmio({ base: 0xd000_0000n, size: 0x1000n, irq: 5 })
    await manager.addPci('00:05.0')
    await manager.removePci('00:05.0')
    await manager.removeMmio({ base: 0xd000_0000n, size: 0x1000n, irq: 5 })
    await manager.removeCpus(aarch64 ? { count: 1 } : { apicIds: [2] })
    await assert.rejects(manager.addMmio({ base: 0xd000_0000n, size: 0n, irq: 5 }))
  })
}

/** What `await using` does, for a Node that does not have it. */
async function using_(resource, use) {
  try {
    await use(resource)
  } finally {
    await resource[Symbol.asyncDispose]()
  }
}

for (const [listening, target] of [
  ['vsock://any:219', 'vsock://local:219'],
  ['hvsock:///tmp/vm.sock:219', 'hvsock:///tmp/vm.sock:219'],
  ['unix:/tmp/guest.sock', 'unix:/tmp/guest.sock'],
]) {
  test(`one program, by DeviceManager, at ${target}`, { timeout }, async (t) => {
    const { said } = await serve(t, listening)
    await program(target)
    const requests = said()
      .split('\n')
      .filter((line) => line.includes('"event":"request"'))
    assert.ok(requests.length >= 6, said())
  })
}

test('upcall --target vsock://local:219: each command, its output and its exit status', { timeout }, async (t) => {
  await serve(t, 'vsock://any:219')
  const run = (...args) => finish(t, [...upcall, '--json', '--target', 'vsock://local:219', ...args])
  const ok = async (args, op) => {
    const { status, stdout, stderr } = await run(...args)
    assert.equal(status, 0, stderr + stdout)
    if (op) assert.deepEqual([JSON.parse(stdout).op, JSON.parse(stdout).outcome], [op, 'ok'])
  }
  await ok(['wait'])
  await ok(['status'])
  await ok(['cpu', 'add', ...(aarch64 ? ['--count', '2'] : ['1', '2'])], 'cpu.add')
  await ok(['mmio', 'add', '--base', '0xd0000000', '--size', '0x1000', '--irq', '5'], 'mmio.add')
  await ok(['pci', 'add', '00:05.0'], 'pci.add')
  const refused = await run('request', '--type', '3')
  assert.equal(refused.status, 1, refused.stdout)
})

test('upcall without a server: not-sent, exit status 3', { timeout }, async (t) => {
  const { status, stdout } = await finish(t, [...upcall, '--json', '--target', 'vsock://local:219', 'pci', 'add', '00:05.0'])
  assert.equal(status, 3, stdout)
  assert.equal(JSON.parse(stdout).outcome, 'not-sent')
})

test('upcall vsock cid', { timeout }, async (t) => {
  const { status, stdout } = await finish(t, [...upcall, 'vsock', 'cid'])
  assert.equal(status, 0)
  assert.equal(stdout, '1\n')
})

test('upcall vsock connect: stdin to socat, its answer after our EOF to stdout', { timeout }, async (t) => {
  const command = ['socat', '-d', '-d', '-t', '30', 'VSOCK-LISTEN:6301', 'SYSTEM:md5sum']
  await start(t, command, { ready: /listening on/, stream: 'stderr' })
  const { status, stdout, stderr } = await finish(t, [...upcall, 'vsock', 'connect', 'vsock://local:6301'], { input: bytes })
  assert.equal(status, 0, stderr)
  assert.match(stdout, new RegExp(`^${md5} `))
})

test('upcall vsock listen --exec: a program for socat', { timeout }, async (t) => {
  const command = [...upcall, 'vsock', 'listen', 'vsock://any:6302', '--exec', 'md5sum']
  const { exited } = await start(t, command, { ready: /listening/, stream: 'stderr' })
  const { stdout, stderr } = await finish(t, ['socat', '-t', '30', '-', 'VSOCK-CONNECT:1:6302'], { input: bytes })
  assert.match(stdout, new RegExp(`^${md5} `), stderr)
  assert.deepEqual(await exited, [0, null])
})

test('upcall vsock forward: from TCP to vsock, from vsock to a Unix socket', { timeout }, async (t) => {
  const forward = (...ends) => start(t, [...upcall, 'vsock', 'forward', ...ends], { ready: /listening/ })
  const server = await echoServer(t, 'unix:/tmp/echo.sock')
  assert.equal(server.address.path, '/tmp/echo.sock')
  await Promise.all([forward('vsock://any:6303', 'unix:/tmp/echo.sock'), forward('tcp:6304', 'vsock://local:6303')])
  const { status, stdout, stderr } = await finish(t, ['sh', '-c', 'socat -t 30 - TCP:127.0.0.1:6304 | md5sum'], { input: bytes })
  assert.equal(status, 0, stderr)
  assert.match(stdout, new RegExp(`^${md5} `))
})
