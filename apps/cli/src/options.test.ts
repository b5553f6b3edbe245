import { expect, test } from 'vitest'
import { UsageError } from './errors.js'
import { archOf, parseDuration, parseIds, parseInteger, parseMessageType, parseSize, targetOf } from './options.js'

test.each([
  ['500ms', 500],
  ['5s', 5_000],
  ['2m', 120_000],
  ['1.5s', 1_500],
  ['0.25m', 15_000],
])('%s is %d ms', (text, ms) => expect(parseDuration(text)).toBe(ms))

test.each(['5', '', 's', '5 s', '-5s', '0s', '1h', '5S', '1e3ms', '99999m', '.5s'])('%j is not a duration', (text) => {
  expect(() => parseDuration(text)).toThrow(/unit|24 days/)
})

test('vCPU ids in each form keep their order', () => {
  expect(parseIds(['2', '3'])).toEqual([2, 3])
  expect(parseIds(['5,4', '7-9', '1-1'])).toEqual([5, 4, 7, 8, 9, 1])
  expect(parseIds([])).toEqual([])
})

test.each(['', 'x', '3-2', '-1', '1-', '1.5', '1000'])('%j names no vCPUs', (text) => {
  expect(() => parseIds([text])).toThrow(UsageError)
})

test('numbers are decimal or hexadecimal, and nothing else', () => {
  expect([parseInteger('0'), parseInteger('42'), parseInteger('0x1F')]).toEqual([0, 42, 31])
  for (const text of ['', '-1', '1.0', '0x', '1e3', '0x123456789', 'five']) expect(() => parseInteger(text)).toThrow()
})

test('sizes are bytes, or have a unit', () => {
  expect(['4096', '0x1000', '4K', '4k', '512M', '3G', '0'].map(parseSize)).toEqual([
    '4096',
    '0x1000',
    '0x1000',
    '0x1000',
    '0x20000000',
    '0xc0000000',
    '0',
  ])
  for (const text of ['', 'K', '4Q', '4KB', '0x4K', '1.5M', '-4K', '4 K']) expect(() => parseSize(text)).toThrow(/as in 4K/)
})

test('a message type goes by number or name', () => {
  expect([parseMessageType('3'), parseMessageType('add_mem'), parseMessageType('DEL_PCI')]).toEqual([3, 3, 8])
  expect(() => parseMessageType('ADD_DISK')).toThrow(/ADD_MEM/)
})

test('the target is the option, then the environment, and its port may be missing', () => {
  const hvsock = { transport: 'hvsock', path: '/run/vm.sock', port: 219 }
  expect(targetOf({ target: 'hvsock:///run/vm.sock' }, { UPCALL_TARGET: 'unix:/other' })).toEqual(hvsock)
  expect(targetOf({}, { UPCALL_TARGET: 'hvsock:///run/vm.sock:219' })).toEqual(hvsock)
  expect(targetOf({}, { UPCALL_TARGET: 'vsock://3' })).toEqual({ transport: 'vsock', cid: 3, port: 219 })
  for (const target of ['vsock://any:219', 'vsock://3:any'])
    expect(() => targetOf({ target }, {})).toThrow(/^--target: the CID and the port of a guest cannot be any/)
  expect(() => targetOf({}, {})).toThrow(/--target <address> or set UPCALL_TARGET/)
  expect(() => targetOf({}, { UPCALL_TARGET: '' })).toThrow(/no target/)
  expect(() => targetOf({ target: 'vm.sock' }, {})).toThrow(/^--target: .*hvsock:/)
  expect(() => targetOf({}, { UPCALL_TARGET: 'vm.sock' })).toThrow(/^UPCALL_TARGET: /)
})

test("the architecture is the option, then this machine's, and must be one of the two", () => {
  expect(archOf({ arch: 'aarch64' }, 'x64')).toBe('aarch64')
  expect(archOf({}, 'x64')).toBe('x86_64')
  expect(archOf({}, 'arm64')).toBe('aarch64')
  expect(() => archOf({}, 'riscv64')).toThrow(/riscv64.*--arch/)
})
