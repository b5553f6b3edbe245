// The client crate dbs-upcall 0.3.0 against `upcall serve`, which answers as each of the patched kernels does.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { deviceManagerGuest, simulatedGuest } from '@upcall/device-manager/simulated'
import { UpcallServer } from '@upcall/server'
import { duplexPair } from '@upcall/testkit'
import { listenHybrid } from '@upcall/vsock'
import { encodeRequest } from '@upcall/wire'
import { UPCALL } from '../../upcall.mjs'
import { Program } from '../program.mjs'
import { built, findTool, missingPeerTools, runTool } from '../tools.mjs'

const SOURCE = fileURLToPath(new URL('upcall-client', import.meta.url))
const ARM = 'aarch64-unknown-linux-gnu'

const [EIO, EEXIST, ENODEV, EINVAL] = [-5, -17, -19, -22]
/** No answer ever: the kernel's thread is gone. */
const SILENCE = 'silence'
const SILENCE_MS = 2000

const MAX_CPUS = 4
const MMIO_PADDING_AT = 36

const old = (kernel) => kernel === '5.10' || kernel === '6.1'
const window = (base, irq, size = 0x1000) => ({ base, size, irq })

/** What each kernel answers: for x86_64, one CPU of four at boot. An answer to a CPU request that succeeds has an index. */
const devices = () => [
  ['addMmio', window(0xd0000000, 6), 0],
  ['addMmio', window(0xd0000000, 6), EEXIST],
  ['addMmio', window(0xd0000800, 7), EEXIST],
  ['addMmio', window(0xd0001000, 6), EEXIST],
  ['addMmio', window(0xd0001000, 0), EINVAL],
  // The line that Dragonball's devices share.
  ['addMmio', window(0xd0002000, 5), 0],
  ['addMmio', window(0xd0003000, 5), 0],
  ['delMmio', window(0xd0000000, 6, 0x2000), ENODEV],
  ['delMmio', window(0xd0000000, 7), ENODEV],
  ['delMmio', window(0xd0000000, 6), 0],
  ['delMmio', window(0xd0000000, 6), ENODEV],
  ['addMmio', window(0xd0000000, 6), 0],
  ['addVcpu', { apicIds: [1, 2] }, 0, 2],
  ['addVcpu', { apicIds: [2] }, EINVAL],
  ['addVcpu', { apicIds: [0] }, EINVAL],
  ['delVcpu', { apicIds: [2] }, 0, 1],
  ['delVcpu', { apicIds: [1, 0] }, EINVAL],
  ['addVcpu', { apicIds: [2, 3] }, 0, 2],
  ['delVcpu', { apicIds: [3, 2] }, 0, 2],
  // Not there: the kernel dereferences a null pointer, and the client waits.
  ['delVcpu', { apicIds: [3] }, SILENCE],
]

/** Until they have waited for a vCPU, the older kernels do not know that there is none. */
const absent = (kernel, slow) => [
  ['addVcpu', { apicIds: [9] }, old(kernel) ? EIO : EINVAL, undefined, old(kernel) && slow ? 12_000 : 0],
]

/** With all four CPUs online at boot: the two generations differ. */
const holes = (kernel) => [
  ['delVcpu', { apicIds: [1] }, 0, 1],
  ['addVcpu', { apicIds: [3] }, old(kernel) ? EEXIST : EINVAL],
]
const ascending = (kernel) => [['delVcpu', { apicIds: [2, 3] }, old(kernel) ? SILENCE : 0, 2]]

/** The client names no CPU there, and the guest tells how many are online. */
const arm = () => [
  ['addMmio', window(0x40000000, 0), 0],
  ['addMmio', window(0x40000000, 1), EEXIST],
  // The line that Dragonball's devices would share: the kernel shares 5 there, too.
  ['addMmio', window(0x40001000, 32), 0],
  ['addMmio', window(0x40002000, 32), EEXIST],
  ['addMmio', window(0x40002000, 5), 0],
  ['addMmio', window(0x40003000, 5), 0],
  ['delMmio', window(0x40004000, 33), ENODEV],
  ['delMmio', window(0x40000000, 0), 0],
  ['addVcpu', { apicIds: [0, 0] }, 0, 3],
  ['delVcpu', { apicIds: [0] }, 0, 2],
  ['delVcpu', { apicIds: [0, 0] }, EINVAL],
]

