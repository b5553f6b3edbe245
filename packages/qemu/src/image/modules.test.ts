import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { collectModules, loadOrder, moduleDependencies } from './modules.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'modules-'))
  await writeFile(join(dir, 'modules.builtin'), 'kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c-generic.ko\n')
})
afterEach(() => rm(dir, { recursive: true }))

async function module(path: string, depends: string): Promise<void> {
  const file = join(dir, 'kernel', path)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, `\x7fELF…license=GPL\0depends=${depends}\0name=x\0`)
}

describe('collectModules', () => {
  it('loads what a module depends on before it', async () => {
    await module('drivers/virtio/virtio.ko', 'virtio_ring')
    await module('drivers/virtio/virtio_ring.ko', '')
    await module('drivers/virtio/virtio_pci.ko', 'virtio_ring,virtio')
    await module('drivers/char/hw_random/virtio-rng.ko', 'virtio,crc32c-generic')
    const { files, order } = await collectModules(dir, ['virtio_pci', 'virtio-rng', 'ext4'])
    expect(order).toEqual({
      virtio_pci: ['virtio_ring', 'virtio', 'virtio_pci'],
      'virtio-rng': ['virtio_ring', 'virtio', 'virtio_rng'],
      ext4: [],
    })
    expect([...files.keys()].sort()).toEqual(['virtio', 'virtio_pci', 'virtio_ring', 'virtio_rng'])
  })

  it('says which module is missing, and which one needs it', async () => {
    await module('net/vsock_loopback.ko', 'vsock')
    await expect(collectModules(dir, ['vsock_loopback'])).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringMatching(/^kernel module vsock: it is not in .*, and vsock_loopback needs it$/),
    })
  })

  it('refuses a circle, and a file that is not a module', () => {
    const circle = new Map([
      ['a', ['b']],
      ['b', ['a']],
    ])
    expect(() => loadOrder('a', circle)).toThrow(/a → b → a/)
    expect(() => moduleDependencies(Buffer.from('hello'))).toThrow(/^kernel module: the file has no depends= entry/)
  })
})
