import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectSeqpacketOptions, connectSeqpacket } from '../src/seqpacket/connect.js'
import { type ListenSeqpacketOptions, listenSeqpacket, type SeqpacketServer } from '../src/seqpacket/listen.js'
import type { SeqpacketSocket } from '../src/seqpacket/socket.js'

/** Message sockets over a Unix socket in a directory of its own, which are gone after `close`. */
export class SeqpacketRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'seq-'))
  readonly path = join(this.dir, 's.sock')
  readonly #servers: SeqpacketServer[] = []
  readonly #sockets: SeqpacketSocket[] = []

  async listen(options: ListenSeqpacketOptions = {}, address = `unix+seq:${this.path}`): Promise<SeqpacketServer> {
    const server = await listenSeqpacket(address, options)
    this.#servers.push(server)
    return server
  }

  async dial(options: ConnectSeqpacketOptions = {}, address = `unix+seq:${this.path}`): Promise<SeqpacketSocket> {
    const socket = await connectSeqpacket(address, options)
    this.#sockets.push(socket)
    return socket
  }

  /** Both ends of a new connection. */
  async pair(
    options: ConnectSeqpacketOptions = {},
    accepted: ListenSeqpacketOptions = {},
  ): Promise<[near: SeqpacketSocket, far: SeqpacketSocket]> {
    const server = await this.listen(accepted)
    const [near, far] = await Promise.all([this.dial(options), nextOf(server)])
    return [near, far]
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    for (const server of this.#servers) {
      server.closeAllConnections()
      await server.close()
    }
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export async function nextOf(server: SeqpacketServer): Promise<SeqpacketSocket> {
  const { value } = await server[Symbol.asyncIterator]().next()
  if (!value) throw new Error('the server has closed')
  return value
}

export const bytes = (text: string) => new TextEncoder().encode(text)
export const text = (data: Uint8Array | undefined) => new TextDecoder().decode(data)

/** The text of each message up to the end. */
export async function textsOf(socket: AsyncIterable<Uint8Array>): Promise<string[]> {
  const texts: string[] = []
  for await (const data of socket) texts.push(text(data))
  return texts
}
