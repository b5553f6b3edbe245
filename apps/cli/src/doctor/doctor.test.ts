import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bindServer, parseAddress } from '@upcall/vsock'
import { afterEach, expect, test, vi } from 'vitest'
import { serveGuest, upcall } from '../../testing/harness.js'
import { machineChecks } from './checks.js'
import { examine } from './examine.js'
import type { Finding } from './finding.js'
import type { Failed, System } from './system.js'
import { checkTarget } from './target.js'
import { thisSystem } from './this-system.js'

afterEach(() => {
  vi.unstubAllEnvs()
})

const missing: Failed = { code: 'ENOENT', what: 'no such file or directory (ENOENT)' }
const noAddon = { code: 'ERR_ADDON_UNAVAILABLE', what: 'it did not load', next: 'Reinstall it.' }

/** A machine on which everything works. */
function machine(different: Partial<System> = {}): System {
  return {
    node: { version: '24.1.0', platform: 'linux', arch: 'x64', libc: 'glibc 2.36' },
    kernel: '6.1.0',
    user: { uid: 1000, groups: [1000] },
    read: async (path) =>
      path === '/proc/modules'
        ? Object.keys(all)
            .map((name) => `${name} 1 0 - Live 0x0\n`)
            .join('')
        : undefined,
    exists: async () => false,
    stat: async () => ({ kind: 'socket', mode: 0o660, uid: 0, gid: 100 }),
    mayUse: async () => true,
    run: async (_, args) => ({
      status: 0,
      text: args.includes('--version') ? 'QEMU emulator version 7.2.22' : 'vhost-user-vsock-pci memory-backend-memfd',
    }),
    addon: async () => ({ path: '/a.node' }),
    bindVsock: async () => undefined,
    connectUnix: async () => undefined,
    greet: async () => ({ connected: true }),
    ...different,
  }
}
const all = { vsock: 0, vsock_loopback: 0, vhost_vsock: 0, vmw_vsock_virtio_transport: 0 }

async function findings(check: string, different: Partial<System>, vsock = false): Promise<Finding[]> {
  return [await machineChecks[check]!(machine(different), { vsock })].flat()
}

test('a machine with everything', async () => {
  for (const check of Object.keys(machineChecks))
    for (const finding of await findings(check, {})) expect(finding).toEqual({ ...finding, verdict: 'ok', next: undefined })
})

const lacking = { stat: async () => missing, read: async () => undefined, run: async () => undefined }
const without = (...programs: string[]): Partial<System> => ({
  run: async (program) => (programs.includes(program) ? undefined : { status: 0, text: '' }),
})
const node = (version: string) => ({ node: { version, platform: 'linux', arch: 'x64', libc: '' } })

