import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { thisHost } from '@upcall/foundation/addon/loader'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { API_VERSION } from './binding.js'
import { AddonError, findBinding, type Host, locateBinding, type Place } from './loader.js'

const LOCAL = '/pkg/build/Release/upcall_vsock.node'
const PREBUILD = '/pkg/prebuilds/linux-x64/upcall_vsock.node'

/** A machine on which these files load, with these exports. */
function host(files: Record<string, unknown>, overrides: Partial<Host> = {}): Host & { opened: string[] } {
  const opened: string[] = []
  return {
    platform: 'linux',
    arch: 'x64',
    versions: {},
    env: {},
    file: '/pkg/dist/index.js',
    packageIn: (folder) => (folder === '/pkg' ? '@upcall/vsock' : undefined),
    opened,
    dlopen(module, path) {
      opened.push(path)
      if (!Object.hasOwn(files, path)) throw new Error(`${path}: cannot open shared object file: No such file or directory`)
      const found = files[path]
      if (found instanceof Error) throw found
      module.exports = found
    },
    ...overrides,
  }
}

function refusal(machine: Host): AddonError {
  try {
    findBinding(machine)
  } catch (error) {
    if (error instanceof AddonError) return error
    throw error
  }
  throw new Error('loaded')
}

const good = { API_VERSION }

describe('finding the addon', () => {
  it('prefers the local build', () => {
    const local = { ...good }
    expect(findBinding(host({ [LOCAL]: local, [PREBUILD]: good }))).toBe(local)
  })

  it('takes the prebuild for platform and architecture where there is no local build', () => {
    expect(findBinding(host({ [PREBUILD]: good }))).toBe(good)
    const arm = '/pkg/prebuilds/linux-arm64/upcall_vsock.node'
    expect(findBinding(host({ [arm]: good, [PREBUILD]: {} }, { arch: 'arm64' }))).toBe(good)
  })

  it('finds the package from dist, from a chunk of it, and from src/native', () => {
    for (const file of ['/pkg/dist/index.cjs', '/pkg/dist/chunk-X.js', '/pkg/src/native/loader.ts']) {
      expect(findBinding(host({ [LOCAL]: good }, { file }))).toBe(good)
    }
  })

  it('loads nothing but what UPCALL_VSOCK_ADDON names', () => {
    const machine = host({ '/elsewhere.node': good, [LOCAL]: {} }, { env: { UPCALL_VSOCK_ADDON: '/elsewhere.node' } })
    expect(findBinding(machine)).toBe(good)
    expect(machine.opened).toEqual(['/elsewhere.node'])
  })

  it('skips a build that does not fit, or does not load', () => {
    expect(findBinding(host({ [LOCAL]: { API_VERSION: API_VERSION + 1 }, [PREBUILD]: good }))).toBe(good)
    expect(findBinding(host({ [LOCAL]: new Error('invalid ELF header'), [PREBUILD]: good }))).toBe(good)
  })

  it('says what it tried, why each did not do, and what to do', () => {
    const error = refusal(host({ [LOCAL]: {}, [PREBUILD]: new Error(`${PREBUILD}: version GLIBC_2.99 not found`) }))
    expect(error.code).toBe('ERR_ADDON_UNAVAILABLE')
    expect(error.tried).toEqual([
      { path: LOCAL, reason: `has API version undefined, this package needs ${API_VERSION}` },
      { path: PREBUILD, reason: 'version GLIBC_2.99 not found' },
    ])
    expect(error.what).toMatch(
      /^the native AF_VSOCK addon for linux-x64 did not load \(tried \/pkg\/.*: has API .*; .* not found\)$/,
    )
    expect(error.message).toBe(`@upcall/vsock: ${error.what}. ${error.next}`)
    expect(error.next).toMatch(/^Reinstall @upcall\/vsock\. .* Without it, use hvsock:\/\/<path>:<port> .*\.$/)
    expect(refusal(host({})).tried.map(({ reason }) => reason)).toEqual(['no such file', 'no such file'])
  })

  it('says what to copy where a tool has copied the package without it', () => {
    expect(refusal(host({})).next).toContain(`copy the package's prebuilds/linux-x64/upcall_vsock.node to ${PREBUILD}`)
  })

  it('says how to get the addon for a machine that the package brings none for', () => {
    expect(refusal(host({}, { arch: 'riscv64' })).next).toMatch(
      /^@upcall\/vsock brings the addon for linux-x64 and linux-arm64\. For this machine, in a checkout, .* set UPCALL_VSOCK_ADDON /,
    )
  })
})

