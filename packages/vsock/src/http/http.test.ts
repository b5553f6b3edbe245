import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connect } from '../connect.js'
import { type HybridServer, listenHybrid } from '../hybrid.js'
import { VsockSocket } from '../socket.js'
import { connector, createConnection, VsockAgent } from './index.js'

let dir: string
let address: string
let vmm: HybridServer
let guest: http.Server
let connections = 0

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  connections = 0
  guest = http.createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => (body += chunk)).on('end', () => response.end(`${request.method} ${request.url} ${body}`))
  })
  guest.on('connection', () => connections++)
  await new Promise<void>((resolve) => guest.listen(join(dir, 'guest'), resolve))
  vmm = await listenHybrid({
    path: join(dir, 'vm'),
    route: async (port) => (port === 80 ? connect(`unix:${dir}/guest`) : undefined),
  })
  address = `hvsock://${dir}/vm:80`
})
afterEach(async () => {
  await vmm.close()
  guest.closeAllConnections()
  await new Promise((resolve) => guest.close(resolve))
  rmSync(dir, { recursive: true, force: true })
})

function request(options: http.RequestOptions, body = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = http.request({ host: 'guest', method: 'POST', ...options }, (response) => {
      let text = ''
      response.on('data', (chunk) => (text += chunk)).on('end', () => resolve(text))
    })
    sent.on('error', reject).end(body)
  })
}

describe('createConnection', () => {
  it('serves one http.request', async () => {
    expect(await request({ path: '/one', createConnection: createConnection(address) }, 'body')).toBe('POST /one body')
  })

  it('serves an agent that keeps connections alive', async () => {
    const agent = Object.assign(new http.Agent({ keepAlive: true }), { createConnection: createConnection(address) })
    for (let i = 0; i < 3; i++) expect(await request({ path: `/${i}`, agent })).toBe(`POST /${i} `)
    expect(connections).toBe(1)
    const large = 'x'.repeat(1 << 20)
    const answers = await Promise.all([1, 2, 3].map((i) => request({ path: `/${i}`, agent }, large)))
    expect(answers.map((text) => text.length)).toEqual([1, 2, 3].map(() => 'POST /1 '.length + large.length))
    agent.destroy()
  })

  it("gives the request the connection's error", async () => {
    const error = request({ createConnection: createConnection(`hvsock://${dir}/vm:81`) })
    await expect(error).rejects.toMatchObject({ code: 'ECONNREFUSED', op: 'connect', remote: { port: 81 } })
  })

  it('obeys the signal of the request and its own', async () => {
    const early = createConnection(address, { signal: AbortSignal.abort('early') })
    await expect(request({ createConnection: early })).rejects.toMatchObject({ code: 'ABORTED', cause: 'early' })
    const stop = new AbortController()
    const own = request({ createConnection: createConnection(address, { signal: stop.signal }) })
    stop.abort('own')
    await expect(own).rejects.toMatchObject({ code: 'ABORTED', cause: 'own' })
    const error = request({ createConnection: createConnection(address), signal: AbortSignal.abort('request') })
    await expect(error).rejects.toMatchObject({ name: 'AbortError' })
  })

  it('refuses a bad address where it is written', () => {
    expect(() => createConnection('hvsock://x')).toThrow(/no port/)
    expect(() => connector('hvsock://x')).toThrow(/no port/)
  })
})

describe('VsockAgent', () => {
  it('asks once for the address of each request', async () => {
    const asked: string[] = []
    const agent = new VsockAgent(
      ({ hostname }) => {
        asked.push(hostname)
        return address
      },
      { keepAlive: true, maxSockets: 1 },
    )
    for (const host of ['vm-1', 'vm-2']) expect(await request({ agent, host, path: `/${host}` })).toBe(`POST /${host} `)
    expect(asked).toEqual(['vm-1', 'vm-2'])
    // The pool is the address's, whatever the host is called.
    expect(connections).toBe(1)
    agent.destroy()
  })

  it('gives its timeout to its sockets', () => {
    const agent = new VsockAgent(address, { timeout: 1_234 })
    const socket = agent.createConnection({ host: 'guest', timeout: 1_234 }) as VsockSocket
    expect(socket.timeout).toBe(1_234)
    socket.destroy()
    agent.destroy()
  })
})

describe('connector', () => {
  const dial = (protocol: string, to = address) =>
    new Promise<unknown>((resolve) => {
      connector(to)({ hostname: 'guest', protocol, port: '' }, (error, socket) => resolve(error ?? socket))
    })

  it('calls back with a connected socket, or with the error', async () => {
    const socket = await dial('http:')
    expect(socket).toBeInstanceOf(VsockSocket)
    const answer = new Promise((resolve) => (socket as VsockSocket).once('data', resolve))
    ;(socket as VsockSocket).write('GET /raw HTTP/1.1\r\nHost: guest\r\n\r\n')
    expect(String(await answer)).toMatch(/^HTTP\/1.1 200 OK\r\n/)
    ;(socket as VsockSocket).destroy()
    expect(await dial('http:', `hvsock://${dir}/vm:81`)).toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('refuses https: instead of sending it in the clear', async () => {
    expect(await dial('https:')).toMatchObject({ code: 'ENOTSUP' })
    expect(connections).toBe(0)
  })
})

describe('fetch', () => {
  // Node's own copy of undici, which it does not export.
  type Dispatcher = NonNullable<RequestInit['dispatcher']> & { close(): Promise<void> }
  type AgentClass = new (options: { connect: ReturnType<typeof connector>; connections: number }) => Dispatcher
  async function undiciAgent(connect: ReturnType<typeof connector>): Promise<Dispatcher> {
    await fetch('data:,')
    const globals = globalThis as Record<symbol, object | undefined>
    // From 26 the first is a wrapper of the second.
    const [second, first] = [2, 1].map((version) => globals[Symbol.for(`undici.globalDispatcher.${version}`)])
    const Agent = (second ?? first)?.constructor as AgentClass
    return new Agent({ connect, connections: 1 })
  }

  it('goes through an undici Agent, keeps the connection, and gives the VsockError as the cause', async () => {
    const dispatcher = await undiciAgent(connector(address))
    for (let i = 0; i < 3; i++) {
      const response = await fetch(`http://guest/${i}`, { dispatcher, method: 'POST', body: 'x'.repeat(i << 16) })
      expect(await response.text()).toBe(`POST /${i} ${'x'.repeat(i << 16)}`)
    }
    expect(connections).toBe(1)
    await dispatcher.close()

    const nobody = await undiciAgent(connector(`hvsock://${dir}/vm:81`))
    await expect(fetch('http://guest/', { dispatcher: nobody })).rejects.toMatchObject({
      cause: { code: 'ECONNREFUSED', op: 'connect' },
    })
    await nobody.close()
  })
})

it('carries HTTP/2, as gRPC does, and closes in order', async () => {
  const server = http2.createServer((_request, response) => response.end('over http/2'))
  await new Promise<void>((resolve) => server.listen(join(dir, 'h2'), resolve))
  const hybrid = await listenHybrid({ path: join(dir, 'vm2'), route: () => connect(`unix:${dir}/h2`) })
  const socket = await connect(`hvsock://${dir}/vm2:80`)
  const session = http2.connect('http://guest', { createConnection: () => socket })
  const stream = session.request({ ':path': '/' })
  let text = ''
  for await (const chunk of stream) text += chunk
  expect(text).toBe('over http/2')
  const closed = new Promise((resolve) => socket.once('close', resolve))
  session.close()
  await closed
  await hybrid.close()
  await new Promise((resolve) => server.close(resolve))
})
