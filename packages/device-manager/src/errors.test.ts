import { isUpcallError, UpcallError } from '@upcall/client'
import { encodeReply, encodeRequest, type Reply, type Request } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import { DeviceManager, deviceManagerProtocol, errnoName, GuestError, isGuestError } from './index.js'

test.each([
  [-1, 'EPERM'],
  [-5, 'EIO'],
  [-16, 'EBUSY'],
  [-17, 'EEXIST'],
  [-19, 'ENODEV'],
  [-22, 'EINVAL'],
  [-40, 'ELOOP'],
  [-110, 'ETIMEDOUT'],
  [-4095, 'E4095'],
  [1, '+1'],
])('%i is %s', (result, name) => expect(errnoName(result)).toBe(name))

test('a GuestError says what was asked, of whom, what came and what to do', () => {
  const request: Request = { type: 'ADD_MMIO', base: 0xd000_0000n, size: 0x1000n, irq: 5 }
  const error = new GuestError(request, { type: 'ADD_MMIO', result: -17 }, 'vm7')
  expect([isUpcallError(error), isGuestError(error)]).toEqual([true, true])
  expect(error).toMatchObject({
    name: 'GuestError',
    code: 'GUEST_ERROR',
    outcome: 'guest-error',
    errno: -17,
    errnoName: 'EEXIST',
    operation: { op: 'mmio.add', base: '0xd0000000', size: '0x1000', irq: 5 },
    message:
      'mmio.add 0xd0000000+0x1000 irq 5 vm7: refused with EEXIST (-17); the window or the irq overlaps one that the guest already has; choose a free one',
  })
})

test('no other error is a GuestError', () => {
  for (const other of [
    undefined,
    { code: 'GUEST_ERROR' },
    new Error('GUEST_ERROR'),
    new UpcallError('TIMEOUT', 'indeterminate', ''),
  ])
    expect(isGuestError(other)).toBe(false)
})

test.each([
  [1, -22, 'an id is in use, or no vCPU answers for it'],
  [2, -17, 'the guest counts that CPU as registered'],
  [5, -17, 'the window or the irq overlaps'],
  [5, -22, 'check base, size and irq'],
  [6, -19, 'no window has exactly this base'],
  [7, -19, 'the guest finds nothing on that bus and slot'],
  [7, -22, "see the guest's kernel log"],
  [3, -17, "see the guest's kernel log"],
  [9, -22, "see the guest's kernel log"],
  [4711, -19, "see the guest's kernel log"],
])('a raw request of type %i is advised on %i by its type', (messageType, result, advice) => {
  const request: Request = { type: 'RAW', messageType, load: new Uint8Array() }
  const error = new GuestError(request, { ...request, result }, 'vm7')
  expect(error.message).toContain(advice)
})

test('EINVAL for a count of vCPUs may be an x86_64 guest that reads ids', () => {
  for (const type of ['ADD_CPU', 'DEL_CPU'] as const) {
    const message = (request: Request) => new GuestError(request, { type, result: -22 }, 'vm7').message
    expect(message({ type, count: 2 })).toMatch(/, or the guest is x86_64 and takes the count for ids$/)
    expect(message({ type, count: 2 })).not.toContain('an id is in use')
    expect(message({ type, apicIds: [2] })).not.toContain('x86_64')
  }
})

describe('the protocol', () => {
  const protocol = deviceManagerProtocol({ arch: 'x86_64' })
  const pci: Request<'x86_64'> = { type: 'ADD_PCI', bus: 0, devfn: 8 }
  const cpu: Request<'x86_64'> = { type: 'ADD_CPU', apicIds: [1] }
  const raw = (messageType: number): Request<'x86_64'> => ({ type: 'RAW', messageType, load: new Uint8Array() })
  const frame = (reply: Reply) => encodeReply(reply, 'x86_64')

  test('only PCI needs a clean channel, RAW PCI too', () => {
    const needs = [pci, { ...pci, type: 'DEL_PCI' as const }, raw(7), raw(8), cpu, raw(1)].map((request) =>
      protocol.needsCleanChannel!(request),
    )
    expect(needs).toEqual([true, true, true, true, false, false])
  })

  test('CPU replies have 30 s, others 10 s, unless told otherwise', () => {
    expect([cpu, raw(2), pci, raw(3)].map((request) => protocol.replyTimeoutMs(request))).toEqual([
      30_000, 30_000, 10_000, 10_000,
    ])
    const other = deviceManagerProtocol({ arch: 'x86_64', replyTimeouts: { cpuMs: 1, otherMs: 2 } })
    expect([cpu, pci].map((request) => other.replyTimeoutMs(request))).toEqual([1, 2])
  })

  test('anything but 0 is a failure', () => {
    expect([0, 1, -22].map((result) => protocol.failed({ type: 'ADD_CPU', result }))).toEqual([false, true, true])
  })

  test('a reply answers a request of its own type, RAW by number', () => {
    expect(protocol.decode(frame({ type: 'ADD_PCI', result: 0 }), pci)).toEqual({ type: 'ADD_PCI', result: 0 })
    expect(protocol.decode(frame({ type: 'ADD_PCI', result: -19 }), raw(7))).toEqual({ type: 'ADD_PCI', result: -19 })
    expect(() => protocol.decode(frame({ type: 'DEL_PCI', result: 0 }), pci)).toThrow('msg_type: DEL_PCI does not answer ADD_PCI')
    expect(() => protocol.decode(frame({ type: 'RAW', messageType: 9, result: -1, load: new Uint8Array() }), raw(10))).toThrow(
      'type 9 does not answer type 10',
    )
  })

  test.each([undefined, 'arm64', 'x64'])('an architecture of %j is refused before anything is connected', (arch) => {
    const message = `arch: must be 'x86_64' or 'aarch64', got ${arch && JSON.stringify(arch)}`
    expect(() => deviceManagerProtocol({ arch: arch as never })).toThrow(new RangeError(message))
    const dial = () => Promise.reject(new Error('dialled'))
    expect(() => new DeviceManager({ dial, arch: arch as never })).toThrow(new RangeError(message))
  })

  test('the architecture reaches the codec', () => {
    const arm = deviceManagerProtocol({ arch: 'aarch64' })
    const into = new Uint8Array(1024)
    expect(arm.encode({ type: 'ADD_CPU', count: 2 }, into)).toBe(into)
    expect(into).toEqual(encodeRequest({ type: 'ADD_CPU', count: 2 }, 'aarch64'))
    const reply = { type: 'ADD_CPU', result: 0, cpuId: 3 } as const
    expect(arm.decode(encodeReply(reply, 'aarch64'), { type: 'ADD_CPU', count: 2 })).toEqual(reply)
  })
})
