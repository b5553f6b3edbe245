import { expect, it } from 'vitest'
import { apicIds, windows } from './report.js'

it('reads the APIC ids of the CPUs that are online', () => {
  const cpu = (number: number, id: number) => `processor\t: ${number}\napicid\t\t: ${id}\ninitial apicid\t: ${id}\n`
  expect(apicIds([cpu(0, 0), cpu(1, 3), cpu(2, 1)].join('\n'))).toEqual([0, 1, 3])
})

it('reads the windows that drivers have', () => {
  const iomem = [
    '00100000-1fffffff : System RAM',
    'feb00000-feb001ff : virtio-mmio.4',
    '  feb00000-feb001ff : virtio-mmio.4 virtio-mmio.4',
    'feb00e00-feb00fff : LNRO0005:00',
  ].join('\n')
  expect(windows(iomem).map(({ base, size }) => [base, size])).toEqual([
    ['0xfeb00000', '0x200'],
    ['0xfeb00e00', '0x200'],
  ])
})
