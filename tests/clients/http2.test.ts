// http2.connect over a socket of ours: what a session does over `net`, when the server goes away above all.
import http2 from 'node:http2'
import net from 'node:net'
import { createSocket } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ServerProcess } from '../support/guest.js'
import { allWays, type Way } from '../support/ways.js'

/** Answers everything but /stream, of which only the head and some bytes come. */
const SERVER = `
  const server = http2.createServer()
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    stream.respond({ ':status': 200 })
    if (headers[':path'] === '/stream') stream.write('some')
    else if (headers[':path'] === '/large') {
      stream.end(Buffer.alloc(1 << 20, 'x'))
      stream.session.close()
    }
    else stream.end(headers[':path'])
  })
  server.on('sessionError', () => {})
  server.listen(path, listening)`

function session(way: Way): http2.ClientHttp2Session {
  const made = http2.connect('http://guest', { createConnection: () => way.connect() })
  made.on('error', () => {})
  return made
}

async function get(from: http2.ClientHttp2Session, path: string): Promise<string> {
  const stream = from.request({ ':path': path })
  let text = ''
  for await (const chunk of stream) text += chunk
  return text
}

const closed = (emitter: NodeJS.EventEmitter) => new Promise((resolve) => emitter.once('close', resolve))

describe.each(allWays)('http2 over $name', (kind) => {
  let way: Way
  let server: ServerProcess

  beforeEach(async () => {
    way = await kind.open()
    server = await ServerProcess.start(SERVER, way.path)
  })
  afterEach(async () => {
    await server.kill()
    await way[Symbol.asyncDispose]()
  })

  it('serves requests on a socket that still connects', async () => {
    const one = session(way)
    expect(await Promise.all([get(one, '/1'), get(one, '/2')])).toEqual(['/1', '/2'])
    const over = closed(one)
    one.close()
    await over
  })

  it('the session connects when the socket does', async () => {
    const socket = way.connect()
    const one = http2.connect('http://guest', { createConnection: () => socket })
    const events: string[] = []
    socket.on('connect', () => events.push('socket')).once('close', () => events.push('socket closes'))
    one.on('connect', () => events.push('session')).once('close', () => events.push('session closes'))
    expect(one.connecting).toBe(true)
    await get(one, '/')
    expect(one.connecting).toBe(false)
    const over = closed(one)
    one.close()
    await over
    expect(events.slice(0, 2)).toEqual(['socket', 'session'])
    await expect.poll(() => socket.destroyed).toBe(true)
  })

  it('a slow reader gets everything of a server that closes right after its answer', async () => {
    const one = session(way)
    const stream = one.request({ ':path': '/large' })
    let bytes = 0
    for await (const chunk of stream) {
      bytes += (chunk as Buffer).length
      await new Promise(setImmediate)
    }
    expect(bytes).toBe(1 << 20)
  })

  it.each(['close', 'destroy'] as const)(
    '%s() closes the socket: while it connects, idle, and in the middle of a stream',
    async (how) => {
      for (const moment of ['connecting', 'idle', 'busy']) {
        const socket = way.connect()
        const one = http2.connect('http://guest', { createConnection: () => socket })
        if (moment === 'idle') await get(one, '/')
        let stream: http2.ClientHttp2Stream | undefined
        if (moment === 'busy') {
          stream = one.request({ ':path': '/stream' })
          stream.on('error', () => {})
          await new Promise((resolve) => stream!.once('data', resolve))
        }
        const started = performance.now()
        const over = Promise.all([closed(one), closed(socket)])
        one[how]()
        if (how === 'close') stream?.close()
        await over
        // It does not wait for the peer's end, which the 5 s of lingerMs are for.
        expect(performance.now() - started).toBeLessThan(4_000)
      }
    },
  )

  it('closes the session and its stream when the server is killed, and the next session is served', async () => {
    const one = session(way)
    const stream = one.request({ ':path': '/stream' })
    stream.on('error', () => {})
    await new Promise((resolve) => stream.once('data', resolve))
    stream.resume()
    const over = Promise.all([closed(one), closed(stream)])
    await server.kill()
    await over
    expect([one.destroyed, stream.destroyed]).toEqual([true, true])

    server = await ServerProcess.start(SERVER, way.path)
    const two = session(way)
    expect(await get(two, '/again')).toBe('/again')
    two.destroy()
  })

  it('closes an idle session when the server is killed', async () => {
    const one = session(way)
    expect(await get(one, '/')).toBe('/')
    const over = closed(one)
    await server.kill()
    await over
    expect(one.destroyed).toBe(true)
  })

  it('gives the error of a server that is not there', async () => {
    await server.kill()
    const one = http2.connect('http://guest', { createConnection: () => way.connect() })
    const error = await new Promise((resolve) => one.once('error', resolve))
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
    expect(one.destroyed).toBe(true)
  })
})

it('http2 gets what the server says in one piece with the reply of the VMM', async () => {
  const server = http2.createServer((request, response) => void response.end(request.url))
  const sockets = new Set<net.Socket>()
  // A VMM that waits for the first bytes of the guest, the server's SETTINGS, and sends them together with its reply.
  const vmm = net.createServer((dialer) => {
    sockets.add(dialer)
    dialer.once('data', () => {
      const guest = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
      sockets.add(guest)
      guest.once('data', (first) => {
        dialer.write(Buffer.concat([Buffer.from('OK 1073741824\n'), first]))
        guest.pipe(dialer).pipe(guest)
      })
    })
  })
  await using way = await allWays[0]!.open()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  await new Promise<void>((resolve) => vmm.listen(way.path, resolve))
  for (const halfClose of [false, true]) {
    const one = http2.connect('http://guest', { createConnection: () => createSocket(`hvsock://${way.path}:80`, { halfClose }) })
    const settings = new Promise((resolve) => one.once('remoteSettings', resolve))
    expect(await get(one, '/glued')).toBe('/glued')
    await settings
    one.destroy()
  }
  for (const socket of sockets) socket.destroy()
  await Promise.all([server, vmm].map((each) => new Promise((resolve) => each.close(resolve))))
})
