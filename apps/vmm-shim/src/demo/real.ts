import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { makeExt4 } from '@upcall/qemu'
import { connect } from '@upcall/vsock'
import { ECHO_PORT } from '../agent/messages.js'
import { ImageProgress } from '../qemu/image-progress.js'
import { type QemuShim, startQemuShim } from '../qemu/shim.js'
import { type DemoResult, Stage, type Step } from './stage.js'
import { ChecksummedStream } from './stream.js'
import type { Line } from './text.js'

export interface RealDemoOptions {
  show(line: Line): void
  /** Where the guest image is kept. */
  cacheDir?: string | undefined
  signal: AbortSignal
}

const MIB = 2 ** 20
const BOOT_MS = 240_000
/** How often the audience hears of a download. */
const PROGRESS_MS = 2_000
const NOTE = 'This file came with a disk that was plugged in while the guest ran.\n'
/** The lines of a boot that are shown. */
const OF_INTEREST = /Linux version|smpboot: Allowing|virtio_(blk|mem)|EXT4-fs|upcall-init/

/** A longer piece of a line that the guest prints is cut. */
const LONGEST_LINE = 4096
const STREAM_MS = 20_000

/** What each step plays with. */
interface Scene {
  readonly stage: Stage
  readonly shim: QemuShim
  readonly signal: AbortSignal
  /** A disk image, with one file on it. */
  readonly disk: string
  readonly output: ConsoleOutput
  /** Bytes that go to the guest and come back, from the boot to the end. */
  stream?: ChecksummedStream
}

const STEPS: readonly Step<Scene>[] = [
  { name: 'boot a stock kernel', run: boot },
  { name: 'resize 1 → 4 vCPUs', run: whileStreaming((scene) => resize(scene, 4)) },
  { name: 'plug a disk in and read it', run: whileStreaming(plugDisk) },
  { name: 'resize 4 → 2 vCPUs', run: whileStreaming((scene) => resize(scene, 2)) },
  { name: 'take the disk away', run: whileStreaming(removeDisk) },
  { name: 'grow memory by 256 MiB', run: whileStreaming(growMemory) },
  { name: 'end the stream', run: endStream },
]

