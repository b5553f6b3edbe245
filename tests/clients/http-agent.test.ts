// http.Agent and VsockAgent, side by side: what Node's client does over `net`, it has to do over every address.
import { readdirSync } from 'node:fs'
import http from 'node:http'
import type net from 'node:net'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { allWays, type Way } from '../support/ways.js'

interface Answer {
  status: number | undefined
  body: string
  reused: boolean
}

function get(agent: http.Agent, options: http.RequestOptions = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: 'guest', agent, ...options }, (response) => {
      let body = ''
      response
        .setEncoding('utf8')
        .on('data', (chunk) => (body += chunk))
        .on('end', () => resolve({ status: response.statusCode, body, reused: request.reusedSocket }))
        .on('error', reject)
    })
    request.on('error', reject)
  })
}

const freeSockets = (agent: http.Agent) => Object.values(agent.freeSockets).flatMap((list) => list ?? [])
const usedSockets = (agent: http.Agent) => Object.values(agent.sockets).flatMap((list) => list ?? [])
const descriptors = () => readdirSync('/proc/self/fd').length

describe.each(allWays)('an agent over $name', (kind) => {
  let way: Way
  let server: http.Server
  let connections: Set<Socket>
  let accepted: number
  let most: number
  const agents: http.Agent[] = []

  const agentWith = (options: http.AgentOptions) => {
    const agent = way.agent(options)
    agents.push(agent)
    return agent
  }

  beforeEach(async () => {
    way = await kind.open()
    connections = new Set()
    accepted = most = 0
    server = http.createServer({ keepAliveTimeout: 0 }, (request, response) => void response.end(request.url))
    server.on('connection', (socket: Socket) => {
      accepted++
      connections.add(socket)
      most = Math.max(most, connections.size)
      socket.once('close', () => connections.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(way.path, resolve))
  })
  afterEach(async () => {
    for (const agent of agents.splice(0)) agent.destroy()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await way[Symbol.asyncDispose]()
  })

  it('forgets an idle socket that the server closes, and makes a new one', async () => {
    const agent = agentWith({ keepAlive: true })
    expect(await get(agent, { path: '/1' })).toEqual({ status: 200, body: '/1', reused: false })
    await expect.poll(() => freeSockets(agent).length).toBe(1)
    const [idle] = freeSockets(agent)
    for (const socket of connections) socket.end()
    await expect.poll(() => freeSockets(agent).length).toBe(0)
    await expect.poll(() => idle!.destroyed).toBe(true)
    expect(await get(agent, { path: '/2' })).toEqual({ status: 200, body: '/2', reused: false })
    expect(accepted).toBe(2)
  })

  it('200 idle sockets that the server closes leave no descriptor', async () => {
    const before = descriptors()
    const agent = agentWith({ keepAlive: true, maxFreeSockets: 200 })
    await Promise.all(Array.from({ length: 200 }, () => get(agent)))
    expect(accepted).toBe(200)
    await expect.poll(() => freeSockets(agent).length).toBe(200)
    for (const socket of connections) socket.end()
    await expect.poll(() => freeSockets(agent).length).toBe(0)
    await expect.poll(descriptors).toBeLessThanOrEqual(before)
  })

  it.each([{ maxSockets: 2 }, { maxTotalSockets: 2 }])('obeys %o', async (limit) => {
    const agent = agentWith({ keepAlive: true, ...limit })
    const paths = Array.from({ length: 20 }, (_, i) => `/${i}`)
    const answers = await Promise.all(paths.map((path) => get(agent, { path })))
    expect(answers.map(({ body }) => body)).toEqual(paths)
    expect([accepted, most]).toEqual([2, 2])
  })

  it('obeys maxFreeSockets', async () => {
    const agent = agentWith({ keepAlive: true, maxFreeSockets: 3 })
    await Promise.all(Array.from({ length: 10 }, () => get(agent)))
    await expect.poll(() => connections.size).toBe(3)
    expect(freeSockets(agent).length).toBe(3)
  })

  it('without keepAlive closes each socket after its answer', async () => {
    const agent = agentWith({ keepAlive: false })
    for (const path of ['/1', '/2']) expect(await get(agent, { path })).toMatchObject({ status: 200, body: path, reused: false })
    await expect.poll(() => connections.size).toBe(0)
    await expect.poll(() => usedSockets(agent).length).toBe(0)
    expect(freeSockets(agent)).toEqual([])
  })

  it('emits "timeout" for a server that does not answer in time', async () => {
    server.removeAllListeners('request')
    const agent = agentWith({ keepAlive: true, timeout: 50 })
    const request = http.get({ host: 'guest', agent })
    request.on('error', () => {})
    await new Promise((resolve) => request.once('timeout', resolve))
    request.destroy()
    await expect.poll(() => connections.size).toBe(0)
  })

  it('destroy() closes what is idle', async () => {
    const agent = agentWith({ keepAlive: true })
    await Promise.all([get(agent), get(agent)])
    await expect.poll(() => freeSockets(agent).length).toBe(2)
    agent.destroy()
    await expect.poll(() => connections.size).toBe(0)
  })

  it('a request that is destroyed in its answer closes its socket', async () => {
    server.removeAllListeners('request').on('request', (_request, response: http.ServerResponse) => void response.write('some'))
    const agent = agentWith({ keepAlive: true })
    const request = http.get({ host: 'guest', agent })
    const response = await new Promise<http.IncomingMessage>((resolve) => request.once('response', resolve))
    response.on('error', () => {})
    request.destroy()
    await expect.poll(() => connections.size).toBe(0)
    await expect.poll(() => usedSockets(agent).length).toBe(0)
    expect(freeSockets(agent)).toEqual([])
  })

  it('a socket that the server resets gives ECONNRESET, and the agent goes on', async () => {
    server.removeAllListeners('request').on('request', (request: http.IncomingMessage) => void request.socket.destroy())
    const agent = agentWith({ keepAlive: true })
    await expect(get(agent)).rejects.toMatchObject({ code: 'ECONNRESET' })
    server.removeAllListeners('request').on('request', (_request, response: http.ServerResponse) => void response.end('later'))
    expect((await get(agent)).body).toBe('later')
    await expect.poll(() => usedSockets(agent).length).toBe(0)
  })

  it('upgrades', async () => {
    server.on('upgrade', (_request, socket: Socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n')
      socket.pipe(socket)
    })
    const agent = agentWith({ keepAlive: true })
    const request = http.get({ host: 'guest', agent, headers: { connection: 'upgrade', upgrade: 'echo' } })
    const socket = await new Promise<net.Socket>((resolve) =>
      request.once('upgrade', (_response, given) => resolve(given as net.Socket)),
    )
    const echoed = new Promise((resolve) => socket.once('data', resolve))
    socket.write('hello')
    expect(String(await echoed)).toBe('hello')
    socket.destroy()
    await expect.poll(() => connections.size).toBe(0)
  })
})
