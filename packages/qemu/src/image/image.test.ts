import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { GuestArch } from '../arch.js'
import { buildGuestImage, type GuestImage, type ImageOptions } from './image.js'
import { buildKernelModule } from './kernel-module.js'
import { runInGuest, startInGuest } from './run.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'image-'))
})
afterEach(() => rm(dir, { recursive: true }))

describe.runIf(process.platform === 'linux' && process.arch === 'x64')('buildGuestImage', () => {
  it.each<[Partial<ImageOptions>, RegExp]>([
    [{ arch: 'arm64' as GuestArch }, /arch is "arm64"; allowed: x86_64, aarch64/],
    [{ arch: 'aarch64' }, /node is missing: .* none for an aarch64 guest/],
    ...([
      [{ arch: 5 }, /arch is 5/],
      [{ packages: 'socat' }, /packages is "socat"; allowed: an array of texts/],
      [{ modules: [5] }, /modules is \[5\]; allowed: an array of texts/],
      [{ kernelPackage: 5 }, /kernelPackage is 5; allowed: a text/],
      [{ node: 5 }, /node is 5; allowed: a text/],
      [{ signal: {} }, /signal is \{\}/],
      [{ onProgress: 'log' }, /onProgress is "log"; allowed: a function/],
    ] as [object, RegExp][]),
  ])('refuses %o before it makes anything', async (options, message) => {
    const refused = { code: 'INVALID_OPTION', message: expect.stringMatching(message) }
    await expect(buildGuestImage({ cacheDir: dir, ...options })).rejects.toMatchObject(refused)
    expect(await readdir(dir)).toEqual([])
  })
})

describe.each<[string, (options: never) => Promise<unknown>]>([
  ['buildGuestImage', buildGuestImage],
  ['buildKernelModule', buildKernelModule],
  ['runInGuest', runInGuest],
  ['startInGuest', startInGuest],
])('%s', (_name, call) => {
  it.each([undefined, null, 5, 'x', {}])('refuses %o instead of options', async (options) => {
    await expect(call(options as never)).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  })
})

describe('buildKernelModule', () => {
  it('refuses an architecture that there is not before it makes anything', async () => {
    const options = { sourceDir: dir, release: '6.1', arch: 'mips' as GuestArch, cacheDir: join(dir, 'cache') }
    await expect(buildKernelModule(options)).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('arch is "mips"; allowed: x86_64, aarch64'),
    })
    expect(await readdir(dir)).toEqual([])
  })
})

describe('runInGuest', () => {
  const image = (arch: GuestArch): GuestImage => {
    const at = (name: string) => join(dir, name)
    return { arch, kernel: at('vmlinuz'), initrd: at('initrd'), root: at('root'), release: '6.1', modules: {} }
  }

  it.each([
    ['x86_64', 'virt', /machine is "virt", of aarch64; the image is for x86_64/],
    ['aarch64', 'q35', /machine is "q35", of x86_64; the image is for aarch64/],
  ] as const)('refuses an image of %s on a %s', async (arch, machine, message) => {
    const run = runInGuest({ image: image(arch), machine, command: ['true'], modules: [] })
    await expect(run).rejects.toMatchObject({ code: 'INVALID_OPTION', message: expect.stringMatching(message) })
  })

  it.each<[object, RegExp]>([
    [{ command: 'true' }, /command is "true"; allowed: a program and its arguments/],
    [{ command: [] }, /command is \[\]/],
    [{ env: { N: 5 } }, /env.N is 5; allowed: a text/],
    [{ onLine: {} }, /onLine is \{\}; allowed: a function/],
    [{ modules: 'loop' }, /modules is "loop"; allowed: an array of texts/],
    [{ signal: {} }, /signal is \{\}/],
  ])('refuses %o before it boots', async (wrong, message) => {
    const run = runInGuest({ image: image('x86_64'), command: ['true'], modules: [], ...wrong } as never)
    await expect(run).rejects.toMatchObject({ code: 'INVALID_OPTION', message: expect.stringMatching(message) })
  })

  it('refuses a deadline that is none before it boots', async () => {
    const run = runInGuest({ image: image('x86_64'), command: ['true'], modules: [], deadlineMs: Number.NaN })
    await expect(run).rejects.toMatchObject({ code: 'INVALID_OPTION', message: expect.stringMatching(/deadline is NaN/) })
  })
})
