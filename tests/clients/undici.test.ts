// undici over `connector()`. Both of its lines run here; undici 8 needs Node 22.19.
import http from 'node:http'
import type { Socket } from 'node:net'
import { connector, isVsockError } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { withSocketPath } from '../support/hybrid.js'
import { withMuteVmm } from '../support/mute-vmm.js'
import { ourWays, type Way } from '../support/ways.js'

type Undici = typeof import('undici')

const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const has8 = major > 22 || (major === 22 && minor >= 19)

// The types of both lines are alike in what is used here.
const load = { 7: () => import('undici'), 8: () => import('undici-8') as unknown as Promise<Undici> } as const
const versions = has8 ? ([7, 8] as const) : ([7] as const)

it.skipIf(has8)('undici 8 is not tried: it needs Node 22.19', () => expect(has8).toBe(false))

describe.each(versions)('undici %i', (version) => {
  let undici: Undici
  let server: http.Server
  let way: Way
  let accepted: number
  let connections: Set<Socket>

  const start = async (kind: (typeof ourWays)[number]) => {
    undici = await load[version]()
    way = await kind.open()
    accepted = 0
    connections = new Set()
    server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => {
      if (request.url === '/hang') return
      let body = ''
      request.on('data', (chunk) => (body += chunk)).on('end', () => response.end(`${request.method} ${request.url} ${body}`))
    })
    server.on('connection', (socket: Socket) => {
      accepted++
      connections.add(socket)
      socket.once('close', () => connections.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(way.path, resolve))
  }

  describe.each(ourWays)('over $name', (kind) => {
    afterEach(async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await way[Symbol.asyncDispose]()
    })
    const connect = () => connector(way.address!, { halfClose: way.halfClose })
    beforeEach(() => start(kind))

    it('Client, Pool, Agent and fetch', async () => {
      const dispatchers = [
        new undici.Client('http://guest', { connect: connect() }),
        new undici.Pool('http://guest', { connect: connect(), connections: 2 }),
        new undici.Agent({ connect: connect() }),
      ]
      for (const dispatcher of dispatchers) {
        const { statusCode, body } = await undici.request('http://guest/one', { dispatcher, method: 'POST', body: 'x' })
        expect([statusCode, await body.text()]).toEqual([200, 'POST /one x'])
        const response = await undici.fetch('http://guest/two', { dispatcher })
        expect(await response.text()).toBe('GET /two ')
        await dispatcher.close()
      }
      await expect.poll(() => connections.size).toBe(0)
    })

    it('a pool opens as many connections as it may', async () => {
      const pool = new undici.Pool('http://guest', { connect: connect(), connections: 2 })
      const paths = Array.from({ length: 20 }, (_, i) => `/${i}`)
      const bodies = await Promise.all(paths.map(async (path) => (await pool.request({ path, method: 'GET' })).body.text()))
      expect(bodies).toEqual(paths.map((path) => `GET ${path} `))
      expect(accepted).toBe(2)
      await pool.close()
    })

    it('forgets idle sockets that the server closes', async () => {
      const pool = new undici.Pool('http://guest', { connect: connect(), connections: 4, keepAliveTimeout: 60_000 })
      const get = async () => (await pool.request({ path: '/', method: 'GET' })).body.text()
      await Promise.all([get(), get(), get(), get()])
      const before = accepted
      for (const socket of connections) socket.end()
      await expect.poll(() => pool.stats.connected).toBe(0)
      expect(await get()).toBe('GET / ')
      expect(accepted).toBe(before + 1)
      await pool.close()
    })

    it('obeys the signal of a request that waits for its answer', async () => {
      const agent = new undici.Agent({ connect: connect() })
      const aborting = new AbortController()
      const answer = undici.fetch('http://guest/hang', { dispatcher: agent, signal: aborting.signal })
      await expect.poll(() => connections.size).toBe(1)
      aborting.abort()
      await expect(answer).rejects.toMatchObject({ name: 'AbortError' })
      await expect.poll(() => connections.size).toBe(0)
      await agent.destroy()
    })

    it('tells why it could not connect', async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      const agent = new undici.Agent({ connect: connect() })
      const error: unknown = await undici.fetch('http://guest/', { dispatcher: agent }).catch((cause: unknown) => cause)
      expect(error).toMatchObject({ cause: { code: 'ECONNREFUSED', op: 'connect' } })
      expect(isVsockError((error as Error).cause)).toBe(true)
      await agent.close()
      server = http.createServer().listen(`${way.path}.other`)
    })
  })

  describe('while the guest boots', () => {
    const fetchError = (answer: Promise<unknown>) => answer.catch((error: Error) => error.cause ?? error)

    it('the signal of a fetch ends it at once', () =>
      withMuteVmm(async ({ address, dialers }) => {
        const { Agent, fetch } = await load[version]()
        const agent = new Agent({ connect: connector(address, { timeoutMs: 60_000 }) })
        const aborting = new AbortController()
        const answer = fetch('http://guest/', { dispatcher: agent, signal: aborting.signal })
        answer.catch(() => {})
        await expect.poll(() => dialers.size).toBe(1)
        aborting.abort()
        await expect(answer).rejects.toMatchObject({ name: 'AbortError' })
        // The connection is there for the next request.
        expect(dialers.size).toBe(1)
        void agent.destroy()
      }))

    // The request() of undici 7 ends with the connecting, whatever connects. That of undici 8 gives the connecting up.
    it.runIf(version === 8)('the signal of a request ends it at once, and its connection', () =>
      withMuteVmm(async ({ address, dialers }) => {
        const { Agent, request } = await load[version]()
        const agent = new Agent({ connect: connector(address, { timeoutMs: 60_000 }) })
        const aborting = new AbortController()
        const answer = request('http://guest/', { dispatcher: agent, signal: aborting.signal })
        answer.catch(() => {})
        await expect.poll(() => dialers.size).toBe(1)
        aborting.abort()
        await expect(answer).rejects.toMatchObject({ name: 'AbortError' })
        await expect.poll(() => dialers.size).toBe(0)
        await agent.destroy()
      }),
    )

    it.runIf(version === 7)('the signal of a request holds when the connecting is over', () =>
      withMuteVmm(async ({ address }) => {
        const { Agent, request } = await load[version]()
        const agent = new Agent({ connect: connector(address, { timeoutMs: 300 }) })
        const answer = request('http://guest/', { dispatcher: agent, signal: AbortSignal.timeout(10) })
        await expect(answer).rejects.toMatchObject({ code: expect.stringMatching(/ETIMEDOUT|ABORT_ERR/) as string })
        await agent.destroy()
      }),
    )

    it('timeoutMs takes the place of connectTimeout', () =>
      withMuteVmm(async ({ address }) => {
        const { Agent, fetch } = await load[version]()
        const agent = new Agent({ connectTimeout: 1, connect: connector(address, { timeoutMs: 50 }) })
        expect(await fetchError(fetch('http://guest/', { dispatcher: agent }))).toMatchObject({
          name: 'VsockError',
          code: 'ETIMEDOUT',
        })
        await agent.destroy()
      }))

    it("the connector's own signal gives the connecting up", () =>
      withMuteVmm(async ({ address, dialers }) => {
        const { Agent, fetch } = await load[version]()
        const own = new AbortController()
        const agent = new Agent({ connect: connector(address, { timeoutMs: 60_000, signal: own.signal }) })
        const error = fetchError(fetch('http://guest/', { dispatcher: agent }))
        await expect.poll(() => dialers.size).toBe(1)
        own.abort('enough')
        expect(await error).toMatchObject({ code: 'ABORTED', cause: 'enough' })
        await expect.poll(() => dialers.size).toBe(0)
        await agent.destroy()
      }))

    it('RetryAgent tries until the server is there', () =>
      withSocketPath(async (path) => {
        const { Agent, RetryAgent } = await load[version]()
        const inner = new Agent({ connect: connector(`unix:${path}`) })
        let refused = 0
        inner.on('connectionError', () => refused++)
        const agent = new RetryAgent(inner, { minTimeout: 20, maxTimeout: 50, maxRetries: 1_000 })
        const answer = agent.request({ origin: 'http://guest', path: '/', method: 'GET' })
        await expect.poll(() => refused).toBeGreaterThan(1)
        const late = http.createServer((_request, response) => void response.end('late'))
        await new Promise<void>((resolve) => late.listen(path, resolve))
        expect(await (await answer).body.text()).toBe('late')
        await agent.close()
        await new Promise((resolve) => late.close(resolve))
      }))
  })

  it('one Agent serves many VMs by hostname, and never mixes their sockets', () =>
    withSocketPath(async (path) => {
      const { Agent, fetch } = await load[version]()
      const names = Array.from({ length: 20 }, (_, i) => `vm-${i}`)
      const servers = names.map((name) => http.createServer((_request, response) => void response.end(name)))
      await Promise.all(servers.map((each, i) => new Promise<void>((resolve) => each.listen(`${path}-${names[i]}`, resolve))))
      const agent = new Agent({ connect: connector(({ hostname }) => `unix:${path}-${hostname}`) })
      for (let round = 0; round < 2; round++) {
        const answers = names.map(async (name) => (await fetch(`http://${name}/`, { dispatcher: agent })).text())
        expect(await Promise.all(answers)).toEqual(names)
      }
      await agent.close()
      await Promise.all(servers.map((each) => new Promise((resolve) => each.close(resolve))))
    }))

  // Node's own undici is 6 in Node 20 and 22, 7 in Node 24, 8 in Node 26.
  const holds = version === 7 || Number(process.versions.undici?.split('.')[0]) >= 8
  it(`${holds ? 'serves' : 'does not serve'} the global fetch of this Node as its dispatcher`, () =>
    withSocketPath(async (path) => {
      const { Agent } = await load[version]()
      const hello = http.createServer((_request, response) => void response.end('hello'))
      await new Promise<void>((resolve) => hello.listen(path, resolve))
      const dispatcher = new Agent({ connect: connector(`unix:${path}`) }) as unknown as NonNullable<RequestInit['dispatcher']>
      const answer = fetch('http://guest/', { dispatcher }).then((response) => response.text())
      if (holds) expect(await answer).toBe('hello')
      else await expect(answer).rejects.toThrow('fetch failed')
      await dispatcher.destroy()
      hello.closeAllConnections()
      await new Promise((resolve) => hello.close(resolve))
    }))
})
