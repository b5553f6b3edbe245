import { describe, expect, test } from 'vitest'
import { GUEST_BASE, MEMORY_SIZE, USER_BASE } from '../../testing/fake-guest.js'
import { RecordingPlatform, SessionScene, u64 } from '../../testing/session-scene.js'
import { encodeFrontEndMessage } from '../front-end/message.js'
import { P_XEN_MMAP, PROTOCOL_FEATURES } from './features.js'
import type { MappedRegion } from './memory.js'
import type { Descriptor } from './memory-table.js'
import { decodeFrontEndMessage } from './message.js'
import { decodeMessageHeader, type FrontEndMessage, MESSAGE_HEADER_SIZE } from './message-format.js'
import {
  isOnDemand,
  XEN_FOREIGN,
  XEN_GRANT,
  XEN_ON_DEMAND,
  XEN_ON_DEMAND_RUST_VMM,
  type XenRegion,
  xenError,
} from './xen-region.js'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** A page that domain 3 has granted by reference 5: the address has bit 63, as rust-vmm has it. */
const granted: XenRegion = {
  guestAddress: 0x8000_0000_0000_5001n,
  size: 0x1000n,
  userAddress: 0x7f00_0000_0000n,
  fileOffset: 0n,
  flags: XEN_GRANT | XEN_ON_DEMAND,
  domain: 3,
}
/** Ordinary memory, described at length. */
const ordinary: XenRegion = {
  guestAddress: BigInt(GUEST_BASE),
  size: BigInt(MEMORY_SIZE),
  userAddress: BigInt(USER_BASE),
  fileOffset: 0n,
  flags: 0,
  domain: 0,
}

/** Laid out by hand: the region of the specification, then u32 xen mmap flags, u32 domid. rust-vmm's struct is the same. */
const golden: [FrontEndMessage, string][] = [
  [
    { request: 'SET_MEM_TABLE', regions: [granted, { ...ordinary, flags: XEN_FOREIGN, domain: 0x7ff0 }] },
    '050000000100000058000000' +
      '0200000000000000' +
      '0150000000000080' +
      '0010000000000000' +
      '00000000007f0000' +
      '0000000000000000' +
      '0201000003000000' +
      '0000100000000000' +
      '0000100000000000' +
      '00000000007f0000' +
      '0000000000000000' +
      '01000000f07f0000',
  ],
  [
    { request: 'ADD_MEM_REG', region: { ...granted, flags: XEN_GRANT | XEN_ON_DEMAND_RUST_VMM } },
    '250000000100000030000000' +
      '0000000000000000' +
      '0150000000000080' +
      '0010000000000000' +
      '00000000007f0000' +
      '0000000000000000' +
      '0a00000003000000',
  ],
]

/** A process that can map some memory of a Xen domain. */
class XenPlatform extends RecordingPlatform {
  readonly mapXenRegion = (region: XenRegion, descriptor: Descriptor): MappedRegion => {
    this.used.push(descriptor)
    if (region.flags !== XEN_FOREIGN) throw xenError(region, 'only foreign memory can be mapped')
    const { guestAddress, size, userAddress } = region
    const numbers = { guestAddress: Number(guestAddress), size: Number(size), userAddress: Number(userAddress), fileOffset: 0 }
    const mapped = { ...numbers, windows: [this.bytes(numbers)] }
    this.mapped.push(mapped)
    return mapped
  }
}

function xenScene(platform: RecordingPlatform = new XenPlatform()): SessionScene {
  const scene = new SessionScene(platform)
  scene.negotiate(PROTOCOL_FEATURES | P_XEN_MMAP)
  return scene
}

