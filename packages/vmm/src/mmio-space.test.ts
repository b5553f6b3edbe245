import { describe, expect, it } from 'vitest'
import { nextWindow, overlaps, WINDOW_SIZE, type Window } from './mmio-space.js'

function fill(arch: 'x86_64' | 'aarch64'): Window[] {
  const windows: Window[] = []
  for (let window = nextWindow(arch, windows); window; window = nextWindow(arch, windows)) windows.push(window)
  return windows
}

describe('nextWindow', () => {
  it('gives windows that never overlap, until there are none left', () => {
    for (const arch of ['x86_64', 'aarch64'] as const) {
      const windows = fill(arch)
      expect(windows).toHaveLength(128)
      for (const [at, window] of windows.entries()) {
        expect(window.size).toBe(WINDOW_SIZE)
        for (const other of windows.slice(at + 1)) expect(overlaps(window, other)).toBe(false)
      }
    }
  })

  it('gives each device its own legacy line on x86_64, then the shared line 5', () => {
    const lines = fill('x86_64').map(({ irq }) => irq)
    expect(lines.slice(0, 12)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 5, 5])
    expect(new Set(lines.slice(10))).toEqual(new Set([5]))
  })

  it('shares no line on aarch64, where the kernel refuses a second device on any in 32–159', () => {
    const lines = fill('aarch64').map(({ irq }) => irq)
    expect(lines).toEqual(Array.from({ length: 128 }, (_, at) => 32 + at))
  })

  it('gives a freed window and line again', () => {
    const windows = fill('x86_64').slice(0, 4)
    const [, freed] = windows
    expect(
      nextWindow(
        'x86_64',
        windows.filter((window) => window !== freed),
      ),
    ).toEqual(freed)
  })

  it('keeps clear of a window that lies across its own grid', () => {
    expect(nextWindow('x86_64', [{ base: 0xd000_1000n, size: 0x2000n, irq: 6 }])).toEqual({
      base: 0xd000_4000n,
      size: 0x2000n,
      irq: 7,
    })
  })
})
