import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
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
    expect(error.next).toMatch(/^Reinstall @upcall\/vsock .* Without it, use hvsock:\/\/<path>:<port> .*\.$/)
    expect(refusal(host({})).tried.map(({ reason }) => reason)).toEqual(['no such file', 'no such file'])
  })
})

describe('in a bundle', () => {
  it.each([
    ['/app/server.mjs', '/app/prebuilds'],
    ['/app/out/server.cjs', '/app/out/prebuilds'],
    ['/app/dist/server.js', '/app/prebuilds'],
  ])("%s finds the package's prebuilds in %s", (file, folder) => {
    const path = `${folder}/linux-x64/upcall_vsock.node`
    const machine = host({ [path]: good }, { file })
    expect(findBinding(machine)).toBe(good)
  })

  it('says both ways to bring the addon, and not to reinstall what is not there', () => {
    const { next } = refusal(host({}, { file: '/app/server.mjs' }))
    expect(next).toContain(
      "copy the package's prebuilds/ to /app/prebuilds, or set UPCALL_VSOCK_ADDON to the path of upcall_vsock.node",
    )
    expect(next).not.toContain('Reinstall')
    expect(next).toMatch(/ Without it, use hvsock:/)
  })

  it('says so too where it may be one', () => {
    const { next } = refusal(host({}, { file: '/app/dist/server.js' }))
    expect(next).toMatch(
      /^Reinstall @upcall\/vsock .* In a bundle, copy the package's prebuilds\/ to \/app\/prebuilds, or set UPCALL_VSOCK_ADDON/,
    )
  })

  it('says what is wrong with the file that UPCALL_VSOCK_ADDON names, and nothing of others', () => {
    const { message } = refusal(host({}, { env: { UPCALL_VSOCK_ADDON: '/elsewhere.node' }, file: '/app/server.mjs' }))
    expect(message).toContain(
      '/elsewhere.node: no such file). Set UPCALL_VSOCK_ADDON to the path of upcall_vsock.node, or unset it. Without it, use hvsock:',
    )
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
    ...{ platform: 'linux', arch: 'x64', versions: {}, env },
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