test.each<[string, Partial<System>, boolean, string, RegExp, RegExp]>([
  ['node', node('20.18.1'), false, 'failure', /too old/, /Node 20\.19/],
  ['node', node('18.20.0'), false, 'failure', /too old/, /Node 20\.19/],
  ['addons', { addon: async () => ({ ...noAddon, broken: false }) }, false, 'warning', /did not load; vsock:\/\//, /Reinstall/],
  ['addons', { addon: async () => ({ ...noAddon, broken: false }) }, true, 'failure', /did not load/, /Reinstall/],
  ['addons', { addon: async () => ({ ...noAddon, broken: true }) }, false, 'failure', /did not load/, /Reinstall/],
  ['AF_VSOCK', { bindVsock: async () => ({ code: 'EAFNOSUPPORT', what: 'x' }) }, false, 'warning', /x/, /modprobe vsock/],
  ['AF_VSOCK', { bindVsock: async () => ({ code: 'EPERM', what: 'x' }) }, true, 'failure', /x/, /seccomp/],
  [
    'AF_VSOCK',
    { bindVsock: async () => ({ code: 'ENOTSUP', what: 'x' }) },
    false,
    'warning',
    /without the addon/,
    /"addon vsock"/,
  ],
  ['/dev/vsock', lacking, false, 'warning', /not there \(ENOENT\)/, /modprobe vsock/],
  ['/dev/vsock', { mayUse: async () => false }, true, 'failure', /mode 660, group 100/, /chmod 666/],
  ['kernel modules', lacking, false, 'warning', /6\.1\.0 shows no modules/, /on the host/],
  ['loopback', { bindVsock: async () => ({ code: 'EADDRNOTAVAIL', what: 'x' }) }, false, 'warning', /x/, /vsock_loopback/],
  ['qemu', lacking, false, 'warning', /no qemu-system-x86_64/, /apt-get install qemu-system-x86/],
  ['qemu', { run: async () => ({ status: 1, text: '' }) }, false, 'warning', /failed/, /by hand/],
  [
    'qemu',
    { run: async (_, args) => ({ status: 0, text: args.includes('--version') ? 'version 9.0' : '' }) },
    false,
    'warning',
    /9\.0 lacks the device vhost-user-vsock-pci and the object memory-backend-memfd/,
    /vhost-user/,
  ],
  [
    'images',
    lacking,
    false,
    'warning',
    /^apt-get, apt-cache, dpkg-deb, ldd, mkfs.ext4, xz are missing/,
    /^Make images on Debian/,
  ],
  ['images', without('xz', 'mkfs.ext4'), false, 'warning', /^mkfs.ext4, xz are/, /apt-get install e2fsprogs xz-utils\.$/],
  ['images', without('ldd'), false, 'warning', /^ldd is missing; .* need it$/, /apt-get install libc-bin\.$/],
  [
    'images',
    { node: { version: '24.1.0', platform: 'linux', arch: 'arm64', libc: '' } },
    false,
    'warning',
    /arm64/,
    /of your own/,
  ],
])('%s: %#', async (check, different, vsock, verdict, what, next) => {
  const [finding] = await findings(check, different, vsock)
  expect(finding).toMatchObject({ verdict, what: expect.stringMatching(what), next: expect.stringMatching(next) })
})

test('KVM is not needed', async () => {
  expect(await findings('/dev/kvm', lacking)).toMatchObject([{ verdict: 'ok', what: expect.stringContaining('not needed') }])
})

test('a module is loaded, built in, available or missing', async () => {
  const files: Record<string, string> = {
    '/proc/modules': 'vsock_other 1 1 my_vhost_vsock - Live 0x0\nother 1 1 vhost_vsock - Live 0x0\nvsock 57344 0 - Live 0x0\n',
    '/lib/modules/6.1.0/modules.builtin': 'kernel/net/vmw_vsock/vsock_loopback.ko\n',
    '/lib/modules/6.1.0/modules.dep':
      'kernel/drivers/vhost/vhost-vsock.ko.xz: kernel/net/x.ko\nkernel/vmw_vsock_virtio_transport_common.ko:\n',
  }
  const found = await findings('kernel modules', { read: async (path) => files[path] })
  expect(found.map(({ verdict, what, next }) => [verdict, what.replace(/ \(.*/, ''), next])).toEqual([
    ['ok', 'loaded', undefined],
    ['ok', 'built into the kernel', undefined],
    ['warning', 'not loaded', 'If you need it, run "modprobe vhost_vsock" as root.'],
    ['warning', 'the kernel 6.1.0 does not have it', expect.stringContaining('install')],
  ])
})

const hvsock = parseAddress('hvsock:///run/vm.sock:219')
const unix = parseAddress('unix:/run/vm.sock')
const refused: Failed = { code: 'ECONNREFUSED', what: 'refused' }

test.each<[string, Partial<System>, typeof hvsock, (string | RegExp)[]]>([
  ['all is well', {}, hvsock, ['ok socket', 'ok listener', 'ok connection', 'ok greeting']],
  ['AF_VSOCK', { greet: () => Promise.reject(new Error('tried')) }, parseAddress('vsock://3:219'), ['warning target']],
  ['no file', { stat: async () => missing }, hvsock, ['failure socket']],
  ['a closed folder', { stat: async () => ({ code: 'EACCES', what: 'x' }) }, hvsock, ['failure socket']],
  ['a file', { stat: async () => ({ kind: 'file', mode: 0o644, uid: 0, gid: 0 }) }, hvsock, ['failure socket']],
  ['no permission', { mayUse: async () => false }, hvsock, ['failure socket']],
  ['a dead VMM', { connectUnix: async () => refused }, hvsock, ['ok socket', 'failure listener']],
  ['a stuck VMM', { connectUnix: async () => ({ code: 'EAGAIN', what: 'x' }) }, hvsock, ['ok socket', 'failure listener']],
  ['a dead guest', { greet: async () => ({ connected: false, error: refused }) }, unix, ['ok socket', 'failure listener']],
  [
    'no port',
    { greet: async () => ({ connected: false, error: refused }) },
    hvsock,
    ['ok socket', 'ok listener', 'failure connection'],
  ],
  [
    'another service',
    { greet: async () => ({ connected: true, error: { code: 'X', what: 'x' } }) },
    unix,
    ['ok socket', 'ok listener', 'ok connection', 'failure greeting'],
  ],
])('target: %s', async (_, different, target, expected) => {
  const found = await checkTarget(machine(different), target)
  expect(found.map(({ verdict, check }) => `${verdict} ${check}`)).toEqual(expected)
  for (const { verdict, next } of found) expect(next === undefined).toBe(verdict === 'ok')
})

test('a socket that a group may use says which', async () => {
  const [finding] = await checkTarget(machine({ mayUse: async () => false }), hvsock)
  expect(finding?.next).toBe('Add this user to the group 100, and log in again.')
  const closed = await checkTarget(machine({ mayUse: async () => false, user: { uid: 1, groups: [100] } }), hvsock)
  expect(closed[0]?.next).toMatch(/^Run as user 0/)
})

test('a check that does not answer, and a check that fails', async () => {
  const { signal } = new AbortController()
  const deadline = new AbortController()
  let closed = false
  const hanging = examine(
    'x',
    (signal) => {
      signal.addEventListener('abort', () => (closed = true))
      deadline.abort()
      return new Promise(() => {})
    },
    { signal, timeoutMs: 5, deadline: () => deadline.signal },
  )
  expect(await hanging).toMatchObject([{ check: 'x', verdict: 'warning', what: 'no answer within 5 ms' }])
  expect(closed).toBe(true)
  const late = AbortSignal.abort()
  const needed = examine('x', () => new Promise(() => {}), { signal, timeoutMs: 5, needed: true, deadline: () => late })
  expect(await needed).toMatchObject([{ verdict: 'failure', what: 'no answer within 5 ms' }])
  const broken = examine('x', () => Promise.reject(new Error('oh')), { signal, timeoutMs: 5, deadline: () => signal })
  expect(await broken).toMatchObject([{ verdict: 'failure', what: expect.stringContaining('oh') }])
  expect(await examine('x', () => new Promise(() => {}), { signal: AbortSignal.abort(), timeoutMs: 5 })).toEqual([])
})

test('upcall doctor, on this machine: the guest of --target', async () => {
  await using guest = await serveGuest('hvsock')
  const { status, stdout } = await upcall(['--target', guest.target, '--json', 'doctor'])
  expect(status).toBe(0)
  expect(stdout.json.slice(-4)).toMatchObject(
    ['socket', 'listener', 'connection', 'greeting'].map((check) => ({ op: 'doctor', check, verdict: 'ok' })),
  )
  const wrong = await upcall(['doctor', '--target', `hvsock://${guest.path}:1`])
  expect(wrong.status).toBe(3)
  expect(wrong.stdout.text).toMatch(/^✗ connection: .*\n {4}Is the guest still booting/m)
  expect(wrong.stdout.text).toMatch(/^✓ node: /m)
  expect(guest.stdout.text).not.toContain('"request"')
})

test.each<['hvsock' | 'unix', string, string[]]>([
  ['hvsock', '', ['ok socket', 'ok listener', 'failure connection']],
  ['hvsock', 'OK 1024\n', ['ok socket', 'ok listener', 'ok connection', 'failure greeting']],
  ['unix', '', ['ok socket', 'ok listener', 'ok connection', 'failure greeting']],
])('upcall doctor, on this machine: %s, a peer that says %j and then nothing', async (transport, said, expected) => {
  const folder = await mkdtemp(join(tmpdir(), 'upcall-cli-'))
  const path = join(folder, 's')
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => said === '' || socket.write(said))
  })
  await using _bound = await bindServer(server, `unix:${path}`)
  try {
    const target = transport === 'unix' ? `unix:${path}` : `hvsock://${path}:219`
    const { status, stdout } = await upcall(['--json', '--timeout', '1s', '--target', target, 'doctor'])
    const found = stdout.json.slice(stdout.json.findIndex(({ check }) => check === 'socket'))
    expect(found.map(({ verdict, check }) => `${verdict} ${check}`)).toEqual(expected)
    expect(found.at(-1).what).toMatch(/1 s|1000 ms/)
    expect(status).toBe(3)
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('a program of the system folders is found, which the PATH of a user does not have', async (context) => {
  if (!existsSync('/sbin/ldconfig')) context.skip('this system has no /sbin/ldconfig')
  vi.stubEnv('PATH', '/nowhere')
  const { signal } = new AbortController()
  expect(await thisSystem(signal, 1).run('ldconfig', ['--version'])).toBeDefined()
  expect(await thisSystem(signal, 1).run('upcall-no-such-program', [])).toBeUndefined()
})
