import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeSockaddrVm, encodeSockaddrVm } from './sockaddr.js'

const u32 = fc.integer({ min: 0, max: 0xffffffff })

describe('sockaddr_vm', () => {
  it('has the layout of linux/vm_sockets.h', () => {
    expect([...encodeSockaddrVm({ cid: 0x01020304, port: 0x05060708, toHost: true }, true)]).toEqual([
      40, 0, 0, 0, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 1, 0, 0, 0,
    ])
    expect([...encodeSockaddrVm({ cid: 2, port: 219 }, false)]).toEqual([0, 40, 0, 0, 0, 0, 0, 219, 0, 0, 0, 2, 0, 0, 0, 0])
  })

  it('reads back what it wrote, in either byte order and at any offset of a buffer', () => {
    fc.assert(
      fc.property(u32, u32, fc.boolean(), fc.boolean(), fc.nat(9), (cid, port, toHost, littleEndian, offset) => {
        const padded = new Uint8Array(offset + 20)
        padded.set(encodeSockaddrVm({ cid, port, toHost }, littleEndian), offset)
        expect(decodeSockaddrVm(padded.subarray(offset), littleEndian)).toEqual({ cid, port, toHost })
      }),
    )
  })

  it('ignores flags it does not know', () => {
    const bytes = encodeSockaddrVm({ cid: 3, port: 4 })
    bytes[12] = 0xfe
    expect(decodeSockaddrVm(bytes)).toEqual({ cid: 3, port: 4, toHost: false })
  })

  it('refuses bytes that are not a sockaddr_vm', () => {
    expect(() => decodeSockaddrVm(new Uint8Array(15))).toThrow('sockaddr_vm: must be 16 bytes, got 15')
    expect(() => decodeSockaddrVm(new Uint8Array(16))).toThrow('sockaddr_vm: the family must be AF_VSOCK (40), got 0')
  })

  it.each([-1, 0x100000000, 1.5, Number.NaN, '3' as unknown as number])('refuses %s as CID and as port', (value) => {
    expect(() => encodeSockaddrVm({ cid: value, port: 1 })).toThrow('cid: must be an integer from 0 to 4294967295, got ')
    expect(() => encodeSockaddrVm({ cid: 1, port: value })).toThrow('port: must be an integer from 0 to 4294967295, got ')
  })
})
