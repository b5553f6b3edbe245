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
    [{ arch: 'arm64' as GuestArch }, /^arch: must be one of x86_64, aarch64, got "arm64"/],
    [{ arch: 'aarch64' }, /^image option node: an aarch64 guest cannot run this Node. Give the path of a Node for aarch64.$/],
    ...([
      [{ arch: 5 }, /^arch: must be one of x86_64, aarch64, got 5/],
      [{ packages: 'socat' }, /^packages: must be an array of strings, got "socat"/],
      [{ modules: [5] }, /^modules: must be an array of strings, got an array of 1/],
      [{ kernelPackage: 5 }, /^kernelPackage: must be a string, got 5/],
      [{ node: 5 }, /^node: must be a string, got 5/],
      [{ signal: {} }, /^signal: must be an AbortSignal, got an object/],
      [{ onProgress: 'log' }, /^onProgress: must be a function, got "log"/],
    ] as [object, RegExp][]),
  ])('refuses %o before it makes anything', async (options, message) => {
    await expect(buildGuestImage({ cacheDir: dir, ...options })).rejects.toThrow(message)
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
    await expect(call(options as never)).rejects.toThrow(/^\w+: must be /)
  })
})

describe('buildKernelModule', () => {
  it('refuses an unknown architecture before it makes anything', async () => {
    const options = { sourceDir: dir, release: '6.1', arch: 'mips' as GuestArch, cacheDir: join(dir, 'cache') }
    await expect(buildKernelModule(options)).rejects.toThrow('arch: must be one of x86_64, aarch64, got "mips"')
    expect(await readdir(dir)).toEqual([])
  })
})

describe('runInGuest', () => {
  const image = (arch: GuestArch): GuestImage => {
    const at = (name: string) => join(dir, name)
    return { arch, kernel: at('vmlinuz'), initrd: at('initrd'), root: at('root'), release: '6.1', modules: {} }
  }

  it.each([
    ['x86_64', 'virt', /^boot option machine virt: it is of aarch64, and the image is for x86_64$/],
    ['aarch64', 'q35', /^boot option machine q35: it is of x86_64, and the image is for aarch64$/],
  ] as const)('refuses an image of %s on a %s', async (arch, machine, message) => {
    const run = runInGuest({ image: image(arch), machine, command: ['true'], modules: [] })
    await expect(run).rejects.toMatchObject({ code: 'INVALID_OPTION', message: expect.stringMatching(message) })
  })

  it.each<[object, RegExp]>([
    [{ command: 'true' }, /^command: must be a program and its arguments, as an array of strings, got "true"/],
    [{ command: [] }, /^command: must be .*, got \[\]/],
    [{ env: { N: 5 } }, /^env.N: must be a string, got 5/],
    [{ onLine: {} }, /^onLine: must be a function, got an object/],
    [{ modules: 'loop' }, /^modules: must be an array of strings, got "loop"/],
    [{ signal: {} }, /^signal: must be an AbortSignal, got an object/],
  ])('refuses %o before it boots', async (wrong, message) => {
    const run = runInGuest({ image: image('x86_64'), command: ['true'], modules: [], ...wrong } as never)
    await expect(run).rejects.toThrow(message)
  })

  it('refuses a time that is not a number before it boots', async () => {
    const run = runInGuest({ image: image('x86_64'), command: ['true'], modules: [], timeoutMs: Number.NaN })
    await expect(run).rejects.toThrow(/^timeoutMs: must be a number of milliseconds, got NaN/)
  })
})