export async function run(checks, { small }) {
  const client = await checks.check('dbs-upcall: a client is built, or found in the cache', () => buildClient())
  if (client === undefined) return
  await clientOf(checks, [client], { small, arch: 'x86_64' })
  if (!small) await armClient(checks)
}

async function clientOf(checks, command, { small, arch }) {
  const scene = (options, body) => withGuest(command, { arch, ...options }, body)
  await checks.check(`dbs-upcall, ${arch}: its messages are ours, byte for byte`, () =>
    scene({ kernel: '6.1' }, (client) => messages(client, arch)),
  )
  for (const kernel of ['5.10', '6.1', '6.12', '6.18']) {
    const play = (what, options, rows) =>
      checks.check(`dbs-upcall, ${arch}, ${kernel}: ${what}`, () =>
        scene({ kernel, quirks: small ? 'all,no-slowAbsentCpu' : 'all', ...options }, (client) => answers(client, rows)),
      )
    if (arch === 'aarch64') {
      await play('each request is answered as that kernel answers', { boot: '1s' }, arm())
      continue
    }
    await play('ready after the boot, each request answered as that kernel answers', { boot: '1s' }, devices())
    await play('a vCPU that is not there', { serve: serveWithout(9) }, absent(kernel, !small))
    await play('a hole among the CPUs', { cpus: 4 }, holes(kernel))
    await play('CPUs that go in ascending order', { cpus: 4 }, ascending(kernel))
  }
}

/** Each request, with the answer that is due; what comes after silence is refused by the client itself. */
async function answers(client, rows) {
  for (const [op, fields, expected, index, atLeastMs = 0] of rows) {
    const what = `${op} ${JSON.stringify(fields)}`
    const started = performance.now()
    const answer = await client.ask({ op, ...fields, timeoutMs: expected === SILENCE ? SILENCE_MS : 30_000 })
    const took = performance.now() - started
    if (expected === SILENCE) {
      assert.deepEqual(answer, { timeout: true }, what)
      const next = await client.ask({ op: 'delMmio', ...window(1, 1), timeoutMs: 1000 })
      assert.deepEqual(next, { refused: 'upcall is busy now' }, `after ${what}`)
      return
    }
    assert.equal(answer.result, expected, `${what}: ${JSON.stringify(answer)}`)
    if (index !== undefined) assert.equal(answer.index, index, what)
    assert.ok(took >= atLeastMs, `${what}: answered after ${took} ms`)
  }
}

async function messages(client, arch) {
  const ids = Array.from({ length: 255 }, (_, id) => id + 1)
  const cpus = [[1], [3, 2, 1], ids].map((apicIds) => ({ apicIds }))
  const requests = [
    ...['addMmio', 'delMmio'].flatMap((op) =>
      [window(0xd0000000, 6), window(2 ** 46, 47, 512)].map((fields) => ({ op, ...fields })),
    ),
    ...['addVcpu', 'delVcpu'].flatMap((op) => cpus.map((fields) => ({ op, ...fields }))),
  ]
  for (const request of requests) {
    const { hex } = await client.ask({ op: 'build', request: { ...request, timeoutMs: 0 } })
    const theirs = Buffer.from(hex, 'hex')
    // The crate copies a C structure with its padding, which holds whatever was on its stack.
    if (request.base !== undefined) theirs.fill(0, MMIO_PADDING_AT, MMIO_PADDING_AT + 4)
    assert.equal(
      theirs.toString('hex'),
      Buffer.from(encodeRequest(ours(request, arch), arch)).toString('hex'),
      JSON.stringify(request),
    )
  }
}

/** The same request as `@upcall/wire` has it. */
function ours({ op, apicIds, base, size, irq }, arch) {
  const type = { addMmio: 'ADD_MMIO', delMmio: 'DEL_MMIO', addVcpu: 'ADD_CPU', delVcpu: 'DEL_CPU' }[op]
  if (base !== undefined) return { type, base: BigInt(base), size: BigInt(size), irq }
  return arch === 'aarch64' ? { type, count: apicIds.length } : { type, apicIds }
}

