// What `upcall doctor` looks at on this machine. Each check is a function of the system alone, and says one thing to do.

import { type Finding, failure, lacking, ok, warning } from './finding.js'
import { moduleState, modulesVisible } from './modules.js'
import type { System } from './system.js'

/** What the target needs of this machine. */
export interface Needs {
  /** The target is a `vsock://` address. */
  vsock: boolean
}

export type Check = (system: System, needs: Needs) => Promise<Finding | Finding[]>

const OLDEST = [20, 19] as const

async function node({ node: { version, platform, arch, libc } }: System): Promise<Finding> {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number)
  const what = `Node ${version} for ${[`${platform}-${arch}`, libc].filter(Boolean).join(', ')}`
  if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) return ok('node', what)
  return failure('node', `${what} is too old`, `Install Node ${OLDEST.join('.')} or newer.`)
}

async function addons(system: System, { vsock }: Needs): Promise<Finding[]> {
  const each = async (name: 'vsock' | 'vhost-user', needed: boolean, without: string) => {
    const check = `addon ${name}`
    const addon = await system.addon(name)
    if (!('code' in addon)) return ok(check, `loads${addon.path === undefined ? '' : `: ${addon.path}`}`)
    const next = addon.next ?? `Reinstall @upcall/${name}.`
    return addon.broken ? failure(check, addon.what, next) : lacking(needed, check, `${addon.what}; ${without}`, next)
  }
  return [
    await each('vsock', vsock, 'vsock:// and +seq addresses do not work, hvsock:// and unix: do'),
    await each('vhost-user', false, '`upcall vsock device` does not work, everything else does'),
  ]
}

const VSOCK_DEVICE = '/dev/vsock'

async function kernelVsock(system: System, needs: Needs): Promise<Finding> {
  const failed = await system.bindVsock('any')
  const check = 'AF_VSOCK'
  if (failed === undefined) return ok(check, 'the kernel has it')
  const { code, what } = failed
  if (code === 'ENOTSUP' || code === 'ERR_ADDON_UNAVAILABLE')
    return lacking(needs.vsock, check, 'cannot be looked at without the addon', 'See "addon vsock".')
  const next =
    code === 'EAFNOSUPPORT'
      ? 'Load it with "modprobe vsock", or use a kernel with CONFIG_VSOCKETS.'
      : 'Is it forbidden by a seccomp profile of this container? Allow socket(AF_VSOCK).'
  return lacking(needs.vsock, check, `a socket cannot be made: ${what}`, next)
}

async function device(system: System, { vsock }: Needs): Promise<Finding> {
  const stat = await system.stat(VSOCK_DEVICE)
  if ('code' in stat)
    return lacking(
      vsock,
      VSOCK_DEVICE,
      `is not there (${stat.code}): this machine's CID is unknown`,
      'Load it with "modprobe vsock"; in a container pass --device /dev/vsock.',
    )
  if (await system.mayUse(VSOCK_DEVICE)) return ok(VSOCK_DEVICE, `may be opened (mode ${octal(stat.mode)})`)
  return lacking(
    vsock,
    VSOCK_DEVICE,
    `may not be opened by this user (mode ${octal(stat.mode)}, group ${stat.gid})`,
    'Run "chmod 666 /dev/vsock", or a udev rule that does; it is mode 666 in most distributions.',
  )
}

const modulesOf = {
  vsock: 'AF_VSOCK itself',
  vsock_loopback: 'vsock://local, this machine with itself',
  vhost_vsock: "QEMU's vhost-vsock, for guests of this machine",
  vmw_vsock_virtio_transport: 'this machine as a guest',
} as const

async function modules(system: System): Promise<Finding[]> {
  if (!(await modulesVisible(system))) {
    const what = `the kernel ${system.kernel} shows no modules: it has none that can be loaded, or this is a container`
    return [warning('kernel modules', what, 'Look on the host, with "lsmod | grep vsock".')]
  }
  return Promise.all(
    Object.entries(modulesOf).map(async ([name, purpose]) => {
      const check = `module ${name}`
      switch (await moduleState(system, name)) {
        case 'loaded':
          return ok(check, `loaded (${purpose})`)
        case 'built in':
          return ok(check, `built into the kernel (${purpose})`)
        case 'available':
          return warning(check, `not loaded (${purpose})`, `If you need it, run "modprobe ${name}" as root.`)
        case 'missing':
          return warning(
            check,
            `the kernel ${system.kernel} does not have it (${purpose})`,
            'If you need it, install the modules package of this kernel.',
          )
      }
    }),
  )
}

