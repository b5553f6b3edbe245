import { execFileSync } from 'node:child_process'
import { constants, openSync, readdirSync, readlinkSync } from 'node:fs'
import { createServer, type Server, Socket } from 'node:net'
import { join } from 'node:path'
import type { Binding, Descriptor } from '../src/native/binding.js'
import { sockaddrUnix } from './addon.js'

let names = 0

/** Two connected Unix sockets: a number, to be passed, and the socket at its other end. */
export function socketPair(binding: Binding): [fd: number, far: Socket] {
  const name = `upcall-pass-${process.pid}-${names++}`
  const listener = binding.socket(binding.AF_UNIX)
  binding.bind(listener, sockaddrUnix(name))
  binding.listen(listener, 1)
  const near = binding.socket(binding.AF_UNIX)
  binding.connect(near, sockaddrUnix(name))
  const far = binding.accept(listener)!.descriptor
  binding.close(listener)
  const socket = new Socket({ fd: binding.release(far), readable: true, writable: true, allowHalfOpen: true })
  return [binding.release(near), socket]
}

/** Opened so that it neither waits nor has an end of its own. */
export function openFifo(path: string, how: 'read' | 'write'): number {
  return openSync(path, (how === 'read' ? constants.O_RDONLY : constants.O_WRONLY) | constants.O_NONBLOCK)
}

/** The files of a directory that this process has open, one name for each descriptor. */
export function openIn(directory: string): string[] {
  const linkOf = (fd: string) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      // It was the descriptor of this look itself.
      return ''
    }
  }
  return readdirSync('/proc/self/fd')
    .map(linkOf)
    .filter((file) => file.startsWith(directory))
}

export function makeFifo(directory: string, name: string): string {
  const path = join(directory, name)
  execFileSync('mkfifo', [path])
  return path
}

/** A guest: what it listens on takes half-open connections. */
export class Guest {
  readonly #server: Server
  readonly #waiting: ((socket: Socket) => void)[] = []
  readonly #unclaimed: Socket[] = []
  readonly #open = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', (socket) => {
      this.#open.add(socket.on('error', () => {}))
      const next = this.#waiting.shift()
      if (next) next(socket)
      else this.#unclaimed.push(socket)
    })
  }

  static async listen(path: string): Promise<Guest> {
    const server = createServer({ allowHalfOpen: true })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    return new Guest(server)
  }

  accept(): Promise<Socket> {
    const socket = this.#unclaimed.shift()
    return socket ? Promise.resolve(socket) : new Promise((resolve) => this.#waiting.push(resolve))
  }

  close(): Promise<void> {
    for (const socket of this.#open) socket.destroy()
    return new Promise((resolve) => this.#server.close(() => resolve()))
  }
}

/** A dialer that sends what it is told, byte for byte, with descriptors beside it, and keeps what it hears. */
export class RawDialer {
  heard = ''
  ended = false
  readonly #binding: Binding
  readonly #descriptor: Descriptor

  constructor(binding: Binding, path: string) {
    const name = Buffer.from(path)
    const address = Buffer.alloc(2 + name.length + 1)
    address.writeUInt16LE(binding.AF_UNIX, 0)
    name.copy(address, 2)
    this.#binding = binding
    this.#descriptor = binding.socket(binding.AF_UNIX)
    binding.connect(this.#descriptor, address)
    binding.watch(this.#descriptor, binding.READABLE, () => this.#read())
  }

  send(text: string, ...fds: number[]): this {
    const descriptors = fds.map((fd) => this.#binding.duplicate(fd))
    this.#binding.send(this.#descriptor, Buffer.from(text, 'latin1'), descriptors)
    for (const descriptor of descriptors) this.#binding.close(descriptor)
    return this
  }

  end(): void {
    this.#binding.shutdown(this.#descriptor)
  }

  close(): void {
    this.#binding.close(this.#descriptor)
  }

  #read(): void {
    try {
      const got = this.#binding.receive(this.#descriptor, 4096)
      if (got === undefined) return
      this.heard += Buffer.from(got.bytes).toString('latin1')
      this.ended ||= got.bytes.length === 0
    } catch {
      this.ended = true
    }
    if (this.ended) this.#binding.unwatch(this.#descriptor)
  }
}
