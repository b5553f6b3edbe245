// Two vsock devices, each in a process of its own and each with a guest of its own under QEMU: vhost-device-vsock (Rust) and ours. The same
// image, the same C program at both ends, the same hybrid socket; they take turns. The first run builds the Rust device and the image.
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { buildGuestImage, startInGuest } from '@upcall/qemu'
import { compile } from '../../e2e/compile.mjs'
import { built, missingPeerTools, runTool } from '../../e2e/peers/tools.mjs'
import { quantile } from './measure.mjs'

const VERSION = '0.3.0'
const SOURCE = fileURLToPath(new URL('../../e2e/bench/device-peer.c', import.meta.url))
const OURS = fileURLToPath(new URL('device-child.mjs', import.meta.url))
const PORT = 5000
const GUEST_CID = 42
const MIB = 2 ** 20
/** Each device's turns; the median counts. */
const TURNS = Number(process.env.UPCALL_BENCH_TURNS ?? 15)
const AMOUNTS = { ping: 2_000, receive: 64 * MIB, send: 64 * MIB }
/** Clock ticks of /proc/<pid>/stat: 100 a second on every Linux that Node runs on. */
const TICKS = 100

export async function bench() {
  const missing = missingPeerTools('cargo', 'cc')
  if (missing) return [{ device: `not measured: ${missing}` }]
  try {
    return await compareDevices()
  } catch (error) {
    if (error.code !== 'TOOL_MISSING' && error.code !== 'IMAGE') throw error
    return [{ device: `not measured: ${error.message}` }]
  }
}

