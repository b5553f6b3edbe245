import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type BootOptions,
  type BootRestart,
  bootGuest,
  buildGuestImage,
  buildKernelModule,
  type Drive,
  findQemu,
  type GuestImage,
  type ImageOptions,
  type RunOptions,
  requireTools,
  startInGuest,
} from '@upcall/qemu'
import type { RunningQemu } from './guest-life.js'
import { type Hardware, machineOptions } from './hardware.js'
import { ownTransports } from './slots.js'

/** The user's own kernel, and its disks. */
export interface OwnKernel {
  readonly kernel: string
  readonly initrd?: string | undefined
  /** Its root disk, raw or, if the name says so, qcow2. */
  readonly image?: string | undefined
}

export interface LaunchOptions {
  /** Default: the default image. */
  own?: OwnKernel | undefined
  /** Added to the kernel's command line. */
  append?: string | undefined
  /** Where the default image is kept. */
  cacheDir: string
  /** A directory of this machine's own. */
  directory: string
  /** The bundled program of the default image. */
  agentEntry: URL
  /** The addon of `@upcall/vsock` that goes into the default image, which runs this machine's Node. Called before a boot needs it. */
  vsockAddon: () => string
  /** Sources of the kernel module that registers virtio-mmio windows, for a microvm's default image. */
  moduleSource: URL
  microvm: boolean
  program?: string | undefined
  /** Everything the console prints. */
  console?: ((text: string) => void) | undefined
  /** A boot that was given up because it had gone silent. */
  onRestart?: ((restart: BootRestart) => void) | undefined
  onProgress?: ImageOptions['onProgress']
  signal?: AbortSignal | undefined
}

const BOOT_MS = 180_000
/** The program in the guest ends when the guest does. */
const FOR_GOOD = Number.POSITIVE_INFINITY
const MODULES = ['vsock_loopback', 'vmw_vsock_virtio_transport', 'virtio_mem']
/** Memory that is plugged in comes online by itself, and can be taken out again. */
const MEMORY_POLICY = 'memhp_default_state=online_movable'

/** Prepares all that every boot needs, and returns how to boot. @throws QemuError if a tool is missing or the image cannot be made. */
export async function prepareLaunch(
  options: LaunchOptions,
): Promise<(hardware: Hardware, signal: AbortSignal) => Promise<RunningQemu>> {
  const { own } = options
  // Checked before an image is made for nothing.
  if (!own && options.program === undefined) requireTools('image', ...(options.microvm ? (['module'] as const) : []))
  findQemu(options.program)
  if (own) return (hardware, signal) => bootOwn(hardware, own, options, signal)
  const image = await buildGuestImage({
    cacheDir: options.cacheDir,
    onProgress: options.onProgress,
    signal: options.signal,
  })
  const payloadDir = await makePayload(options)
  const early = options.microvm ? earlyWindows(await buildModule(image, options)) : {}
  return (hardware, signal) => bootDefault(hardware, { image, payloadDir, ...early }, options, signal)
}

async function bootOwn(hardware: Hardware, own: OwnKernel, options: LaunchOptions, signal: AbortSignal): Promise<RunningQemu> {
  const { kernel, initrd, image: path } = own
  const drives: Drive[] = path === undefined ? [] : [{ id: 'root', path, format: /\.qcow2$/i.test(path) ? 'qcow2' : 'raw' }]
  // Such a kernel takes windows from its command line, and is to find its own devices only: disk, vsock.
  const windows = hardware.machine === 'microvm' ? ownTransports(drives.length + 1) : []
  const told = windows.map(({ base, size, irq }) => `virtio_mmio.device=${size}@0x${base.toString(16)}:${irq}`)
  const common = commonOptions(hardware, { ...options, append: [options.append ?? '', ...told].join(' ').trim() }, signal)
  // A kernel that was told to be quiet may be silent without hanging.
  const isQuiet = /(^|\s)quiet(\s|$)/.test(common.append)
  return bootGuest({ ...common, kernel, initrd, drives, ...(isQuiet && { ready: false }) })
}

async function bootDefault(
  hardware: Hardware,
  files: Pick<RunOptions, 'image' | 'payloadDir' | 'early' | 'earlyFiles'>,
  options: LaunchOptions,
  signal: AbortSignal,
): Promise<RunningQemu> {
  const { guest } = await startInGuest({
    ...commonOptions(hardware, options, signal),
    ...files,
    modules: MODULES,
    env: { UPCALL_VSOCK_ADDON: `/payload/${ADDON}` },
    command: ['node', AGENT],
    timeoutMs: FOR_GOOD,
  })
  return guest
}

function commonOptions(
  hardware: Hardware,
  options: LaunchOptions,
  signal: AbortSignal,
): Omit<BootOptions, 'kernel'> & { append: string } {
  const { program: qemu, console, onRestart, append = '' } = options
  const isMicrovm = hardware.machine === 'microvm'
  const policy = /(^|\s)memhp_default_state=/.test(append) ? '' : MEMORY_POLICY
  return {
    ...machineOptions(hardware),
    // A microvm has all of its vCPUs from the start.
    append: [append, policy, isMicrovm && !options.own ? `maxcpus=${hardware.cpus.length}` : ''].join(' ').trim(),
    qemu,
    log: console,
    onRestart,
    signal,
    reboot: true,
    bootTimeoutMs: BOOT_MS,
  }
}

function buildModule({ release }: GuestImage, { cacheDir, moduleSource, onProgress, signal }: LaunchOptions): Promise<string> {
  return buildKernelModule({ sourceDir: fileURLToPath(moduleSource), cacheDir, release, onProgress, signal })
}

/**
 * Debian's kernel takes virtio-mmio windows from ACPI only, which would show it the spare slots as well. So there is no ACPI, and the guest
 * finds its own devices through the module too: ports, root disk, payload, vsock.
 */
function earlyWindows(module: string): Pick<RunOptions, 'early' | 'earlyFiles'> {
  const add = ownTransports(4).map(
    ({ base, size, irq }) =>
      `echo ${size}@0x${base.toString(16)}:${irq} >/sys/module/upcall_mmio/parameters/add || fail "irq ${irq}"`,
  )
  return {
    early: ['insmod /early/upcall_mmio.ko || fail upcall_mmio', ...add].join('\n'),
    earlyFiles: { 'upcall_mmio.ko': module },
  }
}

const AGENT = 'agent.js'
const ADDON = 'upcall_vsock.node'

async function makePayload({ directory, agentEntry, vsockAddon }: LaunchOptions): Promise<string> {
  const payload = join(directory, 'payload')
  await mkdir(payload)
  await copyFile(fileURLToPath(agentEntry), join(payload, AGENT))
  await copyFile(vsockAddon(), join(payload, ADDON))
  return payload
}
