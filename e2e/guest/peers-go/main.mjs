// Runs in the guest: Go programs on AF_VSOCK against ours, over loopback and with the host on the other side of the device. The host
// answers services on port 6000 and, on 6001, does what it is asked to: it dials the guest, and tells what its `forward`s have logged.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connect, listen } from '@upcall/vsock'
import { checkIntegration, passed, TEST_CONN } from './go-tests.mjs'
import { exercises, readAll, serve } from './streams.mjs'
import { finish, start, TIMEOUT } from './support.mjs'

const BYTES = 300_000
const CONNECTIONS = 40
const SERVICES = 6000
const CONTROL = 6001
const ANY_CID = 0xffff_ffff
const GUEST_CID = 42
const { small } = await ask({ run: 'options' })

const dialled = { echo: BYTES, answer: BYTES, source: BYTES, 'ends-first': BYTES, connects: CONNECTIONS }

test('mdlayher/vsock dials our server over loopback', TIMEOUT, async (t) => {
  const { port, served } = await startOurs(t)
  await everyExercise((name, amount) => dialHere(t, `vsock:1:${port}`, name, amount), served)
})

test('firecracker-go-sdk on the host dials our server through our device', TIMEOUT, async (t) => {
  const { port, served } = await startOurs(t)
  await everyExercise((exercise, amount) => ask({ run: 'sdk', port, exercise, amount }), served)
})

test("we dial mdlayher/vsock's listener over loopback", TIMEOUT, async (t) => {
  await startServer(t, `vsock:${ANY_CID}:5000`)
  const dial = () => connect('vsock://local:5000', { allowHalfOpen: true })
  for (const [name, amount] of Object.entries(dialled)) await exercises[name](dial, amount)
})

test('mdlayher/vsock dials the host through our device', TIMEOUT, async (t) => {
  const dial = (name, amount) => dialHere(t, `vsock:2:${SERVICES}`, name, amount)
  await everyExercise(dial, () => ask({ run: 'served' }))
})

test("the host dials mdlayher/vsock's listener through our device", TIMEOUT, async (t) => {
  await startServer(t, `vsock:${ANY_CID}:5001`)
  await ask({ run: 'dial', port: 5001, exercises: dialled })
})

test("the host dials firecracker-go-sdk's listener through our device", TIMEOUT, async (t) => {
  await startServer(t, 'sdk:5002')
  // It accepts ten connections a second.
  await ask({ run: 'dial', port: 5002, exercises: { ...dialled, connects: 8 } })
})

test('mdlayher/vsock is refused where the host does not listen', TIMEOUT, async (t) => {
  const { status, stdout } = await finish(t, ['./peer', 'dial', 'vsock:2:9999', 'echo', '1'])
  assert.equal(status, 1)
  assert.match(JSON.parse(stdout).error, /connection (refused|reset by peer)/)
})

test("mdlayher/vsock's own integration tests, over loopback", TIMEOUT, async (t) => {
  checkIntegration((await finish(t, ['./vsock-tests', '-test.v', '-test.run=Integration'])).stdout)
})

test("nettest.TestConn, mdlayher/vsock, this guest's own CID: all eleven", TIMEOUT, async (t) => {
  await testConn(t, { UPCALL_DIAL: `vsock:${GUEST_CID}:7004`, UPCALL_LISTEN: 'vsock:7004' })
})

for (const [halfClose, ports] of Object.entries({ on: [7000, 7001], off: [7002, 7003] })) {
  for (const swap of small ? ['0'] : ['0', '1']) {
    const way = swap === '0' ? 'the dialer first' : 'the listener first'
    const name = `nettest.TestConn, mdlayher/vsock, device, forward, device, mdlayher/vsock, half-close ${halfClose}, ${way}`
    test(`${name}: BasicIO, without waiting for whom has closed`, TIMEOUT, async (t) => {
      await testConn(t, forwarded(ports, swap), ['BasicIO'])
      const [end] = await ask({ run: 'ends', halfClose, count: 1 })
      assert.equal(end.outcome, 'ok', JSON.stringify(end))
    })
    test(`${name}: all eleven`, TIMEOUT, async (t) => {
      await testConn(t, forwarded(ports, swap))
      // Nothing is left of them.
      await ask({ run: 'ends', halfClose, count: 11 })
    })
  }
}

function forwarded([from, to], swap) {
  return { UPCALL_DIAL: `vsock:2:${from}`, UPCALL_LISTEN: `vsock:${to}`, UPCALL_SWAP: swap }
}

async function testConn(t, env, tests = TEST_CONN) {
  const only = `-test.run=^TestConn$/^(${tests.join('|')})$`
  const { stdout, stderr } = await finish(t, ['./testconn', '-test.v', only], { env: { ...process.env, ...env } })
  assert.deepEqual(passed(stdout, 'TestConn/'), tests, `${stdout}${stderr}`)
}

/** Go dials; `served` tells what the server saw of each connection, in order. */
async function everyExercise(dial, served) {
  assert.equal((await dial('echo', BYTES)).bytes, BYTES)
  assert.equal((await served()).bytes, BYTES)
  const { answer, md5 } = await dial('half-close', BYTES)
  assert.equal(answer, `${BYTES} ${md5}`)
  assert.deepEqual(await served(), { service: 'answer', bytes: BYTES, md5 })
  const closed = await dial('close', BYTES)
  assert.deepEqual(await served(), { service: 'answer', ...closed })
  const read = await dial('read', BYTES)
  assert.deepEqual(await served(), { service: 'source', ...read })
  assert.match((await dial('reset', 0)).failed, /broken pipe|connection reset by peer/)
  await dial('connects', CONNECTIONS)
}

async function dialHere(t, address, exercise, amount) {
  const { status, stdout, stderr } = await finish(t, ['./peer', 'dial', address, exercise, String(amount)])
  assert.equal(status, 0, `${exercise}: ${stdout}${stderr}`)
  return JSON.parse(stdout)
}

/** Our server; `served` gives what each connection was, in order. */
async function startOurs(t) {
  const server = await listen('vsock://any:any', { maxPending: 1024, allowHalfOpen: true })
  t.after(() => server.close())
  const all = []
  server.on('connection', (socket) => {
    const done = serve(socket.on('error', () => {}))
    // A test that waits for it finds its failure.
    done.catch(() => {})
    all.push(done)
  })
  return { port: server.address.port, served: () => all.shift() }
}

async function startServer(t, address) {
  await start(t, ['./peer', 'serve', address], { ready: /listening/ })
}

/** One request to the host, and its answer. */
async function ask(request) {
  const socket = await connect(`vsock://host:${CONTROL}`, { allowHalfOpen: true })
  const answer = readAll(socket)
  socket.end(JSON.stringify(request))
  const { value, error } = JSON.parse(await answer)
  if (error) throw new Error(`host: ${error}`)
  return value
}
