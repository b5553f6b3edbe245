import { expect, it } from 'vitest'
import { checkBdf, checkCpus, checkId, checkMemory, checkPath } from './forms.js'
import { bytes, milliseconds, parseBytes, windowSize } from './units.js'

const MIB = 2 ** 20

it('takes a number of vCPUs within the limits', () => {
  expect(['1', ' 8 ', '4'].map((text) => checkCpus(text, 8))).toEqual([undefined, undefined, undefined])
  for (const text of ['', '0', '9', '-1', '2.5', '1e1', 'four'])
    expect(checkCpus(text, 8)).toBe('Enter a whole number from 1 to 8.')
})

it('takes sizes of memory as people write them', () => {
  const limits = { boot: 512 * MIB, max: 2048 * MIB, block: 2 * MIB }
  for (const text of ['512', '768M', '768 MiB', '1.5G', '2 gib', '2048mb']) expect(checkMemory(text, limits)).toBeUndefined()
  expect(checkMemory('511', limits)).toBe('Enter 512 MiB to 2 GiB.')
  expect(checkMemory('3G', limits)).toBe('Enter 512 MiB to 2 GiB.')
  expect(checkMemory('513', limits)).toBe('Enter a multiple of 2 MiB.')
  for (const text of ['', 'lots', '1,5G', '-512', '0x200']) expect(checkMemory(text, limits)).toMatch(/^Enter a number of MiB/)
})

it('takes ids as the control API does, and none that is taken', () => {
  expect(checkId('a'.repeat(64), [])).toBeUndefined()
  expect(checkId('disk.1_a-B', ['disk'])).toBeUndefined()
  expect(checkId('disk', ['disk'])).toMatch(/already/)
  for (const text of ['a'.repeat(65), 'a b', 'ä', '../x']) expect(checkId(text, [])).toMatch(/^An id has/)
  expect(checkId('', [])).toMatch(/^Enter an id/)
})

it('takes paths and PCI addresses', () => {
  expect(checkPath('/srv/data.img')).toBeUndefined()
  expect(checkPath('')).toMatch(/^Enter/)
  expect(checkPath('a'.repeat(4096))).toMatch(/4095/)
  for (const text of ['', '00:05.0', '0000:00:1f.7', '1:2.3']) expect(checkBdf(text)).toBeUndefined()
  for (const text of ['5', '00:20.0', '00:05.8', '00:05', 'zz:00.0']) expect(checkBdf(text)).toMatch(/00:05\.0/)
})

it('writes numbers as people read them', () => {
  expect([512 * MIB, 1024 * MIB, 1536 * MIB, 1538 * MIB].map(bytes)).toEqual(['512 MiB', '1 GiB', '1.5 GiB', '1538 MiB'])
  expect(['0x2000', '0x200', '0x100000', 'x'].map(windowSize)).toEqual(['8 KiB', '512 B', '1 MiB', 'x'])
  expect([0.4211, 12.3, 1300].map(milliseconds)).toEqual(['0.42 ms', '12 ms', '1.3 s'])
  expect(parseBytes('1')).toBe(MIB)
})
