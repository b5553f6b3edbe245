import { describe, expect, test } from 'vitest'
import { API_VERSION } from './binding.js'
import { AddonError, findBinding, type Host } from './loader.js'

// How an addon is looked for is the same for all of them, and tested in @upcall/vsock. Here is what is this package's own.

const PREBUILD = '/pkg/prebuilds/linux-arm64/upcall_vhost_user.node'

/** A machine on which only the prebuild loads. */
function host(overrides: Partial<Host> = {}, exports: unknown = { API_VERSION }): Host {
  return {
    platform: 'linux',
    arch: 'arm64',
    versions: {},
    env: {},
    file: '/pkg/dist/index.js',
    packageIn: (folder) => (folder === '/pkg' ? '@upcall/vhost-user' : undefined),
    dlopen(module, path) {
      if (path !== PREBUILD) throw new Error(`${path}: cannot open shared object file: No such file or directory`)
      module.exports = exports
    },
    ...overrides,
  }
}

const message = (machine: Host): string => {
  try {
    findBinding(machine)
  } catch (error) {
    if (error instanceof AddonError) return error.message
    throw error
  }
  return 'loaded'
}

describe('the addon', () => {
  test('is that of the package', () => {
    expect(message(host())).toBe('loaded')
    expect(message(host({ file: '/pkg/src/native/loader.ts' }))).toBe('loaded')
  })

  test.each<[string, Host, RegExp]>([
    [
      'is missing',
      host({ arch: 'riscv64' }),
      /^@upcall\/vhost-user: the vhost-user addon for linux-riscv64 did not load \(tried .*no such file; .*no such file\)\. /,
    ],
    [
      'does not fit',
      host({}, { API_VERSION: 0 }),
      /has API version 0, this package needs 2\)\. Reinstall @upcall\/vhost-user\. /,
    ],
    ['cannot work here', host({ platform: 'darwin' }), /: macOS has no eventfd, which vhost-user needs\. Run it on Linux\.$/],
    [
      'cannot work under Bun',
      host({ versions: { bun: '1.3.0' } }),
      /: vhost-user does not work under Bun, .*\. Run it with Node\.$/,
    ],
    [
      'is switched off',
      host({ env: { UPCALL_VHOST_USER_ADDON: 'none' } }),
      /: vhost-user is switched off by .*=none\. Unset it\.$/,
    ],
  ])('that %s is told of', (_what, machine, words) => {
    expect(message(machine)).toMatch(words)
  })
})
