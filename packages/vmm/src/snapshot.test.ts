import { describe, expect, it } from 'vitest'
import type { Inventory } from './inventory.js'
import { readSnapshot, takeSnapshot, type VmSnapshot } from './snapshot.js'

const inventory: Inventory = {
  cpus: new Map([
    [0, { id: 0, status: 'present' }],
    [1, { id: 1, status: 'adding' }],
    [2, { id: 2, status: 'removing' }],
    [5, { id: 5, status: 'unknown' }],
  ]),
  drives: new Map([
    [
      'vdb',
      {
        ...{ id: 'vdb', window: { base: 0xffff_ffff_ffff_0000n, size: 0x2000n, irq: 6 } },
        ...{ pathOnHost: '/srv/data.img', isReadOnly: true, status: 'present' },
      },
    ],
  ]),
  pci: new Map([
    ['net1', { id: 'net1', place: { bus: 0, devfn: 5 << 3 }, status: 'removing' }],
    ['disk1', { id: 'disk1', place: { bus: 1, devfn: 0 }, disk: { pathOnHost: '/d', isReadOnly: false }, status: 'present' }],
  ]),
}

const snapshot: VmSnapshot = {
  ...{ version: 1, arch: 'x86_64', maxCpus: 8 },
  cpus: [
    { id: 0, status: 'present' },
    { id: 1, status: 'unknown' },
    { id: 2, status: 'unknown' },
    { id: 5, status: 'unknown' },
  ],
  drives: [
    {
      ...{ id: 'vdb', window: { base: '0xffffffffffff0000', size: '0x2000', irq: 6 } },
      ...{ pathOnHost: '/srv/data.img', isReadOnly: true, status: 'present' },
    },
  ],
  pci: [
    { id: 'net1', bdf: '00:05.0', status: 'unknown' },
    { id: 'disk1', bdf: '01:00.0', disk: { pathOnHost: '/d', isReadOnly: false }, status: 'present' },
  ],
}

describe('a snapshot', () => {
  it('has what is under way as unknown, in values that JSON keeps', () => {
    const taken = takeSnapshot({ arch: 'x86_64', maxCpus: 8, inventory })
    expect(taken).toEqual(snapshot)
    expect(JSON.parse(JSON.stringify(taken))).toEqual(snapshot)
  })

  it('is read as it was taken', () => {
    const value = readSnapshot(JSON.parse(JSON.stringify(snapshot)))
    expect(takeSnapshot(value)).toEqual(snapshot)
    expect(value.inventory.drives.get('vdb')?.window.base).toBe(0xffff_ffff_ffff_0000n)
    expect(value.inventory.pci.get('net1')).not.toHaveProperty('disk')
  })

  const drive = snapshot.drives[0]!
  const device = snapshot.pci[1]!
  it.each<[string, unknown, string]>([
    ['is null', null, 'snapshot: must be an object, got null'],
    ['is a text', '{}', 'snapshot: must be an object, got "{}"'],
    ['is of another version', { ...snapshot, version: 2 }, 'snapshot.version: must be 1, got 2'],
    ['is of another architecture', { ...snapshot, arch: 'mips' }, 'snapshot.arch: must be "x86_64" or "aarch64", got "mips"'],
    ['has no limit', { ...snapshot, maxCpus: undefined }, 'snapshot.maxCpus: must be an integer from 1 to 255, got undefined'],
    ['has no vCPUs', { ...snapshot, cpus: [] }, 'snapshot.cpus: must be a list with vCPU 0, which is present, got []'],
    ['has no list of vCPUs', { ...snapshot, cpus: 4 }, 'snapshot.cpus: must be an array, got 4'],
    [
      'has a vCPU over the limit',
      { ...snapshot, cpus: [...snapshot.cpus, { id: 8, status: 'present' }] },
      'snapshot.cpus[4].id: must be an integer from 0 to 7, got 8',
    ],
    [
      'has a vCPU twice',
      { ...snapshot, cpus: [...snapshot.cpus, { id: 5, status: 'present' }] },
      'snapshot.cpus[4].id: must be an id that no other has, got 5',
    ],
    [
      'has something under way',
      { ...snapshot, cpus: [{ id: 0, status: 'adding' }] },
      'snapshot.cpus[0].status: must be "present" or "unknown", got "adding"',
    ],
    [
      'has a window without base',
      { ...snapshot, drives: [{ ...drive, window: { ...drive.window, base: 5 } }] },
      'snapshot.drives[0].window.base: must be a text such as "0xd0000000", got 5',
    ],
    [
      'has a window without line',
      { ...snapshot, drives: [{ ...drive, window: { ...drive.window, irq: '6' } }] },
      'snapshot.drives[0].window.irq: must be an integer of at least 0, got "6"',
    ],
    [
      'has a drive without file',
      { ...snapshot, drives: [{ ...drive, pathOnHost: '' }] },
      'snapshot.drives[0].pathOnHost: must be a text that is not empty, got ""',
    ],
    [
      'has a device without id',
      { ...snapshot, pci: [{ ...device, id: undefined }] },
      'snapshot.pci[0].id: must be a string, got undefined',
    ],
    [
      'has a device at no address',
      { ...snapshot, pci: [{ ...device, bdf: '00:20.0' }] },
      'snapshot.pci[0].bdf: must be an address such as "00:05.0", got "00:20.0"',
    ],
    [
      'has a disk of another kind',
      { ...snapshot, pci: [{ ...device, disk: { pathOnHost: '/d' } }] },
      'snapshot.pci[0].disk.isReadOnly: must be true or false, got undefined',
    ],
  ])('that %s is refused', (_, value, message) => {
    expect(() => readSnapshot(value)).toThrow(message)
  })
})
