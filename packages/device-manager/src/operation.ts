import { textOf } from '@upcall/foundation/error'
import { show } from '@upcall/foundation/show'
import { type Arch, MAX_REQUEST_LOAD, type Request, WireError } from '@upcall/wire'
import { formatBdf, parseBdf } from './bdf.js'

/**
 * The JSON form of a request, which the command line, control APIs, traces and logs share. Addresses and sizes are hexadecimal strings,
 * since JSON numbers are not exact above 2^53. A load is a string of hexadecimal digits.
 */
export type Operation =
  | { op: 'cpu.add' | 'cpu.remove'; apicIds: number[]; apicVersion?: number }
  | { op: 'cpu.add' | 'cpu.remove'; count: number }
  | { op: 'mmio.add' | 'mmio.remove'; base: string; size: string; irq: number }
  | { op: 'pci.add' | 'pci.remove'; bdf: string }
  | { op: 'request'; type: number; load?: string }

const types = {
  'cpu.add': 'ADD_CPU',
  'cpu.remove': 'DEL_CPU',
  'mmio.add': 'ADD_MMIO',
  'mmio.remove': 'DEL_MMIO',
  'pci.add': 'ADD_PCI',
  'pci.remove': 'DEL_PCI',
} as const

const ops = {
  ADD_CPU: 'cpu.add',
  DEL_CPU: 'cpu.remove',
  ADD_MMIO: 'mmio.add',
  DEL_MMIO: 'mmio.remove',
  ADD_PCI: 'pci.add',
  DEL_PCI: 'pci.remove',
} as const

/** The request in its JSON form. @throws WireError `ARGUMENT` if it is not a request. */
export function formatOperation(request: Request): Operation {
  if (typeof request !== 'object' || request === null) throw invalid('request', 'an object', request)
  switch (request.type) {
    case 'ADD_CPU':
    case 'DEL_CPU':
      if ('count' in request) return { op: ops[request.type], count: request.count }
      return {
        op: ops[request.type],
        apicIds: [...request.apicIds],
        ...(request.apicVersion !== undefined && { apicVersion: request.apicVersion }),
      }
    case 'ADD_MMIO':
    case 'DEL_MMIO':
      return { op: ops[request.type], base: hex(request.base), size: hex(request.size), irq: request.irq }
    case 'ADD_PCI':
    case 'DEL_PCI':
      return { op: ops[request.type], bdf: formatBdf(request) }
    case 'RAW':
      return {
        op: 'request',
        type: request.messageType,
        ...(request.load.length > 0 && { load: Buffer.from(request.load).toString('hex') }),
      }
    default:
      throw invalid('type', `one of ${Object.keys(ops).join(', ')} and RAW`, (request as { type?: unknown }).type)
  }
}

/** The request in a few words, for messages: `mmio.add 0xd0000000+0x1000 irq 5`. */
export function describeRequest(request: Request): string {
  const operation = formatOperation(request)
  if ('apicIds' in operation) return `${operation.op} ${operation.apicIds.join(',')}`
  if ('count' in operation) return `${operation.op} count ${operation.count}`
  if ('base' in operation) return `${operation.op} ${operation.base}+${operation.size} irq ${operation.irq}`
  if ('bdf' in operation) return `${operation.op} ${operation.bdf}`
  return `${operation.op} type ${operation.type}`
}

/**
 * Reads a request from its JSON form: an object, or text that contains one. `base` and `size` may also be integers or decimal strings.
 * It checks that numbers are numbers; `encodeRequest` checks that they are in range.
 *
 * @throws WireError `ARGUMENT` that names the key: an unknown operation, a missing key, a wrong type, or a key that the operation does not
 *   have.
 */
