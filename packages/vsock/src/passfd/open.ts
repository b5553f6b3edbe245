import { constants } from 'node:fs'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '@upcall/foundation/clock'
import { adopt } from '../native/adopt.js'
import type { Binding, Description, Descriptor } from '../native/binding.js'
import { AF_VSOCK, LITTLE_ENDIAN } from '../native/sockaddr.js'
import { FileMedium, PolledMedium } from './medium.js'
import { PassedStream } from './stream.js'

/** Why a descriptor is of no use here. */
export class UnusableDescriptor extends Error {}

export interface OpenOptions {
  readonly keep: boolean
  readonly clock: Clock
}

const { S_IFMT, S_IFSOCK, S_IFIFO, S_IFREG, S_IFCHR, O_RDONLY, O_WRONLY } = constants
const O_ACCMODE = 3

// As Linux has them on the machines that this package is built for.
const SO_TYPE = 3
const SO_ACCEPTCONN = 30
const SO_DOMAIN = 39
const SOCK_STREAM = 1
const AF_INET6 = 10

/** null, zero, full, random and urandom: the devices that always answer. Reading another one may block a thread for ever. */
const MEMORY_DEVICES: ReadonlySet<number> = new Set([0x103, 0x105, 0x107, 0x108, 0x109])

/**
 * Finds out what a descriptor is good for, and leaves it alone: not a byte of it is read before the result is called, because a guest that
 * refuses must not cost its owner anything. The result takes the descriptor.
 *
 * @throws {UnusableDescriptor} with the reason. The descriptor is still the caller's then.
 */
export function streamOf(binding: Binding, descriptor: Descriptor): (options: OpenOptions) => Duplex {
  const found = binding.describe(descriptor)
  const access = found.flags & O_ACCMODE
  if (access > 2) throw new UnusableDescriptor('the descriptor can be neither read nor written')
  const ways = { readable: access !== O_WRONLY, writable: access !== O_RDONLY }
  const polled = (options: OpenOptions, isSocket: boolean) => {
    binding.unblock(descriptor)
    return new PassedStream(new PolledMedium(binding, descriptor, isSocket), { ...options, ...ways })
  }
  switch (kindOf(found)) {
    case 'socket': {
      const family = checkSocket(binding, descriptor)
      return (options) => (options.keep ? polled(options, true) : socketOf(binding, descriptor, family))
    }
    case 'polled':
      return (options) => polled(options, false)
    case 'file':
      return (options) => new PassedStream(new FileMedium(binding.release(descriptor)), { ...options, ...ways })
    default:
      throw new UnusableDescriptor('the descriptor is neither a socket, a FIFO, a terminal nor a file')
  }
}

function kindOf({ mode, device, terminal, flags }: Description): 'socket' | 'polled' | 'file' | undefined {
  // O_PATH: only a name of a file.
  if (flags & 0o10000000) return undefined
  const type = mode & S_IFMT
  if (type === S_IFSOCK) return 'socket'
  if (type === S_IFIFO || terminal) return 'polled'
  return type === S_IFREG || (type === S_IFCHR && MEMORY_DEVICES.has(device)) ? 'file' : undefined
}

/** @returns its family. */
function checkSocket(binding: Binding, descriptor: Descriptor): number {
  const option = (name: number) => {
    const bytes = binding.getsockopt(descriptor, binding.SOL_SOCKET, name, 4)
    return new DataView(bytes.buffer).getInt32(0, LITTLE_ENDIAN)
  }
  const family = option(SO_DOMAIN)
  const known = [binding.AF_UNIX, binding.AF_INET, AF_INET6, AF_VSOCK].includes(family)
  if (!known || option(SO_TYPE) !== SOCK_STREAM) throw new UnusableDescriptor('the socket is not a Unix, TCP or vsock stream')
  if (option(SO_ACCEPTCONN) !== 0) throw new UnusableDescriptor('the socket listens')
  try {
    binding.getpeername(descriptor)
  } catch (cause) {
    throw new UnusableDescriptor('the socket is not connected', { cause })
  }
  return family
}

function socketOf(binding: Binding, descriptor: Descriptor, family: number): Socket {
  const create = (fd: number) => new Socket({ fd, readable: true, writable: true, allowHalfOpen: true })
  if (family === AF_VSOCK) {
    binding.unblock(descriptor)
    return adopt(binding, descriptor, binding.placeholder(), undefined, create)
  }
  return create(binding.release(descriptor))
}
