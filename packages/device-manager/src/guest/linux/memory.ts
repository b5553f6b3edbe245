import { type Clock, systemClock } from '@upcall/server'
import { checkClock, checkObject, checkRoot, checkSignal, milliseconds, show } from '../check.js'
import { type Files, filesBelow, NO_FILE } from './files.js'
import { Waiting } from './waiting.js'

const MEMORY = '/sys/devices/system/memory'
const POLICIES: readonly string[] = ['online', 'online_movable', 'online_kernel']

export interface OnlineMemoryOptions {
  /** What the blocks are for: `online_movable` (default) for memory that may be unplugged again, `online` lets the kernel choose. */
  policy?: 'online' | 'online_movable' | 'online_kernel' | undefined
  /** So many bytes are to come online; waits for blocks that the guest has not found yet. Default: whatever is offline now. */
  bytes?: bigint | undefined
  /** How long to wait for them, in milliseconds. Default 5000. */
  timeoutMs?: number | undefined
  signal?: AbortSignal | undefined
  /** The directory that holds `sys`. Default `/`. */
  root?: string | undefined
  clock?: Clock | undefined
}

export interface OnlinedMemory {
  /** Of each block, in bytes. */
  blockSize: bigint
  /** The blocks that came online, by number. */
  onlined: number[]
  /** The blocks that the kernel kept offline, with the negative errno. */
  refused: { block: number; errno: number }[]
  /** All that is online now, in bytes. */
  online: bigint
}

/**
 * Brings hotplugged memory into use: on a stock kernel a DIMM's or a virtio-mem device's blocks arrive offline. The protocol's memory
 * requests (types 3 and 4) answer −1 on every kernel, so this is for the guest's program to call, after whatever tells it to.
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
  const { policy = 'online_movable', bytes = 0n, timeoutMs = 5000, clock = systemClock, signal } = options
  if (!POLICIES.includes(policy)) throw new RangeError(`policy: must be one of ${POLICIES.join(', ')}, got ${show(policy)}`)
  if (typeof bytes !== 'bigint' || bytes < 0n) throw new RangeError(`bytes: must be a bigint of at least 0, got ${show(bytes)}`)
  milliseconds('timeoutMs', timeoutMs, 0)
  checkClock(clock)
  checkSignal(signal)
  const blockSize = await readBlockSize(files)
  const waiting = new Waiting(clock, signal)
  const onlined: number[] = []
  const refused = new Map<number, number>()
  await waiting.until(clock.now() + timeoutMs, async () => {
    for (const block of await blocks(files, 'offline')) {
      const errno = await files.write(`${MEMORY}/memory${block}/state`, policy)
      if (errno === 0) onlined.push(block)
      // One that is gone again is not kept offline.
      if (errno === 0 || errno === NO_FILE) refused.delete(block)
      else refused.set(block, errno)
    }
    return BigInt(onlined.length) * blockSize >= bytes ? true : undefined
  })
  return {
    blockSize,
    onlined,
    refused: [...refused].map(([block, errno]) => ({ block, errno })),
    online: BigInt((await blocks(files, 'online')).length) * blockSize,
  }
}

async function blocks(files: Files, state: 'online' | 'offline'): Promise<number[]> {
  const found: number[] = []
  for (const name of await files.list(MEMORY)) {
    const block = /^memory(\d+)$/.exec(name)?.[1]
    if (block !== undefined && (await files.read(`${MEMORY}/${name}/state`)) === state) found.push(Number(block))
  }
  return found.sort((a, b) => a - b)
}

async function readBlockSize(files: Files): Promise<bigint> {
  const text = await files.read(`${MEMORY}/block_size_bytes`)
  if (text === undefined || !/^[0-9a-f]+$/i.test(text))
    throw new Error(`no memory blocks in ${MEMORY}: the kernel cannot hotplug memory`)
  return BigInt(`0x${text}`)
}
