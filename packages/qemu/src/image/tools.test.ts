// Programs of this test on PATH stand in for the tools of a machine.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { kernelPackage, resolvePackages, withDependencies } from './debian.js'
import { makeExt4 } from './ext4.js'
import { buildGuestImage } from './image.js'
import { sharedLibraries } from './root.js'
import { missingTools, requireTools, runTool } from './tools.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tools-'))
  await mkdir(join(dir, 'bin'))
  vi.stubEnv('PATH', `${join(dir, 'bin')}:/bin:/usr/bin`)
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(dir, { recursive: true })
})

async function tool(name: string, script: string): Promise<void> {
  await writeFile(join(dir, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
}

/** An apt that knows these packages. They depend on nothing. */
async function aptKnows(...names: string[]): Promise<void> {
  const known = `known() { case " ${names.join(' ')} " in *" $1 "*) return 0;; esac; return 1; }`
  await tool(
    'apt-cache',
    `${known}
case $1 in
  pkgnames) for name in ${names.join(' ')}; do case $name in "$2"*) echo $name;; esac; done;;
  show) shift; [ "$1" = --no-all-versions ] && shift; known "$1" || { echo 'E: No packages found' >&2; exit 100; }; echo "Package: $1";;
  depends)
    any=
    for name; do known "$name" && { echo "$name"; any=1; }; done
    [ "$any" ] || { echo 'E: No packages found' >&2; exit 100; };;
esac`,
  )
  await tool(
    'apt-get',
    `${known}\nfor name; do case $name in -*|download) ;; *) known "$name" || { echo "E: Unable to locate package $name" >&2; exit 100; };; esac; done`,
  )
}

const KERNELS = ['linux-image-cloud-amd64', 'linux-image-amd64', 'linux-image-6.1.0-40-cloud-amd64']

describe('a package that apt does not know', () => {
  it.each<[string, () => Promise<unknown>, RegExp]>([
    [
      'a kernel',
      () => kernelPackage('linux-image-cloud-amd46'),
      /^apt linux-image-cloud-amd46: apt knows no such package. It knows linux-image-cloud-amd64. Update the package list/,
    ],
    [
      'a kernel of another release',
      () => resolvePackages(['linux-image-6.1.0-39-cloud-amd64'], dir),
      /^apt linux-image-6.1.0-39-cloud-amd64: apt knows no such package. It knows linux-image-6.1.0-40-cloud-amd64. /,
    ],
    [
      'one of many',
      () => withDependencies(['socat', 'socta']),
      /^apt socta: apt knows no such package. Update the package list if it is old or missing: apt-get update$/,
    ],
  ])('%s is named, and what there is instead', async (_what, ask, message) => {
    await aptKnows('socat', ...KERNELS)
    await expect(ask()).rejects.toMatchObject({ code: 'IMAGE', message: expect.stringMatching(message) })
  })

  it('is not said of an apt that fails for another reason', async () => {
    await aptKnows('socat')
    await tool('apt-get', 'echo "E: Unable to fetch some archives" >&2; exit 100')
    await expect(resolvePackages(['socat'], dir)).rejects.toMatchObject({ message: expect.stringMatching(/Unable to fetch/) })
  })
})

describe('a machine', () => {
  it('that is not a Debian is told so, and not to install apt', async () => {
    vi.stubEnv('PATH', join(dir, 'bin'))
    expect(missingTools('image')).toMatch(/^qemu-system-x86_64, apt-get, apt-cache, dpkg-deb/)
    expect(missingTools('image')).toMatch(/are not installed. Guest images are made on Debian, or a system like it \(x64\)/)
    expect(missingTools('image')).not.toMatch(/apt-get install .*\bapt\b/)
    await expect(runTool('apt-get', ['update'])).rejects.toMatchObject({
      code: 'TOOL_MISSING',
      message: expect.stringMatching(
        /^apt-get: it is not installed or not executable. Guest images are made on Debian, or a system like it/,
      ),
    })
  })

  it('is not asked for an unknown purpose', () => {
    expect(() => missingTools('image', 'toaster' as 'image')).toThrow(
      'purpose: must be one of image, module, aarch64, aarch64-gcc, got "toaster"',
    )
  })

  it('that is one is told what to install', async () => {
    vi.stubEnv('PATH', join(dir, 'bin'))
    for (const name of ['apt-get', 'apt-cache', 'dpkg-deb', 'ldd', 'qemu-system-x86_64', 'mkfs.ext4']) await tool(name, '')
    expect(missingTools('image')).toBe('xz is not installed. On Debian: apt-get install xz-utils')
    expect(() => requireTools('image')).toThrow(
      expect.objectContaining({
        ...{ code: 'TOOL_MISSING', what: 'xz is not installed', next: 'On Debian: apt-get install xz-utils' },
        message: missingTools('image'),
      }),
    )
    await tool('xz', '')
    expect(() => requireTools('image')).not.toThrow()
    await rm(join(dir, 'bin', 'xz'))
    await expect(runTool('xz', [])).rejects.toMatchObject({ message: expect.stringMatching(/apt-get install xz-utils/) })
  })

  it('whose mkfs.ext4 does not fill the disk is told which one does', async () => {
    await tool('mkfs.ext4', `echo "mkfs.ext4: invalid option -- 'd'" >&2; exit 1`)
    await expect(makeExt4(dir, join(dir, 'disk'))).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringMatching(/invalid option -- 'd'. e2fsprogs 1.43 or later is needed/),
    })
  })

  it('whose Node is linked to nothing needs no libraries', async () => {
    await tool('ldd', 'echo "	not a dynamic executable" >&2; exit 1')
    expect(await sharedLibraries('/usr/local/bin/node')).toEqual(new Map())
    await tool('ldd', 'echo "ldd: no such file" >&2; exit 1')
    await expect(sharedLibraries('/usr/local/bin/node')).rejects.toMatchObject({ code: 'IMAGE' })
  })

  // ldd calls none of them a dynamic executable, as with a program that is linked to nothing.
  const elf = (machine: number) => {
    const header = Buffer.alloc(64)
    header.write('\x7fELF\x02\x01', 'latin1')
    header.writeUInt16LE(machine, 18)
    return header
  }
  it.each<[string, 'x86_64' | 'aarch64', Buffer, RegExp]>([
    [
      'a script',
      'x86_64',
      Buffer.from('#!/bin/sh\nexec /opt/node "$@"\n'),
      /node: it is a script. Give a program \(ELF\) for x86_64.$/,
    ],
    ['a text', 'x86_64', Buffer.from('nothing'), /it is not a program. Give/],
    ['half a header', 'x86_64', elf(0x3e).subarray(0, 19), /it is not a program. Give/],
    ['of aarch64', 'x86_64', elf(0xb7), /it is for aarch64. Give .* for x86_64.$/],
    ['of x86_64', 'aarch64', elf(0x3e), /it is for x86_64. Give .* for aarch64.$/],
    ['of riscv64', 'aarch64', elf(0xf3), /it is for another machine \(ELF 0xf3\). Give .* for aarch64.$/],
  ])('whose Node is %s makes no image (%s)', async (_what, arch, content, message) => {
    vi.stubEnv('PATH', join(dir, 'bin'))
    const node = join(dir, 'node')
    await writeFile(node, content, { mode: 0o755 })
    await expect(buildGuestImage({ cacheDir: join(dir, 'cache'), arch, node })).rejects.toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringMatching(message),
    })
  })

  it('whose Node is missing makes no image, and a Node that fits goes on', async () => {
    vi.stubEnv('PATH', join(dir, 'bin'))
    const node = join(dir, 'node')
    const build = (arch: 'x86_64' | 'aarch64') => buildGuestImage({ cacheDir: join(dir, 'cache'), arch, node })
    await expect(build('x86_64')).rejects.toMatchObject({ code: 'INVALID_OPTION', message: expect.stringMatching(/ENOENT/) })
    for (const [arch, machine] of [
      ['x86_64', 0x3e],
      ['aarch64', 0xb7],
    ] as const) {
      await writeFile(node, elf(machine))
      await expect(build(arch)).rejects.toMatchObject({ code: 'TOOL_MISSING' })
    }
  })
})
