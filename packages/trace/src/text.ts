import { errnoName, type Operation } from '@upcall/device-manager'

/** What an operation is about, after its name: `0xd0000000+0x1000 irq 5`. */
export function argumentsText(operation: Operation): string {
  if ('apicIds' in operation) return `ids ${idsText(operation.apicIds)}`
  if ('count' in operation) return `count ${operation.count}`
  if ('base' in operation) return `${operation.base}+${operation.size} irq ${operation.irq}`
  if ('bdf' in operation) return operation.bdf
  return operation.load === undefined ? '' : `load ${operation.load}`
}

/** Ids in their order, runs of them in short: `0,4-7`. */
function idsText(ids: readonly number[]): string {
  const runs: [first: number, last: number][] = []
  for (const id of ids) {
    const run = runs.at(-1)
    if (run?.[1] === id - 1) run[1] = id
    else runs.push([id, id])
  }
  return (
    runs.map(([first, last]) => (last - first < 2 ? [...new Set([first, last])].join(',') : `${first}-${last}`)).join(',') ||
    'none'
  )
}

/** The result as people know it: `0`, `-19 ENODEV`, `+1`. */
export function resultText(result: number): string {
  if (result === 0) return '0'
  return result > 0 ? errnoName(result) : `${result} ${errnoName(result)}`
}

/** What a reply says beyond its result. */
export function replyTexts(reply: { apicIdIndex?: number; cpuId?: number; load?: string }): string[] {
  const { apicIdIndex, cpuId, load } = reply
  return [
    ...(apicIdIndex === undefined ? [] : [`${cpus(apicIdIndex)} acted on`]),
    ...(cpuId === undefined ? [] : [`${cpus(cpuId)} online`]),
    ...(load === undefined ? [] : [`load ${load}`]),
  ]
}

function cpus(count: number): string {
  return count === 1 ? '1 CPU' : `${count} CPUs`
}
