// node:tls on a socket of ours, with and without half-close, over a socket that still connects, too: nothing is lost.
import { readFileSync } from 'node:fs'
import type http from 'node:http'
import https from 'node:https'
import type net from 'node:net'
import type { Socket } from 'node:net'
import tls from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { allWays, type Way } from '../support/ways.js'

const file = (name: string) => readFileSync(new URL(`../support/tls/${name}.pem`, import.meta.url), 'utf8')
const [key, cert] = [file('key'), file('cert')]
const ANSWER = Buffer.alloc(1 << 20, 'answer ')

describe.each(allWays)('tls over $name', (kind) => {
  let way: Way
  let server: net.Server
  let connections: Set<Socket>

  /** Answers 1 MiB after the client's end. */
  function answerAfterEnd(socket: tls.TLSSocket): void {
    let asked = ''
    socket.on('data', (chunk) => (asked += chunk))
    socket.on('end', () => {
      setTimeout(() => {
        socket.write(asked)
        socket.end(ANSWER)
      }, 100)
    })
    socket.on('error', () => {})
  }

  beforeEach(async () => {
    way = await kind.open()
    connections = new Set()
    const options = { key, cert, allowHalfOpen: true } as tls.TlsOptions
    server = tls.createServer(options, answerAfterEnd)
    server.on('connection', (socket: Socket) => {
      connections.add(socket)
      socket.once('close', () => connections.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(way.path, resolve))
  })
  afterEach(async () => {
    for (const socket of connections) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
    await way[Symbol.asyncDispose]()
  })

  const dial = (socket: Socket) =>
    tls.connect({ socket, ca: cert, servername: 'guest', allowHalfOpen: true } as tls.ConnectionOptions)

  /** Reads to the end, slowly if asked. */
  async function readAll(socket: tls.TLSSocket, slowly: boolean): Promise<string> {
    const chunks: Buffer[] = []
    return new Promise((resolve, reject) => {
      socket.on('error', reject)
      socket.on('end', () => resolve(Buffer.concat(chunks).toString()))
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        if (!slowly || chunks.length > 30) return
        socket.pause()
        setTimeout(() => socket.resume(), 5)
      })
    })
  }

  it.each([
    ['over a socket that still connects', false, false],
    ['over a connected socket', true, false],
    ['over a socket that still connects, read slowly', false, true],
    ['over a connected socket, read slowly', true, true],
  ])('the client ends its side right after its request, %s: the whole answer arrives', async (_, connected, slowly) => {
    const below = way.connect({ allowHalfOpen: true })
    if (connected) await new Promise((resolve) => below.once('connect', resolve))
    const socket = dial(below)
    const text = readAll(socket, slowly)
    socket.end('request ')
    const got = await text
    expect(got.length).toBe(ANSWER.length + 8)
    expect(got.startsWith('request answer answer')).toBe(true)
    await expect.poll(() => below.destroyed).toBe(true)
    await expect.poll(() => connections.size).toBe(0)
  })

  it('the handshake fails loudly when the server goes away in it', async () => {
    server.removeAllListeners('connection')
    server.on('connection', (socket: Socket) => socket.once('data', () => socket.destroy()))
    const socket = dial(way.connect())
    const error = await new Promise((resolve) => socket.once('error', resolve))
    expect(error).toMatchObject({ code: 'ECONNRESET' })
  })

  it('destroy() while the socket below connects closes both', async () => {
    const below = way.connect()
    const socket = dial(below)
    const closed = Promise.all([below, socket].map((each) => new Promise((resolve) => each.once('close', resolve))))
    socket.destroy()
    await closed
    await expect.poll(() => connections.size).toBe(0)
  })

  it('an error of the socket below is that of TLS, once', async () => {
    await new Promise((resolve) => server.close(resolve))
    const below = way.connect()
    const socket = dial(below)
    const errors: unknown[] = []
    socket.on('error', (error) => errors.push(error))
    await new Promise((resolve) => socket.once('close', resolve))
    expect(errors).toMatchObject([{ code: way.address === undefined ? 'ENOENT' : 'ECONNREFUSED' }])
    server.listen(way.path)
  })

  it('carries https', async () => {
    const secure = https.createServer({ key, cert }, (request, response) => void response.end(request.url))
    await new Promise<void>((resolve) => secure.listen(`${way.path}.https`, resolve))
    server.removeAllListeners('connection')
    server.on('connection', (socket: Socket) => secure.emit('connection', socket))
    const request = https.get('https://guest/health', {
      ca: cert,
      createConnection: (options) => tls.connect({ ...(options as tls.ConnectionOptions), socket: way.connect() }),
    })
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.once('response', resolve).once('error', reject)
    })
    let body = ''
    for await (const chunk of response) body += chunk
    expect([response.statusCode, body]).toEqual([200, '/health'])
    secure.closeAllConnections()
    await new Promise((resolve) => secure.close(resolve))
  })
})
