import { errnoName } from '@upcall/device-manager'
import {
  type Arch,
  HEADER_SIZE,
  MAGIC_VERSION,
  MAX_REPLY_LOAD,
  MAX_REQUEST_LOAD,
  MESSAGE_SIZE,
  messageTypeName,
  REPLY_HEADER_SIZE,
} from '@upcall/wire'
import type { MessageKind } from './message.js'
import { resultText } from './text.js'

/** One field of a message: the bytes from `offset` up to `offset + length`. */
export interface MessageField {
  /** As the kernel names it, where it has a name: `msg_size`. */
  name: string
  /** From the beginning of the message, in bytes. */
  offset: number
  /** In bytes. */
  length: number
  /** As people write it: `0xd0000000`, `-19 ENODEV`. */
  value: string
  /** What it means, in one or two plain sentences. */
  meaning: string
  /** How its bytes break the protocol; absent if they do not. */
  wrong?: string
  /** The first byte that is wrong, from the beginning of the message; present with `wrong`. */
  wrongAt?: number
}

export interface ExplainAbout {
  /** A request goes to the guest, a reply comes from it. */
  direction: MessageKind
  arch: Arch
}

/**
 * Every byte of a message explained, in order and without gaps. It never throws: of a message that breaks the protocol it explains what can
 * be told, and `wrong` marks the field. A message has 1024 bytes; of fewer or more it says so.
 *
 * Source of the layout: the guest kernel patches that Kata Containers ships.
 */
export function explainMessage(bytes: Uint8Array, { direction, arch }: ExplainAbout): MessageField[] {
  const whole = new Uint8Array(MESSAGE_SIZE)
  whole.set(bytes.subarray(0, MESSAGE_SIZE))
  const given = Math.min(bytes.length, MESSAGE_SIZE)
  const fields = new Explainer(whole, direction, arch).fields()
  if (bytes.length > MESSAGE_SIZE) {
    const length = bytes.length - MESSAGE_SIZE
    const about = {
      name: 'excess',
      offset: MESSAGE_SIZE,
      length,
      value: `${length} bytes`,
      meaning: 'Not a part of the message.',
    }
    return [...fields, { ...about, wrong: `a message has ${MESSAGE_SIZE} bytes`, wrongAt: MESSAGE_SIZE }]
  }
  if (given === MESSAGE_SIZE) return fields
  return [
    ...fields.filter(({ offset, length }) => offset + length <= given),
    {
      ...{ name: 'missing', offset: given, length: 0, value: `${MESSAGE_SIZE - given} bytes` },
      meaning: 'The message ends early.',
      ...{ wrong: `${given} of the ${MESSAGE_SIZE} bytes of a message are there`, wrongAt: given },
    },
  ]
}

type Load = 'ADD_CPU' | 'DEL_CPU' | 'ADD_MMIO' | 'DEL_MMIO' | 'ADD_PCI' | 'DEL_PCI' | 'CONNECT' | undefined

const TYPES: Readonly<Record<string, string>> = {
  CONNECT: 'The greeting: the service is ready for requests.',
  ADD_CPU: 'Brings vCPUs into the guest.',
  DEL_CPU: 'Takes vCPUs out of the guest.',
  ADD_MEM: 'Declared for memory, but no kernel handles it: the guest answers -1.',
  DEL_MEM: 'Declared for memory, but no kernel handles it: the guest answers -1.',
  ADD_MMIO: 'Adds a virtio-mmio device.',
  DEL_MMIO: 'Removes a virtio-mmio device.',
  ADD_PCI: 'Adds a PCI function.',
  DEL_PCI: 'Removes a PCI function.',
}

/** What the kernel means by them. Source: its handlers of the device manager. */
const RESULTS: Readonly<Record<string, string>> = {
  EPERM: 'the kernel does not have this command',
  EIO: 'the vCPU did not start',
  EBUSY: 'the device or the vCPU is in use',
  EEXIST: 'it overlaps a device that is there, or is there itself',
  ENODEV: 'there is no such device',
  EINVAL: 'the kernel does not accept these values',
  ENOMEM: 'the guest has no memory left for it',
}

const CPU_TABLE = 256
const X86_CPU_SIZE = 2 + CPU_TABLE
const MMIO_SIZE = 24
const INDEX_SIZE = 4

