import { checkClock, checkObject, checkSignal, wrongValue } from '@upcall/foundation/check'
import { systemClock } from '@upcall/foundation/clock'
import type { Clock } from '@upcall/server'
import { LinuxGuestError } from './error.js'
import { type Files, filesBelow, NO_FILE } from './files.js'
import { checkRoot, milliseconds } from './options.js'
import { Waiting } from './waiting.js'

const MEMORY = '/sys/devices/system/memory'

/** After so long without a new block, the blocks that were online before the call count as the ones that the caller waits for. */
const QUIET_MS = 1000

const POLICIES = ['online', 'online_movable', 'online_kernel'] as const

export interface OnlineMemoryOptions {
  /** The zone of the blocks: `online_movable` (default) for memory that may be unplugged again; `online` lets the kernel choose. */
  policy?: (typeof POLICIES)[number] | undefined
  /**
   * How many bytes the VMM has plugged in. The call waits until they are online, whichever program brings them online. Bytes that
   * were online before the call count too, after a second without a new block: those that the guest knows to be hotplugged, or all of
   * them where its kernel brings memory online by itself. Default: what is offline now.
   */
  bytes?: bigint | undefined
  /**
   * How many bytes have to be online in total: the `online` of an earlier result, plus what was plugged in since. Unlike `bytes`, it
   * cannot take memory of an earlier plug for the memory that is still to come.
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
  /** The size of each block, in bytes. */
  blockSize: bigint
  /** The numbers of the blocks that came online during the call, whichever program brought them online. */
  onlined: number[]
  /** The blocks that the kernel refused to bring online, with the negative errno. */
  refused: { block: number; errno: number }[]
  /** How many bytes are online now. */
  online: bigint
}

/**
 * Brings hotplugged memory into use: on a stock kernel, the blocks of a DIMM or a virtio-mem device arrive offline. The protocol's memory
 * requests (types 3 and 4) answer −1 on every kernel, so a program in the guest calls this when the VMM tells it to. Blocks that the
 * kernel or another program (a udev rule) brings online first count as well.
 *
 * @throws LinuxGuestError: `ABORTED` with the signal's reason as `cause`, or `UNSUPPORTED` if the kernel has no memory blocks. TypeError or
 *   RangeError for a wrong option.
 */
export async function onlineMemory(options: OnlineMemoryOptions = {}): Promise<OnlinedMemory> {
  checkObject('options', options)
  const { root = '/' } = options
  checkRoot(root)
  return onlineBlocks(filesBelow(root), options)
}

export async function onlineBlocks(files: Files, options: OnlineMemoryOptions): Promise<OnlinedMemory> {
  const { policy = 'online_movable', bytes = 0n, online = 0n, timeoutMs = 5000, clock = systemClock, signal } = options
  if (!POLICIES.includes(policy)) wrongValue('policy', `one of ${POLICIES.join(', ')}`, policy)
  for (const [name, value] of Object.entries({ bytes, online }))
    if (typeof value !== 'bigint' || value < 0n) wrongValue(name, 'a bigint of at least 0', value)
  milliseconds('timeoutMs', timeoutMs, 0)
  checkClock(clock)
  checkSignal(signal)
  const blockSize = await readBlockSize(files)
  const size = (blocks: readonly number[]) => BigInt(blocks.length) * blockSize
  const waiting = new Waiting('onlineMemory', clock, signal)
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
  // A block that is online by now, or gone, is not refused any more.
  const kept = new Set(await blocks(files, 'offline'))
  return {
    blockSize,
    onlined: onlined(),
    refused: [...refused].filter(([block]) => kept.has(block)).map(([block, errno]) => ({ block, errno })),
    online: size(now),
  }
}

/** Which of the blocks that were online before the call may belong to the memory that was plugged in. */
async function onlineEarlier(files: Files, blockSize: bigint, online: readonly number[]): Promise<ReadonlySet<number>> {
  const hotplugged = new Set<number>()
  // A DIMM's blocks are tied to its ACPI object.
  for (const block of online) if (await files.exists(`${MEMORY}/memory${block}/firmware_node`)) hotplugged.add(block)
  const virtioMem = /^ *([0-9a-f]+)-([0-9a-f]+) : System RAM \(virtio_mem\)$/gm
  for (const [, first, last] of ((await files.read('/proc/iomem')) ?? '').matchAll(virtioMem))
    for (let at = BigInt(`0x${first}`); at <= BigInt(`0x${last}`); at += blockSize) hotplugged.add(Number(at / blockSize))
  if (hotplugged.size > 0) return hotplugged
  // If nothing tells them apart, all of them may: memory that the kernel brings online by itself may have come before the call.
  const isHelped = (await files.read(`${MEMORY}/auto_online_blocks`)) === 'offline'
  return new Set(isHelped ? [] : online)
}

/** The blocks in that state, and those in `switched`, which the kernel has agreed to switch. Ascending. */
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
    throw new LinuxGuestError({
      code: 'UNSUPPORTED',
      op: 'onlineMemory',
      subject: MEMORY,
      what: 'there are no memory blocks: the kernel cannot hotplug memory',
      next: 'Use a kernel with CONFIG_MEMORY_HOTPLUG.',
    })
  return BigInt(`0x${text}`)
}
