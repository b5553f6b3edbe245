import { once } from 'node:events'
import { existsSync, linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { createServer, type Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { takePath } from '@upcall/foundation/unix-path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, standInForVsock } from '../testing/addon.js'
import { type BindServerOptions, bindServer } from './bind-server.js'
import { connect } from './connect.js'
import { createConnection } from './http/index.js'
import { listen } from './listen.js'
import type { Binding } from './native/binding.js'
import * as loader from './native/loader.js'
import { VsockSocket } from './socket.js'

vi.mock('./native/loader.js', { spy: true })
vi.mock('@upcall/foundation/unix-path', { spy: true })

const addon = addonIfBuilt()

let dir: string
let path: string
let servers: Server[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 'server.sock')
})
afterEach(async () => {
  for (const server of servers) {
    if (server instanceof http.Server) server.closeAllConnections()
    if (server.listening) await new Promise((resolve) => server.close(resolve))
  }
  servers = []
  rmSync(dir, { recursive: true, force: true })
})

function owned<T extends Server>(server: T): T {
  servers.push(server)
  return server
}

function webServer(handler: http.RequestListener = (request, response) => response.end(`${request.method} ${request.url}`)) {
  return owned(http.createServer(handler))
}

async function get(address: string, agent?: http.Agent): Promise<string> {
  const request = http.get({ path: '/hello', ...(agent ? { agent } : { createConnection: createConnection(address) }) })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  return text(response)
}

const keepingAlive = (address: string) =>
  Object.assign(new http.Agent({ keepAlive: true }), { createConnection: createConnection(address) })

