import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dialEndpoint, type ForwardEnd, parseEndpoint } from '@upcall/vsock'
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

/** Both ends of a connection through a proxy, by addresses of two kinds. The handshake, if there is one, is over. */
async function through(listen: string, target: string) {
  const events: ConversationEvent[] = []
  const between = await proxy(listen, target, { raw: true, onEvent: (event) => events.push(event) })
  const ends: ForwardEnd[] = []
  const closed = new Promise<void>((resolve) => {
    between.on('closed', (_connection, end) => {
      ends.push(end)
      resolve()
    })
  })
  const dialling = dialEndpoint(parseEndpoint(listen, { defaultPort: 219 }), { halfClose: true })
  const vmm = await accepted
  if (target.startsWith('hvsock:') && !listen.startsWith('hvsock:')) {
    expect(String((await once(vmm, 'data'))[0])).toBe('CONNECT 219\n')
    vmm.write('OK 1024\n')
  }
  const { socket } = await dialling
  const client = socket.on('error', () => {})
  return {
    ...{ client, vmm, events, ends, closed, between },
    async [Symbol.asyncDispose]() {
      client.destroy()
      vmm.destroy()
      await between.close()
    },
  }
}

test.each([
  ['unix', 'unix'],
  ['unix', 'hvsock'],
  ['hvsock', 'unix'],
])('%s in front of %s: bytes both ways, and EOF of either direction before the other speaks', async (near, far) => {
  const address = (transport: string, path: string) => (transport === 'unix' ? `unix:${path}` : `hvsock://${path}:219`)
  const path = join(directory, 's')
  await using both = await through(address(near, `${path}t`), address(far, path))
  const { client, vmm, ends, closed } = both
  vmm.end('the guest is through')
  expect(await read(client)).toBe('the guest is through')
  client.end('and the client after it')
  expect(await read(vmm)).toBe('and the client after it')
  await closed
  expect(ends).toMatchObject([{ outcome: 'ok', sent: 23, received: 20 }])
})

test.each(['client', 'guest'] as const)('a reset by the %s is one for the other, and is told', async (who) => {
  const guests = createServer()
  guests.listen(0, '127.0.0.1')
  await once(guests, 'listening')
  const arriving = once(guests, 'connection')
  const { port } = guests.address() as AddressInfo
  const events: ConversationEvent[] = []
  await using between = await proxy('tcp:127.0.0.1:any', `tcp:127.0.0.1:${port}`, { raw: true, onEvent: (e) => events.push(e) })
  const closed = once(between, 'closed')
  const client = connect({ host: '127.0.0.1', port: (between.address as { port: number }).port })
  const [guest] = (await arriving) as [Socket]
  client.write('hello')
  await once(guest, 'data')
  const [one, other] = who === 'client' ? [client, guest] : [guest, client]
  const broken = once(other, 'error')
  one.resetAndDestroy()
  expect((await broken)[0]).toMatchObject({ code: 'ECONNRESET' })
  const [, end] = await closed
  expect(end).toMatchObject({ outcome: 'indeterminate', side: who === 'client' ? 'from' : 'to', error: { code: 'ECONNRESET' } })
  expect(events.filter(({ type }) => type === 'end')).toHaveLength(2)
  guests.close()
})

test.each(['client', 'guest'] as const)(
  'a %s that does not read stops the other, and everything arrives in the end',
  async (who) => {
    const path = join(directory, 's')
    await using both = await through(`unix:${path}t`, `unix:${path}`)
    const [reader, writer] = who === 'client' ? [both.client, both.vmm] : [both.vmm, both.client]
    const all = Buffer.alloc(16 << 20, 'x')
    let taken = false
    writer.write(all, () => {
      taken = true
    })
    const told = () => both.events.reduce((sum, event) => sum + (event.type === 'data' ? event.bytes.length : 0), 0)
    let before = 0
    const stands = () => {
      const [last, now] = [before, told()]
      before = now
      return now > 0 && now === last
    }
    await expect.poll(stands, { timeout: 10_000 }).toBe(true)
    expect(taken).toBe(false)
    expect(told()).toBeLessThan(4 << 20)
    let received = 0
    reader.on('data', (chunk: Buffer) => {
      received += chunk.length
    })
    await expect.poll(() => received, { timeout: 10_000 }).toBe(all.length)
    expect([taken, told()]).toEqual([true, all.length])
  },
)
