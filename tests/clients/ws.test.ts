// The package `ws`, client and server, and the WebSocket of undici.
import http from 'node:http'
import type { Socket } from 'node:net'
import { bindServer, createConnection } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { allWays, ourWays, type Way } from '../support/ways.js'

const event = (emitter: NodeJS.EventEmitter, name: string) => new Promise<unknown>((resolve) => emitter.once(name, resolve))

describe.each(allWays)('ws over $name', (kind) => {
  let way: Way
  let server: http.Server
  let sockets: WebSocketServer
  let connections: Set<Socket>

  beforeEach(async () => {
    way = await kind.open()
    connections = new Set()
    server = http.createServer()
    server.on('connection', (socket: Socket) => {
      connections.add(socket)
      socket.once('close', () => connections.delete(socket))
    })
    sockets = new WebSocketServer({ server })
    sockets.on('connection', (socket) => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })))
    await new Promise<void>((resolve) => server.listen(way.path, resolve))
  })
  afterEach(async () => {
    for (const socket of sockets.clients) socket.terminate()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await way[Symbol.asyncDispose]()
  })

  const client = () => new WebSocket('ws://guest/', { agent: way.agent() })

  it('echoes small and large messages, and closes in order', async () => {
    const socket = client()
    await event(socket, 'open')
    for (const message of [Buffer.from('hello'), Buffer.alloc(1 << 20, 7)]) {
      const answer = event(socket, 'message')
      socket.send(message)
      expect(message.equals((await answer) as Buffer)).toBe(true)
    }
    const closed = new Promise((resolve) => socket.once('close', (code, reason) => resolve([code, String(reason)])))
    socket.close(4000, 'enough')
    expect(await closed).toEqual([4000, 'enough'])
    await expect.poll(() => connections.size).toBe(0)
  })

  it('a server that terminates is seen as 1006', async () => {
    const socket = client()
    await event(socket, 'open')
    const closed = event(socket, 'close')
    for (const each of sockets.clients) each.terminate()
    expect(await closed).toBe(1006)
  })

  it('terminate() while it connects fails, and opens nothing', async () => {
    const socket = client()
    const error = event(socket, 'error')
    socket.terminate()
    expect(await error).toBeInstanceOf(Error)
    await expect.poll(() => connections.size).toBe(0)
  })

  it('handshakeTimeout holds', async () => {
    server.removeAllListeners('upgrade')
    server.on('upgrade', (_request, socket: Socket) => socket.on('end', () => socket.end()).resume())
    const socket = new WebSocket('ws://guest/', { agent: way.agent(), handshakeTimeout: 50 })
    expect(await event(socket, 'error')).toMatchObject({ message: expect.stringContaining('timed out') })
    await expect.poll(() => connections.size).toBe(0)
  })
})

describe.each(ourWays)('ws over $name', (kind) => {
  it('takes createConnection; the server is bound by bindServer', async () => {
    await using way = await kind.open()
    const server = http.createServer()
    const sockets = new WebSocketServer({ server })
    sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(`you said ${data}`)))
    await using _bound = await bindServer(server, `unix:${way.path}`)
    const socket = new WebSocket('ws://guest/', {
      createConnection: createConnection(way.address!, { halfClose: way.halfClose }),
    })
    await event(socket, 'open')
    const answer = event(socket, 'message')
    socket.send('hello')
    expect(String(await answer)).toBe('you said hello')
    socket.close()
    await event(socket, 'close')
    for (const each of sockets.clients) each.terminate()
  })
})