class Explainer {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #kind: MessageKind
  readonly #arch: Arch
  readonly #fields: MessageField[] = []
  /** The end of the last field. */
  #at = 0

  constructor(bytes: Uint8Array, kind: MessageKind, arch: Arch) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#kind = kind
    this.#arch = arch
  }

  fields(): MessageField[] {
    const magicWrong = this.#magic()
    const type = this.#u32(8)
    const load = messageTypeName(type) as Load
    const sizeWrong = this.#size(type)
    this.#type(type)
    this.#flags(load)
    if (magicWrong) this.#rest('rest', 'Not explained: without the magic this is not a message of the device manager.')
    else if (this.#kind === 'reply') this.#reply(load, sizeWrong)
    else if (sizeWrong) this.#rest('load', 'Not read: the declared size is not the size of this load.')
    else this.#request(load)
    return this.#fields
  }

  #magic(): boolean {
    const magic = this.#u32(0)
    const expected = Uint8Array.of(MAGIC_VERSION, MAGIC_VERSION >>> 8, MAGIC_VERSION >>> 16, MAGIC_VERSION >>> 24)
    const at = expected.findIndex((byte, i) => this.#bytes[i] !== byte)
    const meaning = '"DM" and version 1.0: every message of the device manager begins with it.'
    this.#add('magic_version', 4, hex32(magic), meaning, wrongByte(this.#bytes, at, expected[at]))
    return at >= 0
  }

  #size(type: number): boolean {
    const size = this.#u32(4)
    const wrong = this.#kind === 'reply' ? wrongReplySize(type, size) : wrongRequestSize(type, size)
    const where = this.#kind === 'reply' ? 'after the result' : 'after the header'
    const meaning = size === 0 ? `No load follows ${where}.` : `A load of ${count(size, 'byte')} follows ${where}.`
    this.#add(
      'msg_size',
      4,
      String(size),
      meaning + this.#unchecked(type, size),
      wrong === undefined ? undefined : { wrong, at: 4 },
    )
    return wrong !== undefined
  }

  /** What the kernel lets pass. */
  #unchecked(type: number, size: number): string {
    if (this.#kind === 'reply') return ''
    const name = messageTypeName(type)
    const due =
      name === 'ADD_CPU' || name === 'DEL_CPU' ? (this.#arch === 'x86_64' ? X86_CPU_SIZE : 1) : /PCI/.test(`${name}`) ? 2 : size
    return due === size ? '' : ` On ${this.#arch} it is ${due}; the kernel does not check that, and reads the load as if it were.`
  }

  #type(type: number): void {
    const name = messageTypeName(type)
    const of = this.#kind === 'reply' && name !== 'CONNECT' ? 'The reply repeats the type of its request. ' : ''
    const meaning = of + (name === undefined ? 'The protocol declares no such type: the guest answers -1.' : TYPES[name]!)
    const value = name === undefined ? String(type) : `${name} (${type})`
    const wrong =
      this.#kind === 'request' && name === 'CONNECT' ? 'CONNECT is the greeting of the guest, and not a request' : undefined
    this.#add('msg_type', 4, value, meaning, wrong === undefined ? undefined : { wrong, at: 8 })
  }

  #flags(load: Load): void {
    const flags = this.#u32(12)
    const at = this.#bytes.subarray(12, 16).findIndex((byte) => byte !== 0)
    // Of the greeting alone they are checked: a later kernel may set them in replies.
    const wrong = load === 'CONNECT' && this.#kind === 'reply' ? wrongByte(this.#bytes, at < 0 ? -1 : 12 + at, 0) : undefined
    this.#add('msg_flags', 4, hex32(flags), flags === 0 ? 'Reserved, 0.' : 'Reserved: it should be 0, and is ignored.', wrong)
  }

  #reply(load: Load, sizeWrong: boolean): void {
    const result = this.#view.getInt32(HEADER_SIZE, true)
    // The greeting has no result. The answer to a CONNECT that was sent as a request has -1.
    if (load === 'CONNECT' && result === 0) return void this.#padding()
    this.#add('ret', 4, resultText(result), resultMeaning(result, load))
    if (sizeWrong) return void this.#rest('load', 'Not read: the declared size is not the size of this load.')
    const size = this.#u32(4)
    if ((load === 'ADD_CPU' || load === 'DEL_CPU') && size === INDEX_SIZE) {
      const n = this.#u32(REPLY_HEADER_SIZE)
      if (this.#arch === 'x86_64') this.#add('apic_index', 4, String(n), `The guest acted on ${count(n, 'vCPU')}.`)
      else this.#add('cpu_id', 4, String(n), `${count(n, 'vCPU')} ${n === 1 ? 'is' : 'are'} online now.`)
    } else if (size > 0) this.#load(size)
    this.#padding()
  }

  #request(load: Load): void {
    switch (load) {
      case 'ADD_CPU':
      case 'DEL_CPU':
        if (this.#arch === 'x86_64') this.#x86Cpus(load)
        else this.#armCpus(load)
        break
      case 'ADD_MMIO':
      case 'DEL_MMIO':
        this.#mmio()
        break
      case 'ADD_PCI':
      case 'DEL_PCI':
        this.#pci()
        break
      default:
        if (this.#u32(4) > 0) this.#load(this.#u32(4))
    }
    this.#padding()
  }

  #x86Cpus(type: 'ADD_CPU' | 'DEL_CPU'): void {
    const n = this.#bytes[this.#at]!
    const none = 'Names no vCPU: the result of that is undefined.'
    this.#add('count', 1, String(n), n === 0 ? none : `${count(n, 'vCPU')}: as many of the ids below are read.`)
    const version = hex(this.#bytes[this.#at]!)
    const read = type === 'ADD_CPU' ? 'Linux 6.12 and later ignore it.' : 'DEL_CPU ignores it.'
    this.#add('apic_ver', 1, version, `The version of the local APIC. ${read}`)
    const ids = this.#bytes.subarray(this.#at, this.#at + n)
    if (n > 0) this.#add('apic_ids', n, ids.join(','), idsMeaning(ids, type))
    this.#blank('unused apic_ids', CPU_TABLE - n, 'The rest of the table of 256 ids. Nothing reads it.')
  }

  #armCpus(type: 'ADD_CPU' | 'DEL_CPU'): void {
    const n = this.#bytes[this.#at]!
    const which = type === 'ADD_CPU' ? 'The guest brings the next ones up.' : 'The guest takes the last ones down.'
    this.#add('count', 1, String(n), `${count(n, 'vCPU')}. ${which}`)
  }

  #mmio(): void {
    const base = this.#view.getBigUint64(this.#at, true)
    this.#add('mmio_base', 8, `0x${base.toString(16)}`, 'The guest-physical address at which the window begins.')
    const size = this.#view.getBigUint64(this.#at, true)
    const end = base + size
    const ends = size === 0n ? 'The window is empty.' : `The window ends before 0x${end.toString(16)}.`
    this.#add('mmio_size', 8, `0x${size.toString(16)}`, `${size} bytes. ${ends}`)
    const irq = this.#u32(this.#at)
    const zero = irq === 0 && this.#arch === 'x86_64' ? ' The kernel takes 0 for no interrupt and refuses it.' : ''
    const line = this.#arch === 'x86_64' ? 'The interrupt line of the device.' : 'The GIC SPI number of the device.'
    this.#add('mmio_irq', 4, String(irq), line + zero)
    this.#blank('alignment', 4, 'Rounds the load up to 24 bytes. Nothing reads it.')
  }

  #pci(): void {
    const bus = this.#bytes[this.#at]!
    this.#add('busno', 1, hex(bus), `Bus ${bus} of PCI domain 0.`)
    const devfn = this.#bytes[this.#at]!
    const [slot, fn] = [devfn >> 3, devfn & 7]
    const bdf = `${bus.toString(16).padStart(2, '0')}:${slot.toString(16).padStart(2, '0')}.${fn}`
    this.#add('devfn', 1, hex(devfn), `Slot ${slot}, function ${fn}: ${bdf} as lspci writes it.`)
  }

  #load(size: number): void {
    const end = Math.min(this.#at + size, MESSAGE_SIZE)
    const bytes = this.#bytes.subarray(this.#at, end)
    this.#add('load', bytes.length, preview(bytes), 'The load that the message declares. The layout of this type is not known.')
  }

  #padding(): void {
    const meaning = 'Sent, and without a meaning: each message is filled up to 1024 bytes.'
    this.#blank('padding', MESSAGE_SIZE - this.#at, meaning)
  }

  /** Bytes that nothing reads. The kernel never clears its buffers, so that they may be of an earlier message. */
  #blank(name: string, length: number, meaning: string): void {
    if (length === 0) return
    const used = this.#bytes.subarray(this.#at, this.#at + length).reduce((n, byte) => (byte === 0 ? n : n + 1), 0)
    if (used === 0) {
      this.#add(name, length, `${count(length, 'byte')} of zeros`, meaning)
      return
    }
    const value = `${count(length, 'byte')}, ${used} of them not 0`
    const stale = 'Left over from an earlier message: nothing declares these bytes, and a reader ignores them.'
    this.#add(`stale ${name}`, length, value, stale)
  }

  #rest(name: string, meaning: string): void {
    const bytes = this.#bytes.subarray(this.#at)
    if (bytes.some((byte) => byte !== 0)) this.#add(name, bytes.length, preview(bytes), meaning)
    else this.#add(name, bytes.length, `${count(bytes.length, 'byte')} of zeros`, meaning)
  }

  #add(name: string, length: number, value: string, meaning: string, fault?: { wrong: string; at: number }): void {
    const wrong = fault && { wrong: fault.wrong, wrongAt: fault.at }
    this.#fields.push({ name, offset: this.#at, length, value, meaning, ...wrong })
    this.#at += length
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, true)
  }
}

