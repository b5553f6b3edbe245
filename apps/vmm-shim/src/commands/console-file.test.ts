import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../testing/rig.js'
import { openConsoleFile } from './console-file.js'

describe('openConsoleFile', () => {
  it('writes anew, and nothing behind its end', () => {
    using directory = temporaryDirectory()
    const path = join(directory.path, 'console')
    for (const text of ['first', 'second']) {
      const file = openConsoleFile(path, () => {})
      file.write(text)
      file[Symbol.dispose]()
      file.write('too late')
    }
    expect(readFileSync(path, 'utf8')).toBe('second')
  })

  it('tells once that the disk is full, and throws nothing', () => {
    const failures: string[] = []
    using file = openConsoleFile('/dev/full', (why) => failures.push(why))
    file.write('x')
    file.write('x')
    expect(failures).toEqual([expect.stringContaining('ENOSPC')])
  })

  it('throws if there can be no such file', () => {
    expect(() => openConsoleFile('/no/such/file', () => {})).toThrow(/ENOENT/)
  })
})
