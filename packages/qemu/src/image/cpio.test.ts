import { describe, expect, it } from 'vitest'
import { cpio } from './cpio.js'

/** Reads an archive back, as the kernel does: to the trailer. */
function unpack(archive: Buffer) {
  const files: { name: string; mode: number; links: number; data: string }[] = []
  for (let at = 0; ; ) {
    const field = (i: number) => Number.parseInt(archive.toString('latin1', at + 6 + 8 * i, at + 14 + 8 * i), 16)
    expect(archive.toString('latin1', at, at + 6)).toBe('070701')
    const nameEnd = at + 110 + field(11)
    const data = Math.ceil(nameEnd / 4) * 4
    const name = archive.toString('utf8', at + 110, nameEnd - 1)
    if (name === 'TRAILER!!!') return files
    files.push({ name, mode: field(1), links: field(4), data: archive.toString('utf8', data, data + field(6)) })
    at = Math.ceil((data + field(6)) / 4) * 4
  }
}

describe('cpio', () => {
  it('writes directories, files and links that can be read back, of any length', () => {
    const archive = cpio([
      { path: 'bin', type: 'directory' },
      { path: 'bin/a', type: 'file', mode: 0o755, data: '12345' },
      { path: 'bin/ü', type: 'symlink', target: 'a' },
      { path: 'empty', type: 'file', data: new Uint8Array() },
    ])
    expect(unpack(archive)).toEqual([
      { name: 'bin', mode: 0o040755, links: 2, data: '' },
      { name: 'bin/a', mode: 0o100755, links: 1, data: '12345' },
      { name: 'bin/ü', mode: 0o120777, links: 1, data: 'a' },
      { name: 'empty', mode: 0o100644, links: 1, data: '' },
    ])
    expect(archive.length % 512).toBe(0)
  })

  it('writes the header byte for byte', () => {
    const zero = '00000000'
    const header = [
      '070701',
      '00000001',
      '000081a4',
      zero,
      zero,
      '00000001',
      zero,
      '00000002',
      zero,
      zero,
      zero,
      zero,
      '00000002',
      zero,
    ]
    expect(cpio([{ path: 'f', type: 'file', data: 'hi' }]).toString('latin1', 0, 116)).toBe(`${header.join('')}f\0hi\0\0`)
  })
})