/** The same rules as `decodeReply` and `checkConnect` have. */
function wrongReplySize(type: number, size: number): string | undefined {
  const name = messageTypeName(type)
  switch (name) {
    case 'ADD_CPU':
    case 'DEL_CPU':
      return size === 0 || size === INDEX_SIZE ? undefined : `${size} is neither 0 nor ${INDEX_SIZE}`
    case 'ADD_MEM':
    case 'DEL_MEM':
    case undefined:
      return size <= MAX_REPLY_LOAD ? undefined : `${size} is more than fits: at most ${MAX_REPLY_LOAD}`
    default:
      return size === 0 ? undefined : `${size} is not 0, and a reply to ${name} has no load`
  }
}

/** The same rules as `decodeRequest` has, which are the kernel's. */
function wrongRequestSize(type: number, size: number): string | undefined {
  const name = messageTypeName(type)
  if (name === 'ADD_MMIO' || name === 'DEL_MMIO')
    return size === MMIO_SIZE ? undefined : `${size} is not ${MMIO_SIZE}, and the kernel answers -22 (EINVAL)`
  const known = name !== undefined && name !== 'ADD_MEM' && name !== 'DEL_MEM'
  return known || size <= MAX_REQUEST_LOAD ? undefined : `${size} is more than fits: at most ${MAX_REQUEST_LOAD}`
}

