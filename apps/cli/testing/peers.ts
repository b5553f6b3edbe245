import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import {
  type Address,
  type ConnectOptions,
  connect as connectTo,
  type HybridServer,
  listen,
  listenHybrid,
  type VsockServer,
  type VsockSocket,
} from '@upcall/vsock'
import { afterEach, beforeEach } from 'vitest'
import { type Running, type StartOptions, start } from './harness.js'

/** A new directory for each test. */
export let dir: string
/** What is open, to be closed after the test in reverse order. */
export const closers: (() => unknown)[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-vsock-'))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  rmSync(dir, { recursive: true })
})

/** A command that is over at the end of the test, and the address it says it listens on. */
export async function serving(argv: string[], given?: Readable | StartOptions): Promise<Running & { address: string }> {
  const running = start(argv, given instanceof Readable ? { stdin: given } : given)
  closers.push(() => {
    running.interrupt('SIGTERM')
    return running.status
  })
  const listening = Promise.race([running.stderr.has('listening'), running.stdout.has('listening')])
  await Promise.race([listening, running.status])
  const said = `${running.stderr.text}${running.stdout.text}`
  return { ...running, address: /(?:listening on |"address":")([^\s,"]+)/.exec(said)?.[1] ?? said }
}

/** A peer that goes on after the other end has ended. */
export function connect(address: Address | string, options: ConnectOptions = {}): Promise<VsockSocket> {
  return connectTo(address, { allowHalfOpen: true, ...options })
}

/** A server that does this with each connection. */
export async function server(address: string, serve: (socket: VsockSocket) => unknown): Promise<VsockServer> {
  const listening = await listen(address, { allowHalfOpen: true })
  listening.on('connection', (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  closers.push(async () => {
    listening.closeAllConnections()
    await listening.close()
  })
  return listening
}

/** A VMM whose guest has `unix:<dir>/guest` on port 80. */
export async function vmm(options: { halfClose?: boolean } = {}): Promise<HybridServer> {
  const hybrid = await listenHybrid({
    ...options,
    path: join(dir, 'vm'),
    route: (port) => (port === 80 ? connect(`unix:${dir}/guest`) : undefined),
  })
  closers.push(() => hybrid.close())
  return hybrid
}

export const echo = (socket: VsockSocket) => void socket.pipe(socket)

export async function read(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Bytes as a file or a pipe brings them. */
export function* pieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}

export function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** A VMM of a few lines: answers OK and does with the connection as it is told. */
export async function rawVmm(serve: (socket: Socket) => void): Promise<string> {
  const listening = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.write('OK 1\n')
      serve(socket)
    })
  }).listen(join(dir, 'raw'))
  const sockets = new Set<Socket>()
  listening.on('connection', (socket) => sockets.add(socket))
  await once(listening, 'listening')
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    listening.close()
  })
  return `hvsock://${dir}/raw:80`
}
