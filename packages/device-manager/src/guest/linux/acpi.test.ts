import { expect, test } from 'vitest'
import { dsdt, madt } from '../../../testing/fake-linux.js'
import { madtApicIds, processorUids } from './acpi.js'

test('the MADT: local APICs and x2APICs, by UID', () => {
  expect(madtApicIds(madt([0, 0], [1, 2], [300, 600]))).toEqual(
    new Map([
      [0, 0],
      [1, 2],
      [300, 600],
    ]),
  )
})

test('an entry whose APIC id is the sign that there is none is passed over', () => {
  const table = madt([0, 0], [1, 0xff - 1], [2, 1], [300, 0xffff_ffff])
  table[table.indexOf(0xfe)] = 0xff
  expect([...madtApicIds(table)]).toEqual([
    [0, 0],
    [2, 1],
  ])
})

test('a MADT that is cut short, or has an entry without length, yields what stands before', () => {
  const table = madt([0, 0], [1, 1])
  expect([...madtApicIds(table.subarray(0, table.length - 3)).keys()]).toEqual([0])
  table[table.length - 7] = 0
  expect([...madtApicIds(table).keys()]).toEqual([0])
  expect(madtApicIds(new Uint8Array(10))).toEqual(new Map())
})

test('a view into a larger buffer is read where it stands', () => {
  const table = madt([7, 9])
  const larger = new Uint8Array(table.length + 5)
  larger.set(table, 5)
  expect(madtApicIds(larger.subarray(5))).toEqual(new Map([[7, 9]]))
})

test('processors in byte code, of several tables', () => {
  const found = processorUids([dsdt(['C000', 0], ['C001', 1]), dsdt(['C0FE', 254])])
  expect([...found]).toEqual([
    ['C000', 0],
    ['C001', 1],
    ['C0FE', 254],
  ])
})

test('a package length of more than one byte', () => {
  const bytes = [0x5b, 0x83, 0x4c, 0x01, ...new TextEncoder().encode('CPU3'), 3, 0, 0, 0, 0, 0]
  expect(processorUids([Uint8Array.from([...new Array(36).fill(0), ...bytes])])).toEqual(new Map([['CPU3', 3]]))
})

test('one name for two UIDs says nothing; what is not a name is not a processor', () => {
  expect(processorUids([dsdt(['CPU0', 0], ['CPU0', 4], ['CPU1', 1])])).toEqual(new Map([['CPU1', 1]]))
  expect(processorUids([dsdt(['c\0\0\0', 0]), new Uint8Array(36), new Uint8Array(3)])).toEqual(new Map())
})
