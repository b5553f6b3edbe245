import { parseBdf } from '@upcall/device-manager'
import { describe, expect, it } from 'vitest'
import type { Cpu, DeviceStatus, Drive, PciDevice } from './devices.js'
import type { Inventory } from './inventory.js'
import type { GuestReport } from './port.js'
import { differences, listSettled, settle, settleAsAbsent } from './reconcile.js'

function drive(id: string, base: bigint, status: DeviceStatus): Drive {
  return { id, window: { base, size: 0x2000n, irq: 6 }, pathOnHost: '/d', isReadOnly: false, status }
}

function inventory(): Inventory {
  const cpus: Cpu[] = [0, 1, 2, 3].map((id) => ({ id, status: id < 2 ? 'present' : 'unknown' }))
  const drives = [drive('a', 0xd0000000n, 'present'), drive('b', 0xd0002000n, 'unknown'), drive('c', 0xd0004000n, 'unknown')]
  const pci: PciDevice[] = [
    { id: 'p', place: parseBdf('00:01.0'), status: 'unknown' },
    { id: 'q', place: parseBdf('00:02.0'), status: 'unknown' },
  ]
  return {
    cpus: new Map(cpus.map((cpu) => [cpu.id, cpu])),
    drives: new Map(drives.map((drive) => [drive.id, drive])),
    pci: new Map(pci.map((device) => [device.id, device])),
  }
}

const guest: GuestReport = {
  booted: true,
  paused: false,
  crashed: false,
  cpus: { online: [0, 2], present: [0, 1, 2, 3, 4] },
  mmio: [
    { base: 0xd0002000n, size: 0x2000n, irq: 6 },
    { base: 0xd0004000n, size: 0x1000n, irq: 6 },
  ],
  pci: [parseBdf('00:02.0'), parseBdf('00:09.0')],
}

describe('settle', () => {
  it('believes the guest of everything unknown, window by exact window', () => {
    expect(listSettled(settle(inventory(), guest))).toEqual([
      { kind: 'cpu', id: '2', now: 'present' },
      { kind: 'cpu', id: '3', now: 'absent' },
      { kind: 'mmio', id: 'b', now: 'present' },
      { kind: 'mmio', id: 'c', now: 'absent' },
      { kind: 'pci', id: 'q', now: 'present' },
      { kind: 'pci', id: 'p', now: 'absent' },
    ])
  })

  it('takes everything unknown for absent where the guest is a fresh one', () => {
    expect(listSettled(settleAsAbsent(inventory())).map(({ kind, id, now }) => `${kind} ${id} ${now}`)).toEqual([
      'cpu 2 absent',
      'cpu 3 absent',
      'mmio b absent',
      'mmio c absent',
      'pci p absent',
      'pci q absent',
    ])
  })
})

describe('differences', () => {
  it('names what only one side has, and nothing that is unknown', () => {
    expect(differences(inventory(), guest)).toEqual([
      { kind: 'cpu', id: '1', only: 'vmm' },
      { kind: 'mmio', id: 'a', only: 'vmm' },
      { kind: 'mmio', id: '0xd0004000', only: 'guest' },
      { kind: 'pci', id: '00:09.0', only: 'guest' },
    ])
  })
})
