// undici over `connector()`. Both of its lines run here; undici 8 needs Node 22.19.
import http from 'node:http'
import type { Socket } from 'node:net'
import { connector, isVsockError } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
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
  afterEach(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await way[Symbol.asyncDispose]()
  })

  describe.each(ourWays)('over $name', (kind) => {
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
})
