import { type Clock, systemClock } from '@upcall/server'
import { checkClock, checkObject, checkRoot, checkSignal, milliseconds, show } from '../../check.js'
import { type Files, filesBelow, NO_FILE } from './files.js'
import { Waiting } from './waiting.js'

const MEMORY = '/sys/devices/system/memory'

/** How long no block may come online before those that were online at the call are taken for the ones that are waited for. */
const QUIET_MS = 1000

const POLICIES = ['online', 'online_movable', 'online_kernel'] as const

export interface OnlineMemoryOptions {
  /** What the blocks are for: `online_movable` (default) for memory that may be unplugged again, `online` lets the kernel choose. */
  policy?: (typeof POLICIES)[number] | undefined
  /**
   * So many bytes were plugged in: waits until they are online, whoever brings them online. Those that were online before the call count, too,
   * once nothing more has come for a second: as far as the guest tells which are hotplugged, or all where its kernel brings memory online
   * itself. Default: whatever is offline now.
   */
  bytes?: bigint | undefined
  /**
   * So many bytes are to be online in all: the `online` of a call before the memory was plugged in, and what was plugged in. Unlike `bytes`
   * it cannot take memory of an earlier plug for the memory that is to come.
   */
  online?: bigint | undefined
  /** How long to wait for them, in milliseconds, 0 to 2147483647. Default 5000. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
  /** The directory that holds `sys` and `proc`. Default `/`. */
  root?: string | undefined
  clock?: Clock | undefined
}

export interface OnlinedMemory {
  /** Of each block, in bytes. */
  blockSize: bigint
  /** The blocks that came online during the call and are online, by number, whoever brought them online. */
  onlined: number[]
  /** The blocks that the kernel kept offline, with the negative errno. */
  refused: { block: number; errno: number }[]
  /** All that is online now, in bytes. */
  online: bigint
}

/**
 * Brings hotplugged memory into use: on a stock kernel a DIMM's or a virtio-mem device's blocks arrive offline. The protocol's memory
 * requests (types 3 and 4) answer −1 on every kernel, so this is for the guest's program to call, after whatever tells it to. Blocks that
 * the kernel or another program (a udev rule) brings online first are as good.
 *
 * @throws What `signal` was aborted with; Error if the kernel has no memory blocks; TypeError or RangeError for an option that is wrong.
 */
export async function onlineMemory(options: OnlineMemoryOptions = {}): Promise<OnlinedMemory> {
  checkObject('options', options)
  const { root = '/' } = options
  checkRoot(root)
  return onlineBlocks(filesBelow(root), options)
}

export async function onlineBlocks(files: Files, options: OnlineMemoryOptions): Promise<OnlinedMemory> {
  const { policy = 'online_movable', bytes = 0n, online = 0n, timeoutMs = 5000, clock = systemClock, signal } = options
  if (!POLICIES.includes(policy)) throw new RangeError(`policy: must be one of ${POLICIES.join(', ')}, got ${show(policy)}`)
  for (const [name, value] of Object.entries({ bytes, online }))
    if (typeof value !== 'bigint' || value < 0n)
      throw new RangeError(`${name}: must be a bigint of at least 0, got ${show(value)}`)
  milliseconds('timeoutMs', timeoutMs, 0)
  checkClock(clock)
  checkSignal(signal)
  const blockSize = await readBlockSize(files)
  const size = (blocks: readonly number[]) => BigInt(blocks.length) * blockSize
  const waiting = new Waiting(clock, signal)
  const before = await blocks(files, 'online')
  const wasOnline = new Set(before)
  const earlier = await onlineEarlier(files, blockSize, before)
  const switched = new Set<number>()
  const refused = new Map<number, number>()
  let now = before
  let changedAt = clock.now()
  const onlined = () => now.filter((block) => !wasOnline.has(block))
  await waiting.until(clock.now() + timeoutMs, async () => {
    for (const block of await blocks(files, 'offline')) {
      const errno = await files.write(`${MEMORY}/memory${block}/state`, policy)
      if (errno === 0) switched.add(block)
      else if (errno !== NO_FILE) refused.set(block, errno)
    }
    const last = now
    now = await blocks(files, 'online', switched)
    if (now.join() !== last.join()) changedAt = clock.now()
    if (size(now) < online) return undefined
    if (size(onlined()) >= bytes) return true
    const isQuiet = clock.now() - changedAt >= QUIET_MS
    return isQuiet && size(now.filter((block) => earlier.has(block))) >= bytes ? true : undefined
  })
  // One that is online by now, or gone, is not kept offline.
  const kept = new Set(await blocks(files, 'offline'))
  return {
    blockSize,
    onlined: onlined(),
    refused: [...refused].filter(([block]) => kept.has(block)).map(([block, errno]) => ({ block, errno })),
    online: size(now),
  }
}

/** Which of the blocks that were online before the call may be those that it is about. */
async function onlineEarlier(files: Files, blockSize: bigint, online: readonly number[]): Promise<ReadonlySet<number>> {
  const hotplugged = new Set<number>()
  // A DIMM's blocks are tied to its ACPI object.
  for (const block of online) if (await files.exists(`${MEMORY}/memory${block}/firmware_node`)) hotplugged.add(block)
  const virtioMem = /^ *([0-9a-f]+)-([0-9a-f]+) : System RAM \(virtio_mem\)$/gm
  for (const [, first, last] of ((await files.read('/proc/iomem')) ?? '').matchAll(virtioMem))
    for (let at = BigInt(`0x${first}`); at <= BigInt(`0x${last}`); at += blockSize) hotplugged.add(Number(at / blockSize))
  if (hotplugged.size > 0) return hotplugged
  // Where nothing tells them apart, all may be: what the kernel brings online itself needs no help, should it come late.
  const isHelped = (await files.read(`${MEMORY}/auto_online_blocks`)) === 'offline'
  return new Set(isHelped ? [] : online)
}

/** The blocks of that state, and those of `switched`, whose switching the kernel has said yes to. Ascending. */
async function blocks(files: Files, state: 'online' | 'offline', switched?: ReadonlySet<number>): Promise<number[]> {
  const found: number[] = []
  for (const name of await files.list(MEMORY)) {
    const block = /^memory(\d+)$/.exec(name)?.[1]
    if (block === undefined) continue
    if ((await files.read(`${MEMORY}/${name}/state`)) === state || switched?.has(Number(block))) found.push(Number(block))
  }
  return found.sort((a, b) => a - b)
}

async function readBlockSize(files: Files): Promise<bigint> {
  const text = await files.read(`${MEMORY}/block_size_bytes`)
  if (text === undefined || !/^[0-9a-f]+$/i.test(text))
    throw new Error(`no memory blocks in ${MEMORY}: the kernel cannot hotplug memory`)
  return BigInt(`0x${text}`)
}
