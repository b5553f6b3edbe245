import { mkdir, mkdtemp, open, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { makeExt4 } from './ext4.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ext4-'))
})
afterEach(() => rm(dir, { recursive: true }))

describe('makeExt4', () => {
  it('makes an image with room for many small files and one large one', async () => {
    const from = join(dir, 'from')
    await mkdir(join(from, 'deep/er'), { recursive: true })
    for (let i = 0; i < 500; i++) await writeFile(join(from, 'deep/er', `${i}`), 'x')
    await writeFile(join(from, 'large'), Buffer.alloc(20 << 20, 1))
    // A link to a folder counts once.
    await symlink('..', join(from, 'deep/up'))
    const image = join(dir, 'image')
    await makeExt4(from, image)
    expect((await stat(image)).size).toBeLessThan(32 << 20)
    const file = await open(image)
    // The superblock's magic number, 0xef53, at 1024 + 56.
    const { buffer } = await file.read(Buffer.alloc(2), 0, 2, 1080)
    await file.close()
    expect(buffer.toString('hex')).toBe('53ef')
  })

  it('names a folder that is not there', async () => {
    await expect(makeExt4(join(dir, 'none'), join(dir, 'image'))).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringMatching(/none: ENOENT/),
    })
  })
})