/** Plays the steps with a real guest. Leaves nothing but the guest image. */
export async function runRealDemo({ show, cacheDir, signal }: RealDemoOptions): Promise<DemoResult> {
  const directory = mkdtempSync(join(tmpdir(), 'vmm-demo-'))
  const api = join(directory, 'api.sock')
  const stage = new Stage({ show, api, signal, patienceMs: BOOT_MS })
  const output = new ConsoleOutput(stage)
  try {
    stage.show(
      { text: ' vmm-shim demo --qemu', style: 'bold' },
      { text: ': a stock Linux under QEMU hotplugs over vsock', style: 'dim' },
    )
    stage.note('vmm', 'prepares the guest; the first time, it downloads packages')
    await using shim = await startQemuShim({
      ...{ uds: join(directory, 'vm.sock'), api, maxCpus: 4, cacheDir, signal },
      console: (text) => output.hear(text),
      onProgress: new ImageProgress(PROGRESS_MS, (text) => stage.note('vmm', text)).on,
    })
    const scene: Scene = { stage, shim, signal, output, disk: await makeDisk(directory, signal) }
    try {
      return await stage.play(STEPS, scene)
    } finally {
      scene.stream?.destroy()
    }
  } catch (error) {
    return stage.fail('prepare the guest', error)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function boot(scene: Scene): Promise<string> {
  const { stage, shim, signal } = scene
  await stage.within('boot', shim.machine.launched)
  stage.note('vmm', `QEMU runs as process ${shim.machine.pid}, with 1 of 4 vCPUs`)
  await stage.within('connect', shim.manager.ready())
  const release = await guest(shim, 'uname -r')
  const cpus = await countCpus(shim)
  stage.expect('CPUs at boot', cpus, 1)
  stage.note('guest', `Linux ${release}; /proc/cpuinfo counts 1 CPU`, 'green')
  scene.output.booted = true
  const echo = await connect({ ...shim.address, port: ECHO_PORT }, { signal, timeoutMs: STREAM_MS, halfClose: true })
  scene.stream = new ChecksummedStream(echo)
  stage.note('stream', 'random bytes go to the guest over vsock and come back, from here to the end')
  return `Linux ${release}, 1 CPU`
}

async function resize({ stage, shim }: Scene, target: number): Promise<string> {
  await stage.call('PUT', '/vm/resize', { desired_vcpus: target }, 200)
  stage.expect('CPUs that the guest counts', await countCpus(shim), target)
  stage.note('guest', `/proc/cpuinfo counts ${target} CPUs`, 'green')
  const { believed } = await stage.look()
  const { cpus: spares } = believed.spares
  if (spares.length > 0)
    stage.note('vmm', `vCPUs ${spares.join(' ')} stay plugged in as spares: QEMU under tcg does not survive more`)
  return `${target} CPUs in /proc/cpuinfo`
}

async function plugDisk({ stage, shim, disk }: Scene): Promise<string> {
  const body = { path_on_host: disk, is_read_only: true }
  const { bdf } = (await stage.call('PUT', '/pci-devices/notes', body, 200)) as { bdf: string }
  const find = 'for d in /sys/block/*; do [ "$(cat $d/serial 2>/dev/null)" = notes ] && basename $d; done'
  // A successful ADD_PCI says that the function is there. Its driver takes another moment.
  const wait = `for i in 1 2 3 4 5 6 7 8 9 10; do d=$(${find}); [ -n "$d" ] && break; sleep 0.2; done`
  const read = await guest(shim, `${wait}; mkdir -p /tmp/notes && mount -o ro /dev/$d /tmp/notes && cat /tmp/notes/note.txt`)
  stage.expect('what the guest reads', read, NOTE.trim())
  stage.note('guest', `mounted it: "${read}"`, 'green')
  return `${bdf}, mounted and read`
}

async function removeDisk({ stage, shim }: Scene): Promise<string> {
  await guest(shim, 'umount /tmp/notes')
  await stage.call('DELETE', '/pci-devices/notes', undefined, 204)
  const { guest: view, believed } = await stage.look()
  const isThere = view?.blocks?.some(({ serial }) => serial === 'notes')
  stage.expect('the disk is in the guest', isThere, false)
  stage.expect('devices that the guest has not ejected', believed.spares.pci, [])
  stage.note('guest', 'has removed it, and only then QEMU unplugged it', 'green')
  return 'the guest first, then QEMU'
}

async function growMemory({ stage, shim }: Scene): Promise<string> {
  const before = (await stage.look()).guest?.memory ?? 0
  await stage.call('PUT', '/vm/resize', { desired_ram: shim.machine.memory + 256 * MIB }, 204)
  const after = (await stage.look()).guest?.memory ?? 0
  stage.expect('MemTotal grown by 250 MiB at least', after - before > 250 * MIB, true)
  const text = `MemTotal ${Math.round(before / MIB)} → ${Math.round(after / MIB)} MiB`
  stage.note('guest', text, 'green')
  return text
}

/** Plays a step, and checks that the stream goes on meanwhile. */
function whileStreaming(run: (scene: Scene) => Promise<string>): (scene: Scene) => Promise<string> {
  return async (scene) => {
    const { stage, stream } = scene
    const before = stream!.flow.received
    const what = await run(scene)
    await stage.within('stream', stream!.receivedMore(before), STREAM_MS)
    stage.note('stream', `${Math.round((stream!.flow.received - before) / 1024)} KiB have come back meanwhile`)
    return what
  }
}

async function endStream({ stage, stream }: Scene): Promise<string> {
  const { bytes, sha256 } = await stage.within('stream', stream!.finish(), 3 * STREAM_MS)
  stage.note('stream', `${bytes} bytes there and back, sha256 ${sha256.slice(0, 16)}… both ways`, 'green')
  return `${(bytes / MIB).toFixed(1)} MiB, not a byte lost`
}

/** What the guest prints, among the lines of the demo: a few lines of its boot, then all. */
class ConsoleOutput {
  booted = false
  readonly #stage: Stage
  #partial = ''

  constructor(stage: Stage) {
    this.#stage = stage
  }

  hear(text: string): void {
    const lines = text.split('\n')
    lines[0] = this.#partial + lines[0]
    this.#partial = lines.pop()!.slice(0, LONGEST_LINE)
    for (const line of lines.map((line) => line.replaceAll(/[^\x20-\x7e]/g, '').trim()))
      if (line !== '' && (this.booted || OF_INTEREST.test(line))) this.#stage.note('console', line)
  }
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