/** A simulated guest in a process of its own, and the client, which starts first and connects until the guest listens. */
async function withGuest(command, { serve = serveByCommand, boot, ...options }, body) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-dbs-'))
  const path = join(folder, 'vm.sock')
  const client = new Program(command[0], [...command.slice(1), path])
  let guest
  try {
    if (boot) await delay(200)
    guest = await serve({ path, boot, ...options })
    const ready = await client.ask({ op: 'ready', timeoutMs: 20_000 })
    assert.equal(ready.ready, true, JSON.stringify(ready))
    return await body(client)
  } finally {
    await client.stop()
    await guest?.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** `upcall serve`, in a process of its own. */
async function serveByCommand({ path, arch, kernel, cpus = 1, quirks = 'all', boot }) {
  const options = [
    '--kernel',
    kernel,
    '--cpus',
    cpus,
    '--max-cpus',
    MAX_CPUS,
    '--quirks',
    quirks,
    ...(boot ? ['--boot', boot] : []),
  ]
  const guest = new Program(process.execPath, [
    UPCALL,
    '--json',
    '--arch',
    arch,
    'serve',
    '--listen',
    `hvsock://${path}:219`,
    ...options,
  ])
  await guest.next(({ event }) => event === 'listening')
  return guest
}

/** `@upcall/server` in this process, for what the command has no option for: a vCPU that never answers. */
function serveWithout(absent) {
  return async ({ path, arch, kernel, quirks }) => {
    const hardware = { hasCpu: (id) => id !== absent, hasPci: () => true }
    const slow = { slowAbsentCpu: !quirks.includes('no-slowAbsentCpu') }
    const guest = simulatedGuest({ arch, kernel, cpus: 1, maxCpus: MAX_CPUS, hardware, quirks: slow })
    const server = new UpcallServer({ services: [deviceManagerGuest(guest)] })
    const route = (port) => {
      if (port !== 219) return undefined
      const [near, far] = duplexPair()
      server.accept(far)
      return near
    }
    const vmm = await listenHybrid({ path, route })
    return {
      async stop() {
        await vmm.close()
        await server.close()
      },
    }
  }
}

/** For aarch64, where its tools are there: the same client, cross-compiled, under qemu-user. */
async function armClient(checks) {
  const missing = await missingForArm()
  if (missing) {
    console.log(`# dbs-upcall, aarch64: left out: ${missing}`)
    return
  }
  const client = await checks.check('dbs-upcall, aarch64: a client is built, or found in the cache', () => buildClient(ARM))
  if (client) await clientOf(checks, ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', client], { small: false, arch: 'aarch64' })
}

async function missingForArm() {
  for (const name of ['aarch64-linux-gnu-gcc', 'qemu-aarch64']) {
    if (findTool(name) === undefined) return missingPeerTools(name)
  }
  const libraries = execFileSync(findTool('rustc'), ['--print', 'target-libdir', '--target', ARM], { encoding: 'utf8' }).trim()
  return existsSync(libraries) ? undefined : `Rust's library for ${ARM}: not found. rustup target add ${ARM}`
}

/** What `run` needs, to be built before it. */
export async function programs() {
  return [() => buildClient(), ...((await missingForArm()) ? [] : [() => buildClient(ARM)])]
}

async function buildClient(target) {
  const output = await built({
    ...{ name: target ? 'upcall-client-aarch64' : 'upcall-client', sources: [SOURCE], tool: 'cargo' },
    async build({ output, work }) {
      const linker = `target.${ARM}.linker="aarch64-linux-gnu-gcc"`
      const args = target ? ['--target', target, '--config', linker] : []
      await runTool('cargo', ['build', '--locked', '--target-dir', work, ...args], { cwd: SOURCE })
      copyFileSync(join(work, target ?? '', 'debug/upcall-client'), join(output, 'upcall-client'))
    },
  })
  return join(output, 'upcall-client')
}