function resultMeaning(result: number, load: Load): string {
  if (result === 0) {
    if (load === 'ADD_MMIO') return 'Success: the device is registered, which does not mean that a driver uses it.'
    return 'Success.'
  }
  if (result > 0) return 'A vCPU was in that state already, and nothing changed for it.'
  const why = RESULTS[errnoName(result)]
  return why === undefined ? 'The guest failed to do it.' : `The guest refused: ${why}.`
}

function idsMeaning(ids: Uint8Array, type: 'ADD_CPU' | 'DEL_CPU'): string {
  const doubled = ids.find((id, i) => ids.indexOf(id) < i)
  if (doubled !== undefined)
    return `The APIC ids of the vCPUs. ${doubled} is named more than once, which can crash the guest's service.`
  if (type === 'DEL_CPU' && ids.includes(0)) return 'The APIC ids of the vCPUs. 0 is the boot CPU, which cannot be removed.'
  return 'The APIC ids of the vCPUs, in the order in which the guest acts on them.'
}

function wrongByte(bytes: Uint8Array, at: number, expected: number | undefined): { wrong: string; at: number } | undefined {
  if (at < 0 || expected === undefined) return undefined
  return { wrong: `byte ${at} is ${hex(bytes[at]!)} and not ${hex(expected)}`, at }
}

const PREVIEW = 16

/** The first bytes in hexadecimal. */
function preview(bytes: Uint8Array): string {
  const digits = Array.from(bytes.subarray(0, PREVIEW), (byte) => byte.toString(16).padStart(2, '0')).join(' ')
  return bytes.length > PREVIEW ? `${digits} …, ${bytes.length} bytes` : digits
}

function count(n: number, what: string): string {
  return n === 1 ? `1 ${what}` : `${n} ${what}s`
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`
}

function hex32(word: number): string {
  return `0x${word.toString(16).padStart(8, '0')}`
}
