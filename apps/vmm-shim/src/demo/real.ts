import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { makeExt4 } from '@upcall/qemu'
import { connect } from '@upcall/vsock'
import { ECHO_PORT } from '../agent/messages.js'
import type { VmBody } from '../api/view.js'
import { type QemuShim, startQemuShim } from '../qemu/shim.js'
import { callApi, isFault } from './api-client.js'
import type { DemoResult } from './demo.js'
import { ChecksummedStream } from './stream.js'
import { COLUMNS, type Line, type Row, type Style, table, wrap } from './text.js'

export interface RealDemoOptions {
  show(line: Line): void
  /** Where the guest image is kept. */
  cacheDir?: string | undefined
  signal: AbortSignal
}

type Speaker = 'vmm' | 'api' | 'guest' | 'console' | 'stream'

const MIB = 2 ** 20
const BOOT_MS = 240_000
const COLOUR: Record<Speaker, Style> = { vmm: 'cyan', api: 'dim', guest: 'yellow', console: 'magenta', stream: 'green' }
const NAMES = 9
const NOTE = 'This file came with a disk that was plugged in while the guest ran.\n'
/** Of a boot, which says much more. */
const OF_INTEREST = /Linux version|smpboot: Allowing|virtio_(blk|mem)|EXT4-fs|upcall-init/

/** The demo's story with a real guest. Stops at the first step that does not hold. Leaves nothing behind but the image. */
export async function runRealDemo({ show, cacheDir, signal }: RealDemoOptions): Promise<DemoResult> {
  const directory = mkdtempSync(join(tmpdir(), 'vmm-demo-'))
  const stage = new Stage(show, join(directory, 'api.sock'), signal)
  const rows: Row[] = []
  let step = 'prepare the guest'
  let stream: ChecksummedStream | undefined
  try {
    show([
      { text: ' vmm-shim demo --qemu', style: 'bold' },
      { text: ': a stock Linux under QEMU is told of its hardware over vsock', style: 'dim' },
    ])
    const play = async (name: string, run: () => Promise<string>) => {
      signal.throwIfAborted()
      step = name
      show([])
      show([
        { text: ` ${rows.length + 1} `, style: 'cyan' },
        { text: name, style: 'bold' },
      ])
      const started = performance.now()
      const what = await run()
      rows.push({ cells: [name, what, `${((performance.now() - started) / 1000).toFixed(1)} s`], style: 'green' })
    }
    stage.say('vmm', 'prepares the guest; the first time, packages are downloaded')
    await using shim = await startQemuShim({
      ...{ uds: join(directory, 'vm.sock'), api: join(directory, 'api.sock'), maxCpus: 4, cacheDir, signal },
      console: (text) => stage.hear(text),
    })
    const disk = await makeDisk(directory, signal)
    await play('boot a stock kernel', () => boot(stage, shim))
    stream = new ChecksummedStream(
      await connect({ ...shim.address, port: ECHO_PORT }, { signal, timeoutMs: 20_000, halfClose: true }),
    )
    stage.say('stream', 'random bytes go to the guest over vsock and come back, from here to the end')
    const flow = stream
    const playMeanwhile = (name: string, run: () => Promise<string>) => play(name, () => meanwhile(stage, flow, run))
    await playMeanwhile('resize 1 → 4 vCPUs', () => resize(stage, shim, 4))
    await playMeanwhile('plug a disk in and read it', () => plugDisk(stage, shim, disk))
    await playMeanwhile('resize 4 → 2 vCPUs', () => resize(stage, shim, 2))
    await playMeanwhile('take the disk away', () => removeDisk(stage, shim))
    await playMeanwhile('grow memory by 256 MiB', () => growMemory(stage, shim))
    await play('end the stream', async () => {
      const { bytes, sha256 } = await stage.within('stream', flow.finish(), 60_000)
      stage.say('stream', `${bytes} bytes there and back, sha256 ${sha256.slice(0, 16)}… both ways`, 'green')
      return `${(bytes / MIB).toFixed(1)} MiB, not a byte lost`
    })
    show([])
    for (const line of table(['step', 'what happened', 'time'], rows)) show(line)
    show([{ text: ` ✔ all ${rows.length} steps hold`, style: 'green' }])
    return { failed: undefined }
  } catch (error) {
    signal.throwIfAborted()
    show([{ text: `   ✘ ${(error as Error).message.split('\n')[0]}`, style: 'red' }])
    return { failed: { step, error: error as Error } }
  } finally {
    stream?.destroy()
    rmSync(directory, { recursive: true, force: true })
  }
}