describe("XEN_MMAP's layout", () => {
  test.each(golden)('%o', (message, expected) => {
    const bytes = encodeFrontEndMessage(message)
    expect(hex(bytes)).toBe(expected)
    const header = decodeMessageHeader(bytes)
    expect(decodeFrontEndMessage(header, bytes.subarray(MESSAGE_HEADER_SIZE), { xen: true })).toEqual(message)
  })

  test.each(golden)('short of a byte: %o', (message) => {
    const bytes = encodeFrontEndMessage(message)
    const payload = bytes.subarray(MESSAGE_HEADER_SIZE, bytes.length - 1)
    expect(() => decodeFrontEndMessage(decodeMessageHeader(bytes), payload, { xen: true })).toThrow(/the payload has/)
  })

  test('memory that cannot be mapped in advance has one of two bits', () => {
    expect([XEN_ON_DEMAND, XEN_ON_DEMAND_RUST_VMM].map((flag) => isOnDemand({ ...granted, flags: XEN_GRANT | flag }))).toEqual([
      true,
      true,
    ])
    expect(isOnDemand({ ...granted, flags: XEN_GRANT })).toBe(false)
  })
})

describe('XEN_MMAP', () => {
  test('is offered by a process that maps the memory of Xen domains, and by no other', () => {
    const offer = (platform: RecordingPlatform) =>
      u64(new SessionScene(platform).tell({ request: 'GET_PROTOCOL_FEATURES' }).reply)
    expect(offer(new RecordingPlatform()) & P_XEN_MMAP).toBe(0n)
    expect(offer(new XenPlatform())).toBe(PROTOCOL_FEATURES | P_XEN_MMAP)
    expect(() => new SessionScene().negotiate(P_XEN_MMAP)).toThrow(/beyond the offer/)
  })

  test('if it is not negotiated, regions are 32 bytes long', () => {
    const scene = new SessionScene(new XenPlatform())
    scene.start()
    expect(scene.turnTx()).toBe(true)
  })

  test.each<[string, Partial<XenRegion>]>([
    ['flags 0: ordinary memory, from its descriptor', {}],
    ['foreign memory, by the process', { flags: XEN_FOREIGN, domain: 5 }],
  ])('%s: a guest runs in it, and it goes again', (_, change) => {
    const scene = xenScene()
    const region = { ...ordinary, ...change }
    expect(u64(scene.tell({ request: 'ADD_MEM_REG', region }, { descriptors: [{}], needReply: true }).reply)).toBe(0n)
    for (const ring of [0, 1]) scene.startRing(ring)
    expect(scene.turnTx()).toBe(true)
    scene.tell({ request: 'SET_MEM_TABLE', regions: [region] }, { descriptors: [{}] })
    expect(scene.turnTx()).toBe(true)
    expect(u64(scene.tell({ request: 'REM_MEM_REG', region }, { needReply: true }).reply)).toBe(0n)
    expect(scene.platform.unmapped).toEqual(scene.platform.mapped)
  })

  test.each<[string, Partial<XenRegion>, RegExp]>([
    ['granted memory', { flags: XEN_GRANT }, /of Xen domain 3: only foreign memory/],
    ['granted memory on demand', { flags: XEN_GRANT | XEN_ON_DEMAND }, /of Xen domain 3: only foreign memory/],
    ['both kinds at once', { flags: XEN_FOREIGN | XEN_GRANT }, /flags 0x3 are unknown, or contradict/],
    ['foreign memory on demand', { flags: XEN_FOREIGN | XEN_ON_DEMAND_RUST_VMM }, /flags 0x9 are unknown, or contradict/],
    ['an unknown flag', { flags: 0x4 }, /flags 0x4 are unknown/],
    ['ordinary memory beyond 2^53', { flags: 0, guestAddress: granted.guestAddress }, /does not fit/],
  ])('%s is refused; no descriptor stays open', (_, change, text) => {
    const scene = xenScene()
    const descriptor = {}
    const region = { ...ordinary, domain: 3, ...change }
    const { reply, refused } = scene.tell({ request: 'ADD_MEM_REG', region }, { descriptors: [descriptor], needReply: true })
    expect(u64(reply)).toBe(1n)
    expect(refused?.message).toMatch(text)
    expect([...scene.platform.used, ...scene.platform.closed]).toEqual([descriptor])
  })
})
