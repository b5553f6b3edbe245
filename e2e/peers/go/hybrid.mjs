// On the host: firecracker-go-sdk dials our hybrid sockets, of the library and of `upcall vsock forward --as-vmm`, as each VMM.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, hybridProfiles, listenHybrid } from '@upcall/vsock'
import { TEST_CONN } from '../../guest/go-tests.mjs'
import { serve } from '../../guest/peers-go/streams.mjs'
import { dialWith, ends, startForward, testConn } from './run.mjs'

const PORT = 5000
const BYTES = 1 << 20
const CONNECTIONS = 200

export async function run(checks, { peer, testConn: tests }, { small = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-peers-'))
  const guest = await startGuest(join(folder, 'guest'))
  const scene = { checks, peer, folder, guest, path: join(folder, 'vsock') }
  try {
    for (const profile of small ? [undefined] : [undefined, ...hybridProfiles]) {
      for (const halfClose of [true, false]) {
        await library(scene, { profile, halfClose })
        await forwarded(scene, { profile, halfClose })
      }
    }
    await refusals(scene)
    for (const halfClose of [true, false]) await connTests(scene, tests, halfClose)
    await chained(scene, tests)
  } finally {
    guest.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Plays the guest: Node's own server, of which `served` gives what each connection was, in order. */
async function startGuest(path) {
  const served = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const done = serve(socket.on('error', () => {}))
    // A check that waits for it finds its failure.
    done.catch(() => {})
    served.push(done)
  })
  await once(server.listen(path), 'listening')
  return { path, served: () => served.shift(), close: () => server.close(), forget: () => served.splice(0) }
}

async function library(scene, { profile, halfClose }) {
  const { checks, folder, guest } = scene
  const path = join(folder, 'vsock')
  const hybrid = await listenHybrid({ path, profile, halfClose, route: () => connect({ transport: 'unix', path: guest.path }) })
  try {
    await checks.check(`firecracker-go-sdk dials listenHybrid, ${nameOf({ profile, halfClose })}`, () =>
      exercise(scene, halfClose),
    )
  } finally {
    await hybrid.close()
  }
}

async function forwarded(scene, { profile, halfClose }) {
  const { checks, guest, path } = scene
  await checks.check(`firecracker-go-sdk dials forward --as-vmm, ${nameOf({ profile, halfClose })}`, async () => {
    const flags = ['--as-vmm', ...(profile ? ['--profile', profile] : []), halfClose ? '--half-close' : '--no-half-close']
    const forward = await startForward(...flags, `hvsock://${path}:${PORT}`, `unix:${guest.path}`)
    try {
      await exercise(scene, halfClose)
    } finally {
      await forward.stop()
      rmSync(path, { force: true })
    }
  })
}

function nameOf({ profile, halfClose }) {
  return `${profile ?? 'no profile'}, half-close ${halfClose ? 'on' : 'off'}`
}

async function exercise({ peer, path, guest }, halfClose) {
  const dial = (name, bytes) => dialWith(peer, `hvsock:${path}:${PORT}`, name, bytes)
  guest.forget()
  assert.equal((await dial('echo', BYTES)).bytes, BYTES)
  assert.equal((await guest.served()).bytes, BYTES)

  const { answer, md5 } = await dial('half-close', BYTES)
  const { bytes, md5: got } = await guest.served()
  assert.deepEqual([bytes, got], [BYTES, md5], 'the guest got everything')
  assert.equal(answer, halfClose ? `${BYTES} ${md5}` : '')

  const closed = await dial('close', BYTES)
  const { bytes: count, md5: digest } = await guest.served()
  assert.deepEqual([count, digest], [BYTES, closed.md5], 'the guest got what was sent before the close')

  const read = await dial('read', BYTES)
  assert.deepEqual([read.bytes, read.md5], [BYTES, (await guest.served()).md5], 'the dialer got everything')

  assert.match((await dial('reset', 0)).failed, /broken pipe|connection reset by peer/)
  await dial('connects', CONNECTIONS)
}

/** The SDK takes a connection that is closed without OK for a guest that does not listen yet, and dials again. */
async function refusals({ checks, peer, folder, guest }) {
  await checks.check('firecracker-go-sdk dials until the guest listens', async () => {
    const path = join(folder, 'late')
    let dials = 0
    const route = () => (++dials < 4 ? undefined : connect({ transport: 'unix', path: guest.path }))
    const hybrid = await listenHybrid({ path, route })
    try {
      await dialWith(peer, `hvsock:${path}:${PORT}`, 'echo', 1)
      assert.equal(dials, 4)
    } finally {
      await hybrid.close()
    }
  })
}

/** Go's own tests of a connection: dialled by firecracker-go-sdk, accepted by Go's net at the end of `forward`. */
async function connTests({ checks, folder, path }, tests, halfClose) {
  const behind = join(folder, 'accepted')
  const env = { UPCALL_DIAL: `hvsock:${path}:${PORT}`, UPCALL_LISTEN: `unix:${behind}` }
  const ways = nameOf({ halfClose })
  const flags = ['--as-vmm', halfClose ? '--half-close' : '--no-half-close']
  const forward = await startForward(...flags, `hvsock://${path}:${PORT}`, `unix:${behind}`)
  try {
    await checks.check(
      `nettest.TestConn/BasicIO through forward --as-vmm, ${ways}: no waiting for a dialer that has closed`,
      async () => {
        await testConn(tests, env, ['BasicIO'])
        const [{ outcome, sent, error }] = await ends(forward, 1)
        assert.deepEqual({ outcome, sent, error }, { outcome: 'ok', sent: BYTES, error: undefined })
      },
    )
    for (const [way, swap] of Object.entries({ 'the dialer first': '0', 'the listener first': '1' })) {
      await checks.check(`nettest.TestConn through forward --as-vmm, ${ways}, ${way}: all eleven`, async () => {
        await testConn(tests, { ...env, UPCALL_SWAP: swap })
        // Nothing is left of them.
        await ends(forward, TEST_CONN.length)
      })
    }
  } finally {
    await forward.stop()
    rmSync(path, { force: true })
  }
}

/** Two of them, one after the other: the first dials a hybrid socket itself, and cannot tell it of an end but by closing. */
async function chained({ checks, folder, path }, tests) {
  const [second, behind] = [join(folder, 'second'), join(folder, 'accepted')]
  const forwards = []
  try {
    forwards.push(await startForward('--as-vmm', `hvsock://${second}:${PORT}`, `unix:${behind}`))
    forwards.push(await startForward('--as-vmm', `hvsock://${path}:${PORT}`, `hvsock://${second}:${PORT}`))
    const env = { UPCALL_DIAL: `hvsock:${path}:${PORT}`, UPCALL_LISTEN: `unix:${behind}` }
    for (const [way, swap] of Object.entries({ 'the dialer closes': '0', 'the other end closes': '1' })) {
      await checks.check(`nettest.TestConn/BasicIO through two forwards without half-close, ${way}: no waiting`, async () => {
        await testConn(tests, { ...env, UPCALL_SWAP: swap }, ['BasicIO'])
        for (const forward of forwards) {
          const [{ outcome, error }] = await ends(forward, 1)
          assert.deepEqual({ outcome, error }, { outcome: 'ok', error: undefined })
        }
      })
    }
    await checks.check('nettest.TestConn through two forwards: all eleven', () => testConn(tests, env))
  } finally {
    for (const forward of forwards) await forward.stop()
  }
}