describe.each([
  ['unix:', () => ({ bound: `unix:${path}`, dialled: `unix:${path}`, shown: path })],
  ['hvsock://', () => ({ bound: `hvsock://${path}:80`, dialled: `unix:${path}_80`, shown: `${path}_80` })],
  ...(addon
    ? [['vsock://', () => ({ bound: 'vsock://any:80', dialled: 'vsock://local:80', shown: 'vsock://any:80' })] as const]
    : []),
] as const)('a server of node:http on %s', (name, addresses) => {
  let at: ReturnType<typeof addresses>
  const bind = (server: Server, options?: BindServerOptions) => bindServer(server, at.bound, options)
  beforeEach(() => {
    if (addon) vi.spyOn(loader, 'loadBinding').mockReturnValue(standInForVsock(addon as Binding).binding)
    at = addresses()
  })

  it('serves requests, says that it listens and where, and closes in order', async () => {
    const server = webServer()
    const events: string[] = []
    server.on('listening', () => events.push(`listening ${server.listening} ${server.address()}`))
    server.on('close', () => events.push(`close ${readdirSync(dir)}`))
    expect([server.listening, server.address()]).toEqual([false, null])
    const bound = await bind(server)
    expect(bound.address).toMatchObject({ transport: name.replace(/:.*/, '') })
    expect(await get(at.dialled)).toBe('GET /hello')
    expect(await get(at.dialled)).toBe('GET /hello')
    await bound.close()
    await bound.close()
    expect([server.listening, server.address(), readdirSync(dir)]).toEqual([false, null, []])
    await expect.poll(() => events).toEqual([`listening true ${at.shown}`, 'close '])
    await expect(connect(at.dialled)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('gives the handler sockets that know their addresses', async () => {
    const sockets: unknown[] = []
    const server = webServer((request, response) => {
      sockets.push(request.socket)
      response.end()
    })
    const { address } = await bind(server)
    await get(at.dialled)
    expect(sockets).toEqual([expect.any(VsockSocket)])
    // Over AF_VSOCK the CID that the peer used, not the wildcard that was bound.
    const local = name === 'vsock://' ? { ...address, cid: 1 } : address
    expect(sockets[0]).toMatchObject({ local, allowHalfOpen: true, halfClose: name !== 'hvsock://' })
    expect((sockets[0] as VsockSocket).remote).toEqual(
      name === 'vsock://' ? expect.objectContaining({ transport: 'vsock', cid: 1 }) : undefined,
    )
  })

  it('keeps close() waiting for its connections, and ends the idle ones', async () => {
    let asked = () => {}
    const isBusy = new Promise<void>((resolve) => {
      asked = resolve
    })
    const server = webServer((request, response) => (request.url === '/slow' ? asked() : response.end('at once')))
    await bind(server)
    const agent = keepingAlive(at.dialled)
    expect(await get(at.dialled, agent)).toBe('at once')
    const busy = await connect(at.dialled)
    busy.write('GET /slow HTTP/1.1\r\nHost: guest\r\n\r\n')
    await isBusy
    expect(await connectionsOf(server)).toBe(2)
    let closed = false
    const closing = new Promise<unknown>((resolve) => server.close(resolve)).then((error) => {
      closed = true
      return error
    })
    await vi.waitFor(async () => expect(await connectionsOf(server)).toBe(1))
    await new Promise(setImmediate)
    expect([closed, server.listening]).toEqual([false, false])
    busy.destroy()
    expect(await closing).toBeUndefined()
    expect(readdirSync(dir)).toEqual([])
    agent.destroy()
  })

  it('can be bound again after it has closed', async () => {
    const server = webServer()
    for (let round = 0; round < 2; round++) {
      await bind(server)
      expect(await get(at.dialled)).toBe('GET /hello')
      await new Promise((resolve) => server.close(resolve))
    }
  })

  it('is left alone if another server has the address', async () => {
    await bind(webServer())
    const second = webServer()
    const events: string[] = []
    for (const event of ['listening', 'close', 'error']) second.on(event, () => events.push(event))
    await expect(bind(second)).rejects.toMatchObject({ code: 'EADDRINUSE', op: 'listen' })
    expect([second.listening, second.address(), events]).toEqual([false, null, []])
    expect(await get(at.dialled)).toBe('GET /hello')
  })

  it('refuses a server that listens, with its code', async () => {
    const server = webServer()
    await bind(server)
    await expect(bind(server)).rejects.toMatchObject({ code: 'ERR_SERVER_ALREADY_LISTEN', op: 'listen' })
    expect(() => server.listen(0)).toThrow(expect.objectContaining({ code: 'ERR_SERVER_ALREADY_LISTEN' }))
    const other = webServer()
    const both = await Promise.allSettled([bindServer(other, `unix:${path}.1`), bindServer(other, `unix:${path}.2`)])
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  })

  it('ends with its signal', async () => {
    const reason = new Error('enough')
    const server = webServer()
    const early = bind(server, { signal: AbortSignal.abort(reason) })
    await expect(early).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect([server.listening, readdirSync(dir)]).toEqual([false, []])
    const stop = new AbortController()
    await bind(server, { signal: stop.signal })
    stop.abort()
    await once(server, 'close')
    expect([server.listening, readdirSync(dir)]).toEqual([false, []])
  })

  it('closes at the end of its block', async () => {
    const server = webServer()
    {
      await using bound = await bind(server)
      expect(bound.address).toBeDefined()
      expect(server.listening).toBe(true)
    }
    expect([server.listening, readdirSync(dir)]).toEqual([false, []])
  })

  it('takes no more than maxConnections', async () => {
    const server = owned(createServer((socket) => socket.on('error', () => {}).resume()))
    server.maxConnections = 1
    await bind(server)
    const first = await connect(at.dialled)
    await vi.waitFor(async () => expect(await connectionsOf(server)).toBe(1))
    const dropped = once(server, 'drop')
    const second = await connect(at.dialled)
    await Promise.all([once(second.on('error', () => {}).resume(), 'end'), dropped])
    expect(await connectionsOf(server)).toBe(1)
    first.destroy()
    second.destroy()
  })

  it("has its own way with the peer's EOF", async () => {
    const server = owned(createServer((socket) => socket.resume()))
    await bind(server)
    const socket = await connect(at.dialled)
    socket.end('the server answers the end with its own')
    await once(socket.resume(), 'end')
  })
})

async function connectionsOf(server: Server): Promise<number> {
  return new Promise((resolve, reject) => server.getConnections((error, count) => (error ? reject(error) : resolve(count))))
}

it('says that it listens before it hands over a connection that came early', async () => {
  const actual = await vi.importActual<typeof import('@upcall/foundation/unix-path')>('@upcall/foundation/unix-path')
  const client = new Socket()
  vi.mocked(takePath).mockImplementationOnce(async (...args) => {
    const release = await actual.takePath(...args)
    await once(client.connect(path), 'connect')
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    return release
  })
  const events: string[] = []
  const server = owned(createServer((socket) => socket.destroy()))
  for (const event of ['listening', 'connection']) server.on(event, () => events.push(event))
  await bindServer(server, `unix:${path}`)
  await vi.waitFor(() => expect(events).toEqual(['listening', 'connection']))
  client.destroy()
})

describe('the socket file of a server', () => {
  it('has its mode, is taken over from a dead server, and goes with server.close()', async () => {
    const dead = createServer()
    await new Promise<void>((resolve) => dead.listen(`${path}.dead`, resolve))
    linkSync(`${path}.dead`, path)
    await new Promise((resolve) => dead.close(resolve))
    expect(existsSync(path)).toBe(true)

    const server = webServer()
    await bindServer(server, `unix:${path}`, { mode: 0o600 })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(await get(`unix:${path}`)).toBe('GET /hello')
    await new Promise((resolve) => server.close(resolve))
    expect(readdirSync(dir)).toEqual([])
  })

  it('replaces neither another file nor that of listen()', async () => {
    writeFileSync(path, 'precious')
    await expect(bindServer(webServer(), `unix:${path}`)).rejects.toMatchObject({ code: 'EADDRINUSE' })
    expect(readFileSync(path, 'utf8')).toBe('precious')
    await using listening = await listen(`unix:${path}.2`)
    expect(listening.address).toBeDefined()
    await expect(bindServer(webServer(), `unix:${path}.2`)).rejects.toMatchObject({ code: 'EADDRINUSE' })
  })
})

describe('arguments', () => {
  it.each([[undefined], [null], [{}], ['unix:/x'], [{ listen() {}, close() {} }]])(
    '%j is refused as a server',
    async (server) => {
      await expect(bindServer(server as Server, `unix:${path}`)).rejects.toThrow('server: must be a net.Server')
    },
  )

  it('bad addresses and options are refused before anything is made', async () => {
    await expect(bindServer(webServer(), path)).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
    await expect(bindServer(webServer(), `unix:${path}`, { backlog: 0 })).rejects.toThrow(RangeError)
    await expect(bindServer(webServer(), `unix:${path}`, { lingerMs: -1 })).rejects.toThrow(RangeError)
    await expect(bindServer(webServer(), `unix:${path}`, { signal: 1 as never })).rejects.toThrow(TypeError)
    expect(readdirSync(dir)).toEqual([])
  })
})

it("lets the process exit if the server was unref'd, before or after", async () => {
  const pipes = () => process.getActiveResourcesInfo().filter((name) => name.startsWith('Pipe')).length
  const server = owned(createServer())
  server.unref()
  await bindServer(server, `unix:${path}`)
  // Without a turn of the event loop between two counts: pipes of other tests close in one.
  const others = pipes()
  server.unref()
  expect(pipes()).toBe(others)
  server.ref()
  expect(pipes()).toBe(others + 1)
  server.unref()
  expect(pipes()).toBe(others)
})

describe.runIf(addon)('a listener of AF_VSOCK that fails', () => {
  it('closes its server although an error listener throws', async () => {
    using uncaught = catchUncaught()
    const { binding } = standInForVsock(addon as Binding)
    vi.spyOn(loader, 'loadBinding').mockReturnValue({
      ...binding,
      accept() {
        throw Object.assign(new Error('accept'), { code: 'EIO' })
      },
    })
    const bug = new Error('a bug')
    const fail = () => {
      throw bug
    }
    const server = owned(createServer()).on('error', fail)
    await bindServer(server, 'vsock://any:80')
    const listening = (await listen('vsock://any:81')).on('error', fail)
    const closed = [once(server, 'close'), new Promise<void>((resolve) => listening.once('close', resolve))]
    for (const port of [80, 81]) {
      const client = await connect(`vsock://local:${port}`)
      client.on('error', () => {}).resume()
      expect(await uncaught.next()).toBe(bug)
      client.destroy()
    }
    await Promise.all(closed)
    expect(server.listening).toBe(false)
  })

  it('is told to an error listener, and closes the server when it is over', async () => {
    const codes = ['EMFILE', 'EIO']
    const { binding } = standInForVsock(addon as Binding)
    vi.spyOn(loader, 'loadBinding').mockReturnValue({
      ...binding,
      accept() {
        throw Object.assign(new Error('accept'), { code: codes.shift() })
      },
    })
    const clock = {
      now: () => 0,
      setTimer(_ms: number, fn: () => void) {
        setImmediate(fn)
        return () => {}
      },
    }
    const server = owned(createServer())
    await bindServer(server, 'vsock://any:80', { clock })
    const errors: unknown[] = []
    server.on('error', (error) => errors.push(error))
    const client = await connect('vsock://local:80')
    client.on('error', () => {})
    await new Promise<void>((resolve) => server.once('close', resolve))
    expect(errors).toMatchObject([
      { code: 'EMFILE', op: 'listen' },
      { code: 'EIO', op: 'listen' },
    ])
    client.destroy()
  })
})
