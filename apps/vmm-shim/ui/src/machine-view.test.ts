import { describe, expect, it } from 'vitest'
import type { VmBody } from '../../src/api/view.js'
import { cellsInWords, cpuCells, difference, differences, ranges, slotCells, slotOfBusZero, unknowns } from './machine-view.js'

const window = { base: '0xd0000000', size: '0x2000', irq: 5 }

function vmWith({
  believed,
  guest,
}: {
  believed?: Partial<VmBody['believed']>
  guest?: Partial<NonNullable<VmBody['guest']>> | null
}): VmBody {
  return {
    state: 'running',
    arch: 'x86_64',
    believed: {
      cpus: { present: [0], unknown: [], max: 4 },
      memory: 2 ** 29,
      mmio: [],
      pci: [],
      spares: { cpus: [], pci: [] },
      ...believed,
    },
    guest:
      guest === null ? null : { booted: true, paused: false, crashed: false, cpus: { online: [0] }, mmio: [], pci: [], ...guest },
  }
}

const drive = { id: 'vdb', ...window, path_on_host: '/srv/b.img', is_read_only: false }

describe('cells', () => {
  it('has a cell for each vCPU that there can be, with both sides', () => {
    const cpus = { present: [0, 1], unknown: [2], max: 5 }
    const cells = cpuCells(vmWith({ believed: { cpus, spares: { cpus: [3], pci: [] } }, guest: { cpus: { online: [0, 4] } } }))
    expect(cells.map(({ believed, guest, differs }) => [believed, guest, differs])).toEqual([
      ['present', true, false],
      ['present', false, true],
      ['unknown', false, false],
      ['spare', false, false],
      ['free', true, true],
    ])
  })

  it('has cells for vCPUs beyond the most that the VMM has, if the guest reports them', () => {
    expect(cpuCells(vmWith({ guest: { cpus: { online: [0, 9] } } }))).toHaveLength(10)
  })

  it('does not differ from a guest that cannot report', () => {
    const cells = cpuCells(vmWith({ guest: null }))
    expect(cells.map(({ guest, differs }) => [guest, differs])).toEqual(Array(4).fill([undefined, false]))
  })

  it('has 32 slots of bus 0, and leaves other buses out', () => {
    const pci = [
      { id: 'net1', bdf: '00:1f.0', status: 'present' as const },
      { id: 'far', bdf: '01:02.0', status: 'present' as const },
      { id: 'lost', bdf: '00:03.1', status: 'unknown' as const },
    ]
    const cells = slotCells(
      vmWith({ believed: { pci, spares: { cpus: [], pci: ['00:04.0'] } }, guest: { pci: ['00:1f.0', '01:02.0'] } }),
    )
    expect(cells).toHaveLength(32)
    expect(cellsInWords(cells, (id) => id.toString(16))).toEqual([
      { label: 'present', ids: '1f' },
      { label: 'unknown', ids: '3' },
      { label: 'spare', ids: '4' },
    ])
  })

  it('reads addresses with and without a domain', () => {
    expect(['00:05.0', '0000:00:1f.7', '01:05.0', '0001:00:05.0', 'x'].map(slotOfBusZero)).toEqual([
      5,
      31,
      undefined,
      undefined,
      undefined,
    ])
  })
})

describe('differences', () => {
  it('lists what one side alone has', () => {
    const pci = [{ id: 'net1', bdf: '00:05.0', status: 'present' as const }]
    const vm = vmWith({
      believed: { cpus: { present: [0, 1], unknown: [], max: 4 }, mmio: [{ ...drive, status: 'present' }], pci },
      guest: { cpus: { online: [0, 2] }, mmio: [{ ...window, irq: 6 }], pci: ['00:06.0'] },
    })
    expect(differences(vm)).toEqual([
      { kind: 'cpu', id: '1', only: 'vmm' },
      { kind: 'cpu', id: '2', only: 'guest' },
      { kind: 'mmio', id: 'vdb', only: 'vmm' },
      { kind: 'mmio', id: '0xd0000000', only: 'guest' },
      { kind: 'pci', id: 'net1', only: 'vmm' },
      { kind: 'pci', id: '00:06.0', only: 'guest' },
    ])
    expect(difference(differences(vm)[0]!)).toBe('vCPU 1: the VMM has it, the guest does not')
  })

  it('leaves out what is unknown, and counts it', () => {
    const vm = vmWith({ believed: { cpus: { present: [0], unknown: [1], max: 4 }, mmio: [{ ...drive, status: 'unknown' }] } })
    expect(differences(vm)).toEqual([])
    expect(unknowns(vm)).toBe(2)
  })

  it('finds no difference if the guest cannot report', () => {
    expect(differences(vmWith({ guest: null, believed: { mmio: [{ ...drive, status: 'present' }] } }))).toEqual([])
  })
})

it('writes numbers as ranges', () => {
  expect([[], [3], [0, 1, 2, 3, 7], [0, 2, 4, 5]].map((ids) => ranges(ids))).toEqual(['none', '3', '0-3, 7', '0, 2, 4-5'])
})