export function parseOperation<A extends Arch>(value: unknown, arch: A): Request<A>
export function parseOperation(value: unknown, arch: Arch): Request {
  if (arch !== 'x86_64' && arch !== 'aarch64') throw invalid('arch', "'x86_64' or 'aarch64'", arch)
  const object = typeof value === 'string' ? parseJson(value) : value
  if (typeof object !== 'object' || object === null || Array.isArray(object))
    throw invalid('operation', 'a JSON object with an "op"', object)
  const fields = object as Record<string, unknown>
  const { op } = fields
  switch (op) {
    case 'cpu.add':
    case 'cpu.remove': {
      if (arch === 'aarch64') {
        only(fields, `${op} on ${arch}`, ['count'])
        return { type: types[op], count: number(fields, 'count') }
      }
      only(fields, `${op} on ${arch}`, ['apicIds', 'apicVersion'])
      const { apicIds } = fields
      if (!Array.isArray(apicIds)) throw invalid('apicIds', 'an array of APIC ids', apicIds)
      apicIds.forEach((id, i) => {
        if (typeof id !== 'number') throw invalid(`apicIds[${i}]`, 'a number', id)
      })
      return {
        type: types[op],
        apicIds: [...apicIds],
        ...(fields.apicVersion !== undefined && { apicVersion: number(fields, 'apicVersion') }),
      }
    }
    case 'mmio.add':
    case 'mmio.remove':
      only(fields, op, ['base', 'size', 'irq'])
      return { type: types[op], base: address(fields, 'base'), size: address(fields, 'size'), irq: number(fields, 'irq') }
    case 'pci.add':
    case 'pci.remove':
      only(fields, op, ['bdf'])
      if (typeof fields.bdf !== 'string') throw invalid('bdf', 'a PCI address such as "00:05.0"', fields.bdf)
      return { type: types[op], ...parseBdf(fields.bdf) }
    case 'request':
      only(fields, op, ['type', 'load'])
      return { type: 'RAW', messageType: number(fields, 'type'), load: parseLoad(fields.load ?? '') }
    default:
      throw invalid('op', `one of ${Object.keys(types).join(', ')} and request`, op)
  }
}

/** Reads a load written as hexadecimal digits. White space is ignored. @throws WireError */
export function parseLoad(value: unknown): Uint8Array {
  if (typeof value !== 'string') throw invalid('load', 'a string of hexadecimal digits', value)
  const digits = value.replace(/\s+/g, '')
  if (!/^(?:[0-9a-f]{2})*$/i.test(digits)) throw invalid('load', 'pairs of hexadecimal digits', value)
  if (digits.length / 2 > MAX_REQUEST_LOAD)
    throw new WireError('ARGUMENT', 'load', `must have at most ${MAX_REQUEST_LOAD} bytes, got ${digits.length / 2}`)
  return Uint8Array.from(Buffer.from(digits, 'hex'))
}

/** Reads an address or a size: hexadecimal after 0x, otherwise decimal. @throws WireError that names `path`. */
export function parseU64(value: unknown, path: string): bigint {
  if (typeof value === 'string' && /^(?:0x[0-9a-f]{1,16}|[0-9]{1,20})$/i.test(value)) return BigInt(value)
  throw invalid(path, 'an unsigned integer, as in "0xd0000000" or "4096"', value)
}

function address(fields: Record<string, unknown>, key: string): bigint {
  const value = fields[key]
  return Number.isSafeInteger(value) && (value as number) >= 0 ? BigInt(value as number) : parseU64(value, key)
}

function number(fields: Record<string, unknown>, key: string): number {
  const value = fields[key]
  if (typeof value !== 'number') throw invalid(key, 'a number', value)
  return value
}

function only(fields: Record<string, unknown>, op: string, keys: string[]): void {
  for (const key of Object.keys(fields)) {
    if (key !== 'op' && !keys.includes(key))
      throw new WireError('ARGUMENT', key, `is not a key of ${op}, which takes ${keys.join(', ')}`)
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new WireError('ARGUMENT', 'operation', `is not JSON: ${textOf(error)}`)
  }
}

function invalid(path: string, allowed: string, value: unknown): WireError {
  return new WireError('ARGUMENT', path, `must be ${allowed}, got ${value === undefined ? 'nothing' : show(value)}`)
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}