async function boot(stage: Stage, shim: QemuShim): Promise<string> {
  await stage.within('boot', shim.machine.launched, BOOT_MS)
  stage.say('vmm', `QEMU runs as process ${shim.machine.pid}, with 1 of 4 vCPUs`)
  await stage.within('connect', shim.manager.ready(), BOOT_MS)
  const release = await guest(shim, 'uname -r')
  const cpus = await countCpus(shim)
  stage.expect('CPUs at boot', cpus, 1)
  stage.say('guest', `Linux ${release}; /proc/cpuinfo counts 1 CPU`, 'green')
  stage.booted = true
  return `Linux ${release}, 1 CPU`
}

async function resize(stage: Stage, shim: QemuShim, target: number): Promise<string> {
  await stage.call('PUT', '/vm/resize', { desired_vcpus: target }, 200)
  stage.expect('CPUs that the guest counts', await countCpus(shim), target)
  stage.say('guest', `/proc/cpuinfo counts ${target} CPUs`, 'green')
  const { believed } = await stage.look()
  const { cpus: spares } = believed.spares
  if (spares.length > 0)
    stage.say('vmm', `vCPUs ${spares.join(' ')} stay plugged in as spares: QEMU under tcg does not survive more`)
  return `${target} CPUs in /proc/cpuinfo`
}

async function plugDisk(stage: Stage, shim: QemuShim, path_on_host: string): Promise<string> {
  const { bdf } = (await stage.call('PUT', '/pci-devices/notes', { path_on_host, is_read_only: true }, 200)) as { bdf: string }
  const find = 'for d in /sys/block/*; do [ "$(cat $d/serial 2>/dev/null)" = notes ] && basename $d; done'
  // An answered ADD_PCI says that the function is there; its driver takes another moment.
  const wait = `for i in 1 2 3 4 5 6 7 8 9 10; do d=$(${find}); [ -n "$d" ] && break; sleep 0.2; done`
  const read = await guest(shim, `${wait}; mkdir -p /tmp/notes && mount -o ro /dev/$d /tmp/notes && cat /tmp/notes/note.txt`)
  stage.expect('what the guest reads', read, NOTE.trim())
  stage.say('guest', `mounted it: "${read}"`, 'green')
  return `${bdf}, mounted and read`
}

async function removeDisk(stage: Stage, shim: QemuShim): Promise<string> {
  await guest(shim, 'umount /tmp/notes')
  await stage.call('DELETE', '/pci-devices/notes', undefined, 204)
  const { guest: view, believed } = await stage.look()
  stage.expect(
    'disks in the guest',
    view?.blocks?.some(({ serial }) => serial === 'notes'),
    false,
  )
  stage.expect('devices that the guest has not ejected', believed.spares.pci, [])
  stage.say('guest', 'let go of it, and only then QEMU unplugged it', 'green')
  return 'the guest let go, then it was unplugged'
}

