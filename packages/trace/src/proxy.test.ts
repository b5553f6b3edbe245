import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { ConversationEvent } from './conversation/conversation.js'
import { proxy } from './proxy.js'

let directory: string
let server: Server
let accepted: Promise<Socket>
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'upcall-proxy-'))
  server = createServer({ allowHalfOpen: true })
  accepted = once(server, 'connection').then(([socket]) => socket.on('error', () => {}) as Socket)
  server.listen(join(directory, 's'))
  await once(server, 'listening')
})
afterEach(async () => {
  server.close()
  await rm(directory, { recursive: true })
})

/** To EOF. Iterating would destroy the socket. */
async function read(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk) => chunks.push(chunk))
  await once(socket, 'end')
  return Buffer.concat(chunks).toString('latin1')
}

/** A client in front of the server, straight or through the proxy. */
describe.each(['straight', 'traced'] as const)('%s', (way) => {
  async function ends(): Promise<{
    client: Socket
    peer: Socket
    events: ConversationEvent[]
    [Symbol.asyncDispose](): Promise<void>
  }> {
    const events: ConversationEvent[] = []
    const path = join(directory, 's')
    const between =
      way === 'traced' ? await proxy(`unix:${path}t`, `unix:${path}`, { raw: true, onEvent: (e) => events.push(e) }) : undefined
    const client = connect({ path: between ? `${path}t` : path, allowHalfOpen: true })
    client.on('error', () => {})
    const peer = await accepted
    return {
      ...{ client, peer, events },
      async [Symbol.asyncDispose]() {
        client.destroy()
        peer.destroy()
        await between?.close()
      },
    }
  }

  test('bytes of every value, both ways, with EOF of one direction before the other speaks', async () => {
    await using both = await ends()
    const { client, peer, events } = both
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff))
    client.end(bytes)
    expect((await read(peer)) === bytes.toString('latin1')).toBe(true)
    peer.end('the answer comes after EOF')
    expect(await read(client)).toBe('the answer comes after EOF')
    if (way === 'straight') return
    const seen = (direction: string) =>
      Buffer.concat(
        events.filter((e) => e.direction === direction && e.type === 'data').map((e) => ('bytes' in e ? e.bytes : Buffer.of())),
      )
    expect(seen('to-guest').equals(bytes)).toBe(true)
    expect(seen('to-host').toString()).toBe('the answer comes after EOF')
  })

  test('what the server says first arrives first', async () => {
    await using both = await ends()
    both.peer.write('welcome')
    expect(String((await once(both.client, 'data'))[0])).toBe('welcome')
  })

  test('a client that leaves is a server without a client', async () => {
    await using both = await ends()
    both.peer.write('unread')
    both.peer.resume()
    both.client.destroy()
    // EOF or a reset, and then the writes fail.
    await expect.poll(() => !both.peer.write('more') || both.peer.destroyed).toBe(true)
  })
})

test('what a VMM sends with its answer is told, and arrives', async () => {
  const path = join(directory, 's')
  const events: ConversationEvent[] = []
  await using _between = await proxy(`unix:${path}t`, `hvsock://${path}:52`, { raw: true, onEvent: (e) => events.push(e) })
  const client = connect({ path: `${path}t` })
  const vmm = await accepted
  expect(String((await once(vmm, 'data'))[0])).toBe('CONNECT 52\n')
  vmm.write('OK 1024\nwelcome')
  expect(String((await once(client, 'data'))[0])).toBe('welcome')
  expect(events.flatMap((each) => (each.type === 'data' ? [String(Buffer.from(each.bytes))] : []))).toEqual(['welcome'])
  client.destroy()
  vmm.destroy()
})