async function loopback(system: System): Promise<Finding> {
  const failed = await system.bindVsock('local')
  if (failed === undefined) return ok('loopback', 'vsock://local works')
  if (failed.code === 'ENOTSUP' || failed.code === 'ERR_ADDON_UNAVAILABLE')
    return warning('loopback', 'cannot be looked at without the addon', 'See "addon vsock".')
  return warning(
    'loopback',
    `there is no vsock://local: ${failed.what}`,
    'If you need it, run "modprobe vsock_loopback" as root.',
  )
}

async function qemu(system: System): Promise<Finding> {
  const arch = system.node.arch === 'arm64' ? 'aarch64' : 'x86_64'
  const program = `qemu-system-${arch}`
  const said = await system.run(program, ['--version'])
  const install = `On Debian: apt-get install ${arch === 'aarch64' ? 'qemu-system-arm' : 'qemu-system-x86'}.`
  if (said === undefined) return warning('qemu', `there is no ${program}; only vmm-shim --qemu and vsock device need it`, install)
  const version = /version (\d+(?:\.\d+)*)/.exec(said.text)?.[1]
  if (said.status !== 0 || version === undefined)
    return warning('qemu', `${program} --version failed`, `Run it by hand. ${install}`)
  const has = async (what: string, name: string) => (await system.run(program, [what, 'help']))?.text.includes(name) === true
  const missing = [
    ...((await has('-device', 'vhost-user-vsock-pci')) ? [] : ['the device vhost-user-vsock-pci']),
    ...((await has('-object', 'memory-backend-memfd')) ? [] : ['the object memory-backend-memfd']),
  ]
  if (missing.length === 0) return ok('qemu', `${program} ${version}, with vhost-user-vsock-pci and memory-backend-memfd`)
  return warning(
    'qemu',
    `${program} ${version} lacks ${missing.join(' and ')}`,
    `Use a QEMU that was built with vhost-user. ${install}`,
  )
}

/** What makes a guest image, as packages/qemu uses it, with the Debian package of each and an argument that does nothing. */
const imageTools = [
  ['apt-get', 'apt', '--version'],
  ['apt-cache', 'apt', '--version'],
  ['dpkg-deb', 'dpkg', '--version'],
  ['ldd', 'libc-bin', '--version'],
  ['mkfs.ext4', 'e2fsprogs', '-V'],
  ['xz', 'xz-utils', '--version'],
] as const

async function images(system: System): Promise<Finding> {
  const { platform, arch } = system.node
  const own = 'A kernel and a root disk of your own can be booted anywhere.'
  if (platform !== 'linux' || arch !== 'x64')
    return warning('images', `guest images for --qemu are made on linux-x64 only, and this is ${platform}-${arch}`, own)
  const missing: (typeof imageTools)[number][] = []
  for (const tool of imageTools) if ((await system.run(tool[0], [tool[2]])) === undefined) missing.push(tool)
  const names = imageTools.map(([program]) => program).join(', ')
  if (missing.length === 0) return ok('images', `${names} are there`)
  const lacks = missing.map(([program]) => program).join(', ')
  const what = `${lacks} ${missing.length === 1 ? 'is' : 'are'} missing; only guest images for --qemu need ${missing.length === 1 ? 'it' : 'them'}`
  // apt and dpkg cannot be installed where they are not the system's own.
  const foreign = missing.some(([, name]) => name === 'apt' || name === 'dpkg')
  const next = foreign
    ? `Make images on Debian, or a system like it. ${own}`
    : `On Debian: apt-get install ${[...new Set(missing.map(([, name]) => name))].join(' ')}.`
  return warning('images', what, next)
}

async function kvm(system: System): Promise<Finding> {
  const stat = await system.stat('/dev/kvm')
  if ('code' in stat) return ok('/dev/kvm', 'is not there, and not needed: QEMU emulates, slowly')
  const usable = (await system.mayUse('/dev/kvm')) ? 'may be opened' : 'may not be opened by this user'
  return ok('/dev/kvm', `${usable}; it is not needed`)
}

export function octal(mode: number): string {
  return mode.toString(8).padStart(3, '0')
}

/** In the order in which they are shown, by the names that a deadline is reported under. */
export const machineChecks: Readonly<Record<string, Check>> = {
  node,
  addons,
  AF_VSOCK: kernelVsock,
  [VSOCK_DEVICE]: device,
  'kernel modules': modules,
  loopback,
  qemu,
  images,
  '/dev/kvm': kvm,
}
