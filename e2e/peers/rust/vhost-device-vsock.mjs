// The device vhost-device-vsock 0.3.0 between a QEMU guest and ours on the host: `hvsock` both ways, and the command line.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UPCALL } from '../../upcall.mjs'
import { until } from '../../vhost-user/scene.mjs'
import { PeerGuest, playAll } from '../guest.mjs'
import { built, runTool } from '../tools.mjs'
import { sameArguments } from './same-arguments.mjs'

const VERSION = '0.3.0'
const RUN_MS = 60_000
const MIB = 1 << 20

/** Installed as people install it, with the versions that its own lock file names. */
export async function installDevice() {
  const output = await built({
    ...{ name: 'vhost-device-vsock', sources: [], salt: VERSION, tool: 'cargo' },
    async build({ output, work }) {
      const install = ['install', 'vhost-device-vsock', '--version', VERSION, '--locked', '--debug', '--no-track', '--force']
      await runTool('cargo', [...install, '--root', work, '--target-dir', join(work, 'target')])
      copyFileSync(join(work, 'bin/vhost-device-vsock'), join(output, 'vhost-device-vsock'))
    },
  })
  return join(output, 'vhost-device-vsock')
}

/** For `PeerGuest.start`: serves the device until it is closed. */
function theirDevice(program) {
  return async ({ socketPath, hybridPath, guestCid }) => {
    const vm = `guest-cid=${guestCid},socket=${socketPath},uds-path=${hybridPath}`
    const child = spawn(program, ['--vm', vm], { stdio: ['ignore', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', (chunk) => (stderr = `${stderr}${chunk}`.slice(-2000)))
    const ended = once(child, 'close')
    ended.catch(() => {})
    await until(`vhost-device-vsock's socket (${stderr})`, () => existsSync(socketPath))
    return {
      async close() {
        child.kill('SIGKILL')
        await ended
      },
    }
  }
}

/** `peer`: the program of the guest; `command`: how it is called there. */
export async function run(checks, image, { small, peer, command }) {
  const program = await checks.check('vhost-device-vsock: it is installed, or found in the cache', () => installDevice())
  if (program === undefined) return
  const folder = mkdtempSync(join(tmpdir(), 'upcall-theirs-'))
  try {
    await sameArguments(checks, program, folder)
    await withGuest(checks, image, { small, peer, command, program, folder })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function withGuest(checks, image, { small, peer, command, program, folder }) {
  // It does not answer a guest that connects to a port without a listener: the guest's kernel waits for two seconds.
  const ways = { halfClose: false, refusal: 'ETIMEDOUT' }
  const start = { image, programs: [peer], name: 'peers-vhost-device-vsock', device: theirDevice(program), ...ways }
  const guest = await checks.check('vhost-device-vsock: a guest boots with it as its vsock', () => PeerGuest.start(start))
  if (guest === undefined) return
  try {
    await playAll(checks, guest, { name: 'vhost-device-vsock', command, places: ['host'], small })
    await halfClose(checks, guest, command)
    await commandLine(checks, guest, { command, folder })
    await bulk(checks, guest, { command, bytes: (small ? 8 : 64) * MIB })
  } finally {
    await guest.close()
  }
}

/** What docs/vsock.md says of its half-close: there is none, either way. */
async function halfClose(checks, guest, command) {
  const play = (connector, theirs, ours) => guest.play({ command, place: 'host', connector, theirs, ours, halfClose: true })
  for (const connector of ['theirs', 'ours']) {
    const who = connector === 'theirs' ? 'it connects' : 'it listens'
    await checks.check(`vhost-device-vsock, ${who}: our end() ends both directions of the guest`, async () => {
      const outcome = await play(
        connector,
        ['recv-end', 'pause:300', 'send:1000', 'close'],
        ['send:1000', 'shutdown:write', 'recv-end'],
      )
      received({ ...outcome.theirs, error: undefined }, 1000)
      assert.deepEqual(outcome.theirs.error, { step: 'send:1000', code: 'EPIPE' }, JSON.stringify(outcome))
    })
    await checks.check(`vhost-device-vsock, ${who}: the guest's shutdown(SHUT_WR) is not passed on, its close is`, async () => {
      const theirs = ['send:1000', 'shutdown:write', 'recv:1000', 'close']
      const outcome = await play(connector, theirs, ['recv:1000', 'no-end:700', 'send:1000', 'recv-end'])
      received(outcome.ours, 1000)
      received(outcome.theirs, 1000)
    })
  }
}

/** `upcall vsock connect`, `listen` and `forward`, with the guest's program at the other end. */
async function commandLine(checks, guest, { command, folder }) {
  await checks.check('vhost-device-vsock: a port without a listener is refused', async () => {
    const { error } = await guest.hostDial(guest.nextPort(), [])
    assert.equal(error.step, 'connect')
    const { status, stderr } = await upcall(['vsock', 'connect', `hvsock://${guest.hybridPath}:${guest.nextPort()}`])
    assert.equal(status, 3, stderr)
    return error.code
  })
  const bytes = patterned(200_000)
  await checks.check('vhost-device-vsock: upcall vsock connect sends a file and prints the answer', async () => {
    const port = guest.nextPort()
    const steps = ['recv:200000', 'send:100000', 'close']
    const program = await guest.start([...command, 'listen', port, ...steps], { listens: true })
    const { status, stdout, stderr } = await upcall(['vsock', 'connect', `hvsock://${guest.hybridPath}:${port}`], {
      input: bytes,
    })
    assert.equal(status, 0, stderr)
    assert.ok(stdout.equals(bytes.subarray(0, 100_000)), `${stdout.length} bytes`)
    received(await program.outcome, 200_000)
  })
  await checks.check('vhost-device-vsock: upcall vsock listen takes what the guest sends', async () => {
    const port = guest.nextPort()
    const listener = upcall(['vsock', 'listen', `hvsock://${guest.hybridPath}:${port}`])
    await until('the socket of the listener', () => existsSync(`${guest.hybridPath}_${port}`))
    const program = await guest.start([...command, 'connect', 2, port, 'send:200000', 'close'])
    const { status, stdout, stderr } = await listener
    assert.equal(status, 0, stderr)
    assert.ok(stdout.equals(bytes), `${stdout.length} bytes`)
    assert.equal((await program.outcome).error, undefined)
  })
  await checks.check('vhost-device-vsock: upcall vsock forward carries a Unix socket into the guest', async () => {
    const port = guest.nextPort()
    const path = join(folder, 'forward')
    const forward = spawn(process.execPath, [UPCALL, 'vsock', 'forward', `unix:${path}`, `hvsock://${guest.hybridPath}:${port}`])
    try {
      await until('the socket of forward', () => existsSync(path))
      const steps = ['recv:200000', 'send:200000', 'close']
      const program = await guest.start([...command, 'listen', port, ...steps], { listens: true })
      const { status, stdout, stderr } = await upcall(['vsock', 'connect', `unix:${path}`], { input: bytes })
      assert.equal(status, 0, stderr)
      assert.ok(stdout.equals(bytes), `${stdout.length} bytes`)
      received(await program.outcome, 200_000)
    } finally {
      forward.kill('SIGKILL')
      await once(forward, 'close')
    }
  })
}

/** One direction after the other: this device stops for ever when 1 MiB blocks are echoed both ways at once. */
async function bulk(checks, guest, { command, bytes }) {
  const size = `${bytes / MIB} MiB`
  for (const connector of ['theirs', 'ours']) {
    const who = connector === 'theirs' ? 'connection of the guest' : 'connection of the host'
    const play = (theirs, ours) => guest.play({ command, place: 'host', connector, theirs, ours })
    await checks.check(`vhost-device-vsock: ${size} to the host, ${who}`, async () => {
      received((await play([`send:${bytes}`, 'close'], ['recv-end'])).ours, bytes)
    })
    await checks.check(`vhost-device-vsock: ${size} to the guest, ${who}`, async () => {
      received((await play([`recv:${bytes}`, 'close'], [`send:${bytes}`, 'recv-end'])).theirs, bytes)
    })
  }
}

function received(outcome, bytes) {
  const { error, wrong, received } = outcome
  assert.deepEqual({ error, wrong, received }, { error: undefined, wrong: 0, received: bytes })
}

function patterned(count) {
  return Buffer.from(Array.from({ length: count }, (_, at) => at % 251))
}

async function upcall(args, { input = '' } = {}) {
  const child = spawn(process.execPath, [UPCALL, ...args], { stdio: ['pipe', 'pipe', 'pipe'], timeout: RUN_MS })
  const [stdout, stderr] = [[], []]
  child.stdout.on('data', (chunk) => stdout.push(chunk))
  child.stderr.on('data', (chunk) => stderr.push(chunk))
  child.stdin.on('error', () => {}).end(input)
  const [status] = await once(child, 'close')
  return { status, stdout: Buffer.concat(stdout), stderr: String(Buffer.concat(stderr)) }
}
