import { formatBdf, parseBdf } from '@upcall/device-manager'
import { describe, expect, it } from 'vitest'
import { VmError } from './error.js'
import { nextFunction, readBdf } from './pci-bus.js'

describe('nextFunction', () => {
  it('gives the lowest slot in which nothing sits', () => {
    expect(formatBdf(nextFunction([])!)).toBe('00:01.0')
    expect(formatBdf(nextFunction([parseBdf('00:01.3'), parseBdf('00:03.0')])!)).toBe('00:02.0')
  })

  it('has 31 of them', () => {
    const taken = Array.from({ length: 31 }, (_, at) => ({ bus: 0, devfn: (at + 1) << 3 }))
    expect(formatBdf(nextFunction(taken.slice(0, 30))!)).toBe('00:1f.0')
    expect(nextFunction(taken)).toBeUndefined()
  })
})

describe('readBdf', () => {
  it('reads both forms', () => {
    expect(readBdf('0000:00:05.1')).toEqual({ bus: 0, devfn: 0x29 })
    expect(readBdf('00:05.1')).toEqual({ bus: 0, devfn: 0x29 })
  })

  it.each(['', '5', '0001:00:05.0', '00:20.0', '01:05.0', '00:00.0'])('refuses %j', (text) => {
    expect(() => readBdf(text)).toThrow(VmError)
  })
})