describe('in a bundle', () => {
  const BUNDLED = 'prebuilds/linux-x64/upcall_vsock.node'

  it.each(['/app/server.mjs', '/app/dist/server.js', '/app/native/server.cjs'])(
    '%s finds the addon in prebuilds/ beside it, and beside its folder',
    (file) => {
      for (const folder of [dirname(file), dirname(dirname(file))])
        expect(findBinding(host({ [join(folder, BUNDLED)]: good }, { file }))).toBe(good)
    },
  )

  it("takes no addon from another program's build", () => {
    const machine = host({ '/app/build/Release/upcall_vsock.node': good }, { file: '/app/dist/server.js' })
    expect(refusal(machine).tried.map(({ path }) => path)).toEqual([`/app/dist/${BUNDLED}`, `/app/${BUNDLED}`])
  })

  it('says which file to copy and where, and not to reinstall what is not there', () => {
    const { next } = refusal(host({}, { file: '/app/dist/server.mjs', packageIn: () => 'app' }))
    expect(next).toContain(
      `copy node_modules/@upcall/vsock/${BUNDLED} to /app/dist/${BUNDLED}, or set UPCALL_VSOCK_ADDON to its path.`,
    )
    expect(next).not.toContain('Reinstall')
    expect(next).toMatch(/ Without it, use hvsock:/)
  })

  it('says what is wrong with the file that UPCALL_VSOCK_ADDON names, and nothing of others', () => {
    const { message } = refusal(host({}, { env: { UPCALL_VSOCK_ADDON: '/elsewhere.node' }, file: '/app/server.mjs' }))
    expect(message).toContain(
      '/elsewhere.node: no such file). Set UPCALL_VSOCK_ADDON to the path of upcall_vsock.node, or unset it. Without it, use hvsock:',
    )
  })
})

describe('the file that asks', () => {
  const here = fileURLToPath(import.meta.url)

  it.each([
    ['a path', here],
    ['a URL', import.meta.url],
  ])('may be named by %s', (_how, place) => {
    expect(thisHost(place).file).toBe(here)
  })

  it.each([
    ['is not known', undefined],
    ['is on the machine that bundled it', '/build/node_modules/@upcall/vsock/dist/index.js'],
    ['has another kind of URL', 'https://example.com/index.js'],
  ])('is the program that was started where it %s', (_why, place) => {
    expect(thisHost(place).file).toBe(process.argv[1])
  })

  it('is of the package that its folder names', () => {
    const { packageIn } = thisHost(here)
    expect(packageIn(join(dirname(here), '../..'))).toBe('@upcall/vsock')
    expect(packageIn(dirname(here))).toBeUndefined()
  })
})

describe('where no addon can work', () => {
  it.each([
    ['macOS', { platform: 'darwin' }],
    ['Windows', { platform: 'win32' }],
    ['freebsd', { platform: 'freebsd' }],
    ['Bun', { versions: { bun: '1.3.0', node: '24.0.0' } }],
    ['Deno', { versions: { deno: '2.5.0', node: '24.0.0' } }],
  ])('%s is refused by name, before anything is opened', (name, overrides) => {
    const machine = host({ [LOCAL]: good }, overrides)
    expect(refusal(machine).message).toMatch(new RegExp(`${name}.*\\. .*hvsock://`))
    expect(machine.opened).toEqual([])
  })

  it('can be switched off', () => {
    const machine = host({ [LOCAL]: good }, { env: { UPCALL_VSOCK_ADDON: 'none' } })
    expect(refusal(machine).message).toMatch(
      /^@upcall\/vsock: native AF_VSOCK is switched off by UPCALL_VSOCK_ADDON=none\. Unset it, or use hvsock/,
    )
    expect(machine.opened).toEqual([])
  })

  it('names the permission model and --no-addons, and opens nothing more', () => {
    const disabled = Object.assign(new Error('Cannot load native addon'), { code: 'ERR_DLOPEN_DISABLED' })
    const machine = host({ [LOCAL]: disabled, [PREBUILD]: good })
    expect(refusal(machine)).toMatchObject({ cause: disabled, tried: [] })
    expect(refusal(machine).message).toContain('--allow-addons')
    expect(machine.opened).toEqual([LOCAL, LOCAL])
  })
})

describe('where the addon is, for programs that copy it', () => {
  const place = (folder: string, env = {}): Place => ({
    ...{ platform: 'linux', arch: 'x64', versions: {}, env, packageIn: () => '@upcall/vsock' },
    file: join(folder, 'dist/index.js'),
  })
  const put = (path: string): string => {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, '')
    return path
  }
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'upcall-addon-'))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  it('is the local build, else the prebuilt file, else what the variable names', () => {
    const prebuilt = put(join(folder, 'prebuilds/linux-x64/upcall_vsock.node'))
    expect(locateBinding(place(folder))).toBe(prebuilt)
    const local = put(join(folder, 'build/Release/upcall_vsock.node'))
    expect(locateBinding(place(folder))).toBe(local)
    expect(locateBinding(place(folder, { UPCALL_VSOCK_ADDON: prebuilt }))).toBe(prebuilt)
  })

  it('is said to be missing, with what was tried', () => {
    const path = join(folder, 'build/Release/upcall_vsock.node')
    expect(() => locateBinding(place(folder))).toThrow(
      expect.objectContaining({
        code: 'ERR_ADDON_UNAVAILABLE',
        tried: expect.arrayContaining([{ path, reason: 'no such file' }]),
      }),
    )
    expect(() => locateBinding(place(folder, { UPCALL_VSOCK_ADDON: 'none' }))).toThrow(AddonError)
  })
})
