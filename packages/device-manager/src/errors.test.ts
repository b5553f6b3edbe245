import { isUpcallError, UpcallError } from '@upcall/client'
import { encodeReply, encodeRequest, type Reply, type Request } from '@upcall/wire'
import { describe, expect, test } from 'vitest'
import { DeviceManager, deviceManagerProtocol, errnoName, GuestError, guestErrorOf, isGuestError } from './index.js'

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
    op: 'mmio.add 0xd0000000+0x1000 irq 5',
    subject: 'vm7',
    what: 'the guest refused: the window or the irq is in use (EEXIST)',
    next: 'Choose a free window and a free irq.',
    operation: { op: 'mmio.add', base: '0xd0000000', size: '0x1000', irq: 5 },
    message:
      'mmio.add 0xd0000000+0x1000 irq 5 vm7: the guest refused: the window or the irq is in use (EEXIST). Choose a free window and a free irq.',
  })
})

test('no other error is a GuestError', () => {
  for (const other of [
    undefined,
    { code: 'GUEST_ERROR' },
    new Error('GUEST_ERROR'),
    new UpcallError({ code: 'TIMEOUT', outcome: 'indeterminate', subject: 'guest', what: 'late' }),
  ])
    expect(isGuestError(other)).toBe(false)
})

test.each([
  [1, -22, 'an id is in use or has no vCPU (EINVAL). Earlier ids of the batch may be online.'],
  [2, -17, 'the CPU is registered already (EEXIST). After a hole in the ids'],
  [5, -17, 'the window or the irq is in use (EEXIST). Choose'],
  [5, -22, 'an invalid argument (EINVAL). Check base, size and irq.'],
  [6, -19, 'no such window (ENODEV). Remove a window with the base, size and irq of its add.'],
  [7, -19, 'no such device (ENODEV). Plug the device in'],
  [7, -22, "an invalid argument (EINVAL). Look at the guest's kernel log."],
  [3, -17, "it exists already (EEXIST). Look at the guest's kernel log."],
  [9, -22, "Look at the guest's kernel log."],
  [4711, -40, "the operation failed (ELOOP). Look at the guest's kernel log."],
])('a raw request of type %i is advised on %i by its type', (messageType, result, advice) => {
  const request: Request = { type: 'RAW', messageType, load: new Uint8Array() }
  const error = new GuestError(request, { ...request, result }, 'vm7')
  expect(error.message).toContain(advice)
})

test('EINVAL for a count of vCPUs may be an x86_64 guest that reads ids', () => {
  for (const type of ['ADD_CPU', 'DEL_CPU'] as const) {
    const message = (request: Request) => new GuestError(request, { type, result: -22 }, 'vm7').message
    expect(message({ type, count: 2 })).toMatch(/ an x86_64 guest reads a count as APIC ids\.$/)
    expect(message({ type, count: 2 })).not.toContain('an id is in use')
    expect(message({ type, apicIds: [2] })).not.toContain('x86_64')
  }
})

test.each<[Request, number, string]>([
  [
    { type: 'ADD_CPU', apicIds: [2] },
    -22,
    'cpu.add 2: the guest refused: the id is in use or has no vCPU (EINVAL). Start the vCPU of a free id before the add.',
  ],
  [
    { type: 'DEL_CPU', apicIds: [3, 2] },
    -22,
    'cpu.remove 3,2: the guest refused: the boot CPU and the last CPU cannot be removed (EINVAL). Earlier ids of the batch may be gone. Look at the guest.',
  ],
  [
    { type: 'DEL_PCI', bus: 0, devfn: 0xf8 },
    -19,
    'pci.remove 00:1f.0: the guest refused: no such device (ENODEV). Check the address with "lspci" in the guest.',
  ],
  [
    { type: 'DEL_CPU', apicIds: [2] },
    1,
    'cpu.remove 2: the guest refused: a CPU is in that state already (+1). The step changed nothing. Compare what the VMM believes with what the guest has.',
  ],
  [
    { type: 'ADD_CPU', apicIds: [2] },
    -5,
    'cpu.add 2: the guest refused: a CPU does not come online (EIO). Start its vCPU before the add.',
  ],
  [
    { type: 'ADD_PCI', bus: 0, devfn: 8 },
    -1,
    'pci.add 00:01.0: the guest refused: its kernel does not have this command (EPERM). Use a guest kernel that is built with this kind of hotplug.',
  ],
])('%j, answered %i: a message without the default name of the guest', (request, result, message) => {
  expect(new GuestError(request, { type: request.type, result } as Reply, 'guest').message).toBe(message)
})

test('the refusal that caused an error is found', () => {
  const refusal = new GuestError({ type: 'DEL_PCI', bus: 0, devfn: 8 }, { type: 'DEL_PCI', result: -19 }, 'guest')
  expect(guestErrorOf(refusal)).toBe(refusal)
  expect(guestErrorOf(new Error('outer', { cause: new Error('inner', { cause: refusal }) }))).toBe(refusal)
  const circular = new Error('circular')
  circular.cause = circular
  for (const other of [circular, new Error('no cause'), undefined, { cause: refusal }])
    expect(guestErrorOf(other)).toBe(undefined)
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