async function growMemory(stage: Stage, shim: QemuShim): Promise<string> {
  const before = (await stage.look()).guest?.memory ?? 0
  await stage.call('PUT', '/vm/resize', { desired_ram: shim.machine.memory + 256 * MIB }, 204)
  const after = (await stage.look()).guest?.memory ?? 0
  stage.expect('MemTotal grown by 250 MiB at least', after - before > 250 * MIB, true)
  const text = `MemTotal ${Math.round(before / MIB)} → ${Math.round(after / MIB)} MiB`
  stage.say('guest', text, 'green')
  return text
}

/** Plays a step during which the stream is not to stand still. */
async function meanwhile(stage: Stage, stream: ChecksummedStream, run: () => Promise<string>): Promise<string> {
  const { received } = stream.flow
  const what = await run()
  await stage.within('stream', stream.receivedMore(received), 20_000)
  stage.say('stream', `${Math.round((stream.flow.received - received) / 1024)} KiB have come back meanwhile`)
  return what
}

async function countCpus(shim: QemuShim): Promise<number> {
  return Number(await guest(shim, 'grep -c ^processor /proc/cpuinfo'))
}

async function guest(shim: QemuShim, script: string): Promise<string> {
  const { status, stdout, stderr } = await shim.agent.execute(['sh', '-c', script])
  if (status === 0) return stdout.trim()
  throw new Error(`guest: ${script} ended with status ${status}: ${stderr.trim()}`)
}

/** A file system with one file, for the guest to mount. */
async function makeDisk(directory: string, signal: AbortSignal): Promise<string> {
  const content = join(directory, 'content')
  mkdirSync(content)
  writeFileSync(join(content, 'note.txt'), NOTE)
  const disk = join(directory, 'notes.ext4')
  await makeExt4(content, disk, signal)
  return disk
}

/** What a guest prints without a line end is told up to here. */
const LONGEST_LINE = 4096

class Stage {
  booted = false
  readonly #show: (line: Line) => void
  readonly #api: string
  readonly #signal: AbortSignal
  #partial = ''

  constructor(show: (line: Line) => void, api: string, signal: AbortSignal) {
    this.#show = show
    this.#api = api
    this.#signal = signal
  }

  say(who: Speaker, text: string, style?: Style): void {
    wrap(text, COLUMNS - NAMES - 4).forEach((piece, at) => {
      const name = at === 0 ? who : ''
      this.#show([{ text: '    ' }, { text: name.padEnd(NAMES), style: COLOUR[who] }, { text: piece, style }])
    })
  }

  /** What the guest prints, beside what is said here: of its boot a few lines, then all. */
  hear(text: string): void {
    const lines = text.split('\n')
    lines[0] = this.#partial + lines[0]
    this.#partial = lines.pop()!.slice(0, LONGEST_LINE)
    for (const line of lines.map((line) => line.replaceAll(/[^\x20-\x7e]/g, '').trim()))
      if (line !== '' && (this.booted || OF_INTEREST.test(line))) this.say('console', line, 'dim')
  }

  async call(method: string, path: string, body: unknown, expected: number): Promise<unknown> {
    this.say('api', `${method} ${path}${body === undefined ? '' : ` ${JSON.stringify(body)}`}`, 'dim')
    const reply = await callApi(this.#api, method, path, body)
    const said = isFault(reply.body) ? reply.body.fault_message : JSON.stringify(reply.body)
    this.say('api', `→ ${reply.status}${said === undefined ? '' : ` ${said}`}`, reply.status === expected ? 'dim' : 'red')
    this.expect(`status of ${method} ${path}`, reply.status, expected)
    return reply.body
  }

  async look(): Promise<VmBody> {
    return (await callApi(this.#api, 'GET', '/vm')).body as VmBody
  }

  expect(what: string, actual: unknown, expected: unknown): void {
    if (!isDeepStrictEqual(actual, expected))
      throw new Error(`${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
  }

  async within<T>(what: string, promise: Promise<T>, ms: number): Promise<T> {
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(ms)])
    const ended = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(new Error(`${what}: not within ${ms} ms`)), { once: true })
    })
    return Promise.race([promise, ended])
  }
}
