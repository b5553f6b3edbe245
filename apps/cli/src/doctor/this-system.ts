import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { release, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { isUpcallError, UpcallClient } from '@upcall/client'
import { deviceManagerProtocol } from '@upcall/device-manager'
import { errnoOf, fieldsOf, textOf } from '@upcall/foundation/error'
import { createVsockDevice, AddonError as DeviceAddonError } from '@upcall/vhost-user'
import { AddonError, type Address, addonPath, bindServer, connect, formatAddress, localCid } from '@upcall/vsock'
import { explain } from '../advice.js'
import type { Failed, Greeted, Stat, System } from './system.js'

/** This machine. The signal bounds all that is asked: what is open then is closed. */
export function thisSystem(signal: AbortSignal, timeoutMs: number): System {
  return {
    node: { version: process.versions.node, platform: process.platform, arch: process.arch, libc: libc() },
    kernel: release(),
    user: { uid: process.getuid?.(), groups: process.getgroups?.() ?? [] },
    read: (path) => readFile(path, { encoding: 'utf8', signal }).catch(() => undefined),
    exists: (path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    stat: (path) => stat(path).then(statOf, failedOf),
    mayUse: (path) =>
      access(path, constants.R_OK | constants.W_OK).then(
        () => true,
        () => false,
      ),
    run: (program, args) => run(program, args, signal),
    addon,
    bindVsock: (cid) => bindVsock(cid, signal),
    connectUnix: (path) => connectUnix(path, signal),
    greet: (target) => greet(target, signal, timeoutMs),
  }
}

function libc(): string {
  if (process.platform !== 'linux') return ''
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime === undefined ? 'musl' : `glibc ${header.glibcVersionRuntime}`
}

function statOf(found: Awaited<ReturnType<typeof stat>>): Stat {
  const { mode, uid, gid } = found
  const kind = found.isSocket()
    ? 'socket'
    : found.isDirectory()
      ? 'folder'
      : found.isCharacterDevice() || found.isBlockDevice()
        ? 'device'
        : 'file'
  return { kind, mode: Number(mode) & 0o777, uid: Number(uid), gid: Number(gid) }
}

/** What lies at the root of an error says most. */
function failedOf(error: unknown): Failed {
  let root = error
  while (root instanceof Error && root.cause instanceof Error) root = root.cause
  const { next } = fieldsOf(error) ?? {}
  return { code: errnoOf(root) ?? errnoOf(error) ?? 'UNKNOWN', what: fieldsOf(error)?.what ?? textOf(error), next }
}

/** Where Debian has mkfs.ext4, and where the PATH of a user does not look. */
const SYSTEM_PATH = ['/usr/sbin', '/sbin']

function run(program: string, args: readonly string[], signal: AbortSignal): ReturnType<System['run']> {
  return new Promise((resolve) => {
    const env = { ...process.env, PATH: [process.env.PATH, ...SYSTEM_PATH].filter(Boolean).join(delimiter) }
    execFile(program, args, { env, signal, killSignal: 'SIGKILL', maxBuffer: 1 << 22 }, (error, stdout, stderr) => {
      if (error && (error.code as unknown) === 'ENOENT') return resolve(undefined)
      const status = error ? (typeof error.code === 'number' ? error.code : null) : 0
      return resolve({ status, text: `${stdout}${stderr}` })
    })
  })
}

async function addon(name: 'vsock' | 'vhost-user'): ReturnType<System['addon']> {
  try {
    if (name === 'vhost-user') {
      await loadDevice()
      return {}
    }
    const path = addonPath()
    try {
      localCid()
    } catch (error) {
      // Any other error comes from the kernel, so the addon has loaded.
      const { cause } = error as Error
      if (cause instanceof AddonError) throw cause
    }
    return { path }
  } catch (error) {
    const tried = error instanceof AddonError || error instanceof DeviceAddonError ? error.tried : []
    const broken = tried.some(({ reason }) => reason !== 'no such file')
    return { ...failedOf(error), broken }
  }
}

/** The addon loads with the first listener: at a path of its own, for a moment. */
async function loadDevice(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'upcall-doctor-'))
  try {
    const device = await createVsockDevice({ guestCid: 3, socketPath: join(folder, 's') })
    await device.close()
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function bindVsock(cid: 'any' | 'local', signal: AbortSignal): Promise<Failed | undefined> {
  try {
    await using _bound = await bindServer(createServer(), `vsock://${cid}:any`, { signal })
    return undefined
  } catch (error) {
    return failedOf(error)
  }
}

function connectUnix(path: string, signal: AbortSignal): Promise<Failed | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection({ path, signal })
    socket.once('connect', () => {
      socket.destroy()
      resolve(undefined)
    })
    socket.once('error', (error) => resolve(failedOf(error)))
  })
}

async function greet(target: Address, signal: AbortSignal, timeoutMs: number): Promise<Greeted> {
  let connected = false
  const client = new UpcallClient({
    async dial({ signal }) {
      const socket = await connect(target, { signal, timeoutMs })
      connected = true
      return socket
    },
    // No request is sent, and the greeting is the same for each architecture.
    service: deviceManagerProtocol({ arch: 'x86_64' }),
    remote: formatAddress(target),
    reconnect: false,
    timeouts: { dialMs: timeoutMs, greetingMs: timeoutMs },
  })
  try {
    await client.ready({ signal })
    return { connected }
  } catch (error) {
    if (!isUpcallError(error)) throw error
    const { what, next } = explain(error, 'greeting', { target })
    return { connected, error: { code: failedOf(error).code, what, next } }
  } finally {
    await client.close()
  }
}