async function compareDevices() {
  const program = await rustDevice()
  const image = await buildGuestImage({ cacheDir: fileURLToPath(new URL('../../.cache/guest', import.meta.url)) })
  const folder = mkdtempSync(join(tmpdir(), 'upcall-bench-'))
  const peer = join(folder, 'device-peer')
  const scenes = []
  try {
    compile(SOURCE, peer)
    for (const [name, start] of [
      [`vhost-device-vsock ${VERSION}`, (paths) => startTheirs(program, paths)],
      ['@upcall/vhost-user', startOurs],
    ]) {
      const scene = await startScene(join(folder, String(scenes.length)), { name, start, image, peer })
      scenes.push(scene)
    }
    await inTurn(scenes, peer)
    return scenes.map((scene) => row(scene, scenes[0]))
  } finally {
    for (const scene of scenes) await scene.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Not what the tests build, which is not optimised. */
async function rustDevice() {
  const folder = await built({
    ...{ name: 'vhost-device-vsock-release', sources: [], salt: VERSION, tool: 'cargo' },
    async build({ output, work }) {
      const install = ['install', 'vhost-device-vsock', '--version', VERSION, '--locked', '--no-track', '--force']
      await runTool('cargo', [...install, '--root', work, '--target-dir', join(work, 'target')])
      copyFileSync(join(work, 'bin/vhost-device-vsock'), join(output, 'vhost-device-vsock'))
    },
  })
  return join(folder, 'vhost-device-vsock')
}

/** A device and its guest. */
async function startScene(folder, { name, start, image, peer }) {
  const payloadDir = join(folder, 'payload')
  mkdirSync(payloadDir, { recursive: true })
  copyFileSync(peer, join(payloadDir, 'device-peer'))
  const paths = { socketPath: join(folder, 'vhost'), hybridPath: join(folder, 'vsock') }
  const device = await start(paths)
  let guest
  const close = async () => {
    await guest?.close()
    await device.stop()
  }
  try {
    guest = await startGuest(image, payloadDir, paths.socketPath)
    return { name, ...paths, pid: device.pid, guestPid: guest.guest.pid, close, seen: { ping: [], receive: [], send: [] } }
  } catch (error) {
    await close()
    throw error
  }
}

async function startGuest(image, payloadDir, path) {
  let ready
  const listening = new Promise((resolve) => (ready = resolve))
  const guest = await startInGuest({
    ...{ image, payloadDir, command: ['./device-peer', 'serve', String(PORT)] },
    onLine: (line) => line === 'listening' && ready(),
    ...{ machine: 'q35', memory: '384M', sharedMemory: true, cpus: 1, timeoutMs: 1_800_000, bootTimeoutMs: 120_000 },
    cpu: process.env.UPCALL_BENCH_CPU,
    chardevs: [`socket,id=vsock,path=${path}`],
    devices: ['vhost-user-vsock-pci,chardev=vsock'],
  })
  await Promise.race([listening, guest.result])
  return guest
}

async function startTheirs(program, { socketPath, hybridPath }) {
  const vm = `guest-cid=${GUEST_CID},socket=${socketPath},uds-path=${hybridPath}`
  const child = spawn(program, ['--vm', vm], { stdio: 'ignore' })
  const ended = once(child, 'exit')
  for (let i = 0; !existsSync(socketPath); i++) {
    if (i === 1000 || child.exitCode !== null) throw new Error(`vhost-device-vsock made no ${socketPath}`)
    await delay(10)
  }
  const stop = async () => {
    child.kill('SIGKILL')
    await ended
  }
  return { pid: child.pid, stop }
}

async function startOurs({ socketPath, hybridPath }) {
  const flags = process.env.UPCALL_BENCH_NODE_FLAGS?.split(' ') ?? []
  const child = fork(OURS, [socketPath, hybridPath, String(GUEST_CID)], { execArgv: flags })
  const ended = once(child, 'exit')
  await Promise.race([once(child, 'message'), ended.then(() => Promise.reject(new Error(`${OURS}: ended`)))])
  const stop = async () => {
    child.disconnect()
    await ended
  }
  return { pid: child.pid, stop }
}

/** The first turn of each is for warming up. */
async function inTurn(scenes, peer) {
  for (let turn = 0; turn <= TURNS; turn++) {
    for (const [work, amount] of Object.entries(AMOUNTS)) {
      for (const scene of scenes) {
        const before = [cpuOf(scene.pid), cpuOf(scene.guestPid)]
        const [seconds, round] = await runClient(peer, [work, scene.hybridPath, PORT, amount])
        const cpu = cpuOf(scene.pid) - before[0]
        if (turn > 0) scene.seen[work].push({ seconds, round, cpu, guestCpu: cpuOf(scene.guestPid) - before[1] })
      }
    }
  }
}

async function runClient(peer, args) {
  const child = spawn(peer, args.map(String), { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (chunk) => (text += chunk))
  const [status] = await once(child, 'close')
  if (status !== 0) throw new Error(`device-peer ${args.join(' ')}: ended with ${status}`)
  return text.split(' ').map(Number)
}

/** `×`: how many times theirs it is. A tick is long beside a turn, so CPU time is that of all turns. */
function row({ name, seen }, { seen: theirs }) {
  const round = (it) =>
    quantile(
      it.ping.map(({ round }) => round),
      0.5,
    )
  const rate = (work) => (it) =>
    AMOUNTS[work] /
    MIB /
    quantile(
      it[work].map(({ seconds }) => seconds),
      0.5,
    )
  const total = (values, figure) => values.reduce((sum, value) => sum + value[figure], 0)
  const perGib = (work, figure) => (it) => total(it[work], figure) / ((AMOUNTS[work] * it[work].length) / 2 ** 30)
  const perRound = (it) => (total(it.ping, 'cpu') * 1000) / ((AMOUNTS.ping * it.ping.length) / 1000)
  const cell = (figure, digits) => `${figure(seen).toFixed(digits)} (${(figure(seen) / figure(theirs)).toFixed(2)} ×)`
  return {
    device: name,
    'round trip, µs': cell(round, 0),
    'guest → host, MiB/s': cell(rate('receive'), 0),
    'host → guest, MiB/s': cell(rate('send'), 0),
    'CPU s per GiB, guest → host': cell(perGib('receive', 'cpu'), 2),
    'host → guest': cell(perGib('send', 'cpu'), 2),
    'CPU ms per 1000 rounds': cell(perRound, 0),
    'QEMU: CPU s per GiB, guest → host': cell(perGib('receive', 'guestCpu'), 2),
    'QEMU: host → guest': cell(perGib('send', 'guestCpu'), 2),
  }
}

function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /s, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}
