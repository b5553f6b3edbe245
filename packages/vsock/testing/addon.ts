import { readdirSync, readlinkSync } from 'node:fs'
import { thisHost } from '@upcall/foundation/addon/loader'
import { Cid } from '../src/address.js'
import type { Binding, Descriptor } from '../src/native/binding.js'
import { AddonError, findBinding, type Host, locateBinding } from '../src/native/loader.js'
import { AF_VSOCK, decodeSockaddrVm, encodeSockaddrVm, LITTLE_ENDIAN, type SockaddrVm } from '../src/native/sockaddr.js'

// The addon takes any family's sockaddr, so what it does for AF_VSOCK is tested over AF_UNIX and TCP, with the very same code.

const AF_UNIX = 1
const AF_INET = 2

/** The addon, or undefined with a word on how to get it. */
export function addonIfBuilt(): Binding | undefined {
  try {
    // Not loadBinding(), which the tests' environment switches off: what this gives is used over other families.
    return holding(findBinding(thisMachine()))
  } catch (error) {
    if (!(error instanceof AddonError)) throw error
    console.warn(`Tests of the native addon are left out: ${error.message}\nTo run them: node scripts/build-addons.mjs`)
    return undefined
  }
}

/**
 * Every descriptor that the addon has handed out, for good. The addon closes a descriptor that is collected. Without this list, a
 * collection between a leak and the test's look at it would hide the leak.
 */
const held: unknown[] = []

/** The addon, but what it hands out is never collected. */
function holding(binding: Binding): Binding {
  const hold = <T>(given: T): T => {
    held.push(given)
    return given
  }
  return {
    ...binding,
    socket: (...args) => hold(binding.socket(...args)),
    typedSocket: (...args) => hold(binding.typedSocket(...args)),
    placeholder: () => hold(binding.placeholder()),
    inherit: (fd) => hold(binding.inherit(fd)),
    duplicate: (fd) => hold(binding.duplicate(fd)),
    accept: (descriptor) => hold(binding.accept(descriptor)),
    receive: (descriptor, length) => hold(binding.receive(descriptor, length)),
  }
}

/** For programs in other processes and threads. */
export function addonPath(): string {
  return locateBinding(thisMachine())
}

function thisMachine(): Host {
  return { ...thisHost(new URL('../src/native/loader.ts', import.meta.url).href), env: {} }
}

function sockaddrInet(port: number): Uint8Array {
  const bytes = new Uint8Array(16)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, AF_INET, LITTLE_ENDIAN)
  view.setUint16(2, port, false)
  bytes.set([127, 0, 0, 1], 4)
  return bytes
}

/** In Linux's abstract namespace: no file that would have to be removed. */
export function sockaddrUnix(name: string): Uint8Array {
  const text = new TextEncoder().encode(name)
  const bytes = new Uint8Array(3 + text.length)
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, LITTLE_ENDIAN)
  bytes.set(text, 3)
  return bytes
}

let names = 0

/** Two families to listen on, each at an address of its own. */
export const FAMILIES = [
  { name: 'AF_UNIX', family: AF_UNIX, fresh: () => sockaddrUnix(`upcall-vsock-test-${process.pid}-${names++}`) },
  { name: 'TCP', family: AF_INET, fresh: () => sockaddrInet(0) },
] as const

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/**
 * Opens a socket and gives its number, as if another program had opened it and this process had inherited it.
 *
 * @param open - Opens it with the addon of {@link addonIfBuilt}, which keeps the descriptor: a collection would close the number, which
 * has another owner by then.
 */
export function inherited(open: () => Descriptor): number {
  const before = socketNumbers()
  open()
  const number = socketNumbers().find((each) => !before.includes(each))
  if (number === undefined) throw new Error('no socket was opened')
  return number
}

function socketNumbers(): number[] {
  return readdirSync('/proc/self/fd')
    .filter((name) => {
      try {
        return readlinkSync(`/proc/self/fd/${name}`).startsWith('socket:')
      } catch {
        // Closed since it was listed.
        return false
      }
    })
    .map(Number)
}

/** The address of a Unix socket: a path, or `@` and an abstract name. */
export function sockaddrOf(path: string): Uint8Array {
  return path.startsWith('@') ? sockaddrUnix(path.slice(1)) : Buffer.concat([Uint8Array.of(AF_UNIX, 0), Buffer.from(`${path}\0`)])
}

/** What AF_VSOCK answers where AF_UNIX refuses. */
function reset(): Error {
  return Object.assign(new Error('connect ECONNRESET'), { code: 'ECONNRESET', errno: -104, syscall: 'connect' })
}

/** What Linux answers to SO_VM_SOCKETS_BUFFER_SIZE, as a u64. */
const BUFFER_SIZE = new Uint8Array(BigUint64Array.of(0x40000n).buffer)

/**
 * AF_VSOCK made of AF_UNIX: `sockaddr_vm` in and out, the kernel's errno for an unattended port, every CID this machine's own. The
 * host must not connect over AF_VSOCK; the real one is exercised in a guest.
 */
export function standInForVsock(binding: Binding, cid = 3) {
  const bound = new WeakMap<Descriptor, SockaddrVm>()
  const options: [option: number, ...value: number[]][] = []
  const connected: SockaddrVm[] = []
  let nextPort = 0x40000000
  const unix = (port: number) => sockaddrUnix(`upcall-vsock-stand-in-${process.pid}-${port}`)
  const fake: Binding = {
    ...binding,
    socket: () => binding.socket(AF_UNIX),
    typedSocket: (_family, type) => binding.typedSocket(AF_UNIX, type),
    getsockopt: (descriptor, level, ...rest) =>
      level === AF_VSOCK ? BUFFER_SIZE : binding.getsockopt(descriptor, level, ...rest),
    bind(descriptor, sockaddr) {
      const asked = decodeSockaddrVm(sockaddr)
      const port = asked.port === Cid.any ? nextPort++ : asked.port
      binding.bind(descriptor, unix(port))
      bound.set(descriptor, { cid: asked.cid, port })
    },
    connect(descriptor, sockaddr) {
      // As the kernel does it: a port of its own, and any CID.
      bound.set(descriptor, { cid: Cid.any, port: nextPort++ })
      connected.push(decodeSockaddrVm(sockaddr))
      try {
        return binding.connect(descriptor, unix(decodeSockaddrVm(sockaddr).port))
      } catch (error) {
        throw (error as NodeJS.ErrnoException).code === 'ECONNREFUSED' ? reset() : error
      }
    },
    accept(listener) {
      const accepted = binding.accept(listener)
      if (!accepted) return undefined
      bound.set(accepted.descriptor, { cid: Cid.local, port: bound.get(listener)!.port })
      return { descriptor: accepted.descriptor, peer: encodeSockaddrVm({ cid: Cid.local, port: nextPort }) }
    },
    getsockname: (descriptor) => encodeSockaddrVm(bound.get(descriptor)!),
    getpeername: () => encodeSockaddrVm({ cid, port: 1 }),
    setsockopt(_descriptor, _level, option, value) {
      options.push([option, ...value])
    },
    localCid: () => cid,
  }
  return { binding: fake, options, connected }
}
