// Requests to the guest side in a driven guest, each compared with the answer that is due, and the table of them all.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'

export const OK = 0
export const UNCHANGED = 1
export const EPERM = -1
export const EBUSY = -16
export const EEXIST = -17
export const ENODEV = -19
export const EINVAL = -22
const names = { 0: 'ok', 1: '+1', '-1': '−1', '-16': 'EBUSY', '-17': 'EEXIST', '-19': 'ENODEV', '-22': 'EINVAL' }

export class Requests {
  table = []
  /** Whether an answer was another than it should have been. */
  failed = false
  #checks

  constructor(checks) {
    this.#checks = checks
  }

  /** Asks the guest, compares the result, adds a row. `cpuId` is that of an answer of aarch64, which tells it of refusals too. */
  async row(guest, event, operation, expected, cpuId) {
    const right = await this.#checks.check(`${guest.machine}: ${event} → ${names[expected]}`, async () => {
      const { ms, ...reply } = await guest.ask('request', { operation })
      const answer = names[reply.result] ?? String(reply.result)
      this.table.push({ machine: guest.machine, event, request: asText(operation), answer, ms: Math.round(ms) })
      assert.equal(reply.result, expected)
      if (operation.apicIds) assert.equal(reply.apicIdIndex, expected === OK ? operation.apicIds.length : undefined)
      assert.equal(reply.cpuId, cpuId)
      return true
    })
    if (!right) this.failed = true
  }
}

function asText({ op, apicIds, count, bdf, base, size, irq, type }) {
  if (apicIds) return `${op} ${apicIds.join(' ')}`
  if (count) return `${op}, ${count} of them`
  if (bdf) return `${op} ${bdf}`
  if (base) return `${op} ${size}@${base} irq ${irq}`
  return `type ${type}, raw`
}

/** The load of a window that no encoder of ours would make. */
export function mmioLoad(base, size, irq) {
  const load = Buffer.alloc(24)
  load.writeBigUInt64LE(BigInt(base), 0)
  load.writeBigUInt64LE(BigInt(size), 8)
  load.writeUInt32LE(irq, 16)
  return load.toString('hex')
}

export function makeDisk(path) {
  const bytes = randomBytes(1 << 20)
  writeFileSync(path, bytes)
  return { path, sha256: createHash('sha256').update(bytes).digest('hex') }
}

/** The disk with that virtio serial is there and reads as it should, or it is gone. */
export async function diskIs(guest, serial, { sha256 } = {}) {
  const name = await diskNamed(guest, serial)
  assert.equal(name !== undefined, sha256 !== undefined)
  if (name) assert.equal((await guest.ask('sha256', { path: `/dev/${name}` })).digest, sha256)
}

async function diskNamed(guest, serial) {
  for (const name of (await guest.ask('list', { path: '/sys/block' })).names) {
    const found = await guest.read(`/sys/block/${name}/serial`).catch(() => undefined)
    if (found?.text === serial) return name
  }
  return undefined
}

/** MemTotal, in bytes. */
export async function totalMemory(guest) {
  return Number(/MemTotal:\s*(\d+) kB/.exec((await guest.read('/proc/meminfo')).text)[1]) * 1024
}
