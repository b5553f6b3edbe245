import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { describe, expect, it } from 'vitest'
import { openLog, openLogFile } from './log.js'

describe('openLogFile', () => {
  it('empties the file first, and writes nothing after its end', () => {
    const directory = mkdtempSync(join(tmpdir(), 'log-'))
    try {
      const path = join(directory, 'console')
      for (const text of ['first', 'second']) {
        const file = openLogFile(path, () => {})
        file.write(text)
        file[Symbol.dispose]()
        file.write('too late')
      }
      expect(readFileSync(path, 'utf8')).toBe('second')
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it('tells once that the disk is full, and throws nothing', () => {
    const failures: string[] = []
    using file = openLogFile('/dev/full', (why) => failures.push(why))
    file.write('x')
    file.write('x')
    expect(failures).toEqual([expect.stringContaining('ENOSPC')])
  })

  it('throws if there can be no such file', () => {
    expect(() => openLogFile('/no/such/file', () => {})).toThrow(/ENOENT/)
  })
})

describe('openLog', () => {
  it('calls a function, and does not throw what that throws', async () => {
    using uncaught = catchUncaught()
    const broken = new Error('broken')
    const written: string[] = []
    using log = openLog((text) => {
      written.push(text)
      throw broken
    })
    expect(() => log.write('x')).not.toThrow()
    expect([written, await uncaught.next()]).toEqual([['x'], broken])
  })

  it('may go nowhere', () => {
    using log = openLog(undefined)
    expect(() => log.write('x')).not.toThrow()
  })
})
