// What VsockAgent, createConnection and connector have beyond a TCP agent: an address by hostname, aborts while a guest boots, refusals.
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import { connect, connector, createConnection, listenHybrid, type RequestTarget, VsockAgent, VsockSocket } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { withSocketPath } from '../support/hybrid.js'
import { withMuteVmm } from '../support/mute-vmm.js'

function get(options: http.RequestOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    http
      .get(options, (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (chunk) => (body += chunk))
        response.on('end', () => resolve(body)).on('error', reject)
      })
      .on('error', reject)
  })
}

/** Some VMs: each has a hybrid socket and answers with its name, and with the number of connections that it has had. */
async function startVms(directory: string, names: readonly string[]): Promise<AsyncDisposable> {
  const servers = names.map((name) => {
    let connections = 0
    const server = http.createServer({ keepAliveTimeout: 0 }, (_request, response) => void response.end(`${name} ${connections}`))
    server.on('connection', () => connections++)
    return { name, server }
  })
  const vmms = await Promise.all(
    servers.map(async ({ name, server }) => {
      await new Promise<void>((resolve) => server.listen(`${directory}-${name}.guest`, resolve))
      return listenHybrid({
        path: `${directory}-${name}`,
        route: (port) => (port === 80 ? connect(`unix:${directory}-${name}.guest`, { allowHalfOpen: true }) : undefined),
      })
    }),
  )
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(vmms.map((vmm) => vmm.close()))
      for (const { server } of servers) {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      }
    },
  }
}

function lost(): never {
  throw new RangeError('no such VM')
}

describe('an address by hostname', () => {
  const names = Array.from({ length: 100 }, (_, i) => `vm-${i}`)

  it('one agent serves a hundred VMs, and never mixes their sockets', () =>
    withSocketPath(async (path) => {
      await using _vms = await startVms(path, names)
      const asked: RequestTarget[] = []
      const agent = new VsockAgent(
        (target) => {
          asked.push(target)
          return `hvsock://${path}-${target.hostname}:80`
        },
        { keepAlive: true, maxSockets: 1 },
      )
      for (let round = 0; round < 3; round++) {
        // Twice each at once: the second waits for the socket of the first.
        const answers = await Promise.all([...names, ...names].map((host) => get({ host, agent })))
        expect(answers).toEqual([...names, ...names].map((name) => `${name} 1`))
      }
      expect(Object.keys(agent.freeSockets).length).toBe(100)
      expect(asked.length).toBe(600)
      expect(asked[0]).toEqual({ hostname: 'vm-0', port: 80, protocol: 'http:' })
      agent.destroy()
    }))

  it('maxTotalSockets counts over all VMs', () =>
    withSocketPath(async (path) => {
      await using _vms = await startVms(path, names.slice(0, 10))
      const agent = new VsockAgent(({ hostname }) => `hvsock://${path}-${hostname}:80`, { maxTotalSockets: 2 })
      let most = 0
      const opened: typeof agent.createConnection = agent.createConnection
      const open = new Set<net.Socket>()
      agent.createConnection = (...given): net.Socket => {
        const socket: net.Socket = opened.apply(agent, given) as net.Socket
        open.add(socket)
        most = Math.max(most, open.size)
        return socket.once('close', () => open.delete(socket))
      }
      const hosts = names.slice(0, 10)
      expect(await Promise.all(hosts.map((host) => get({ host, agent })))).toEqual(hosts.map((name) => `${name} 1`))
      expect(most).toBe(2)
    }))

  it('a fixed address has one pool, whatever the requests call it', () =>
    withSocketPath(async (path) => {
      await using _vms = await startVms(path, ['vm'])
      const agent = new VsockAgent(`hvsock://${path}-vm:80`, { keepAlive: true })
      for (const host of ['one', 'two', 'three:8080']) expect(await get({ host, agent })).toBe('vm 1')
      agent.destroy()
    }))

  const faults: [string, () => unknown, object][] = [
    ['throws', lost, { name: 'RangeError', message: 'no such VM' }],
    ['gives what is not an address', () => 'vm-1', { name: 'AddressError' }],
    ['gives a promise', () => Promise.resolve('unix:/x'), { name: 'AddressError' }],
    ['gives a port that cannot be dialled', () => 'vsock://3:any', { name: 'RangeError' }],
  ]
  it.each(faults)('a function that %s fails its request, and no other', async (_, find, error) => {
    const address = find as () => string
    const agent = new VsockAgent(address, { maxSockets: 1 })
    await expect(Promise.all([get({ host: 'a', agent }), get({ host: 'b', agent })])).rejects.toMatchObject(error)
    await expect(get({ createConnection: createConnection(address) })).rejects.toMatchObject(error)
    const plain = Object.assign(new http.Agent(), { createConnection: createConnection(address) })
    await expect(get({ agent: plain })).rejects.toMatchObject(error)
    const refused = new Promise<unknown>((resolve) => {
      connector(address)({ hostname: 'a', protocol: 'http:', port: '' }, (...result) => resolve(result[0]))
    })
    expect(await refused).toMatchObject(error)
    const session = http2.connect('http://vm', { createConnection: createConnection(address) })
    expect(await new Promise((resolve) => session.once('error', resolve))).toMatchObject(error)
    expect([agent.sockets, agent.freeSockets, agent.requests]).toMatchObject([{}, {}, {}])
  })

  it('http2 and the connector ask by hostname, too', () =>
    withSocketPath(async (path) => {
      const asked: RequestTarget[] = []
      const address = (target: RequestTarget) => {
        asked.push(target)
        return `unix:${path}`
      }
      const server = http2.createServer((_request, response) => void response.end())
      await new Promise<void>((resolve) => server.listen(path, resolve))
      const session = http2.connect('http://vm-7:81', { createConnection: createConnection(address) })
      await new Promise((resolve) => session.once('connect', resolve))
      session.destroy()
      await new Promise<void>((resolve) => {
        connector(address)({ hostname: 'vm-8', protocol: 'http:', port: '' }, (...[, socket]) => {
          socket?.destroy()
          resolve()
        })
      })
      expect(asked).toEqual([
        { hostname: 'vm-7', port: 81, protocol: 'http:' },
        { hostname: 'vm-8', port: 80, protocol: 'http:' },
      ])
      await new Promise((resolve) => server.close(resolve))
    }))
})

describe('while the guest boots', () => {
  const patient = { timeoutMs: 60_000 }
  const ways: [string, (address: string) => http.RequestOptions][] = [
    ['VsockAgent', (address) => ({ agent: new VsockAgent(address, { connect: patient }) })],
    ['VsockAgent with retries', (address) => ({ agent: new VsockAgent(address, { connect: { retry: { budgetMs: 60_000 } } }) })],
    ['createConnection', (address) => ({ createConnection: createConnection(address, patient) })],
  ]

  it.each(ways)('%s: a request that is aborted ends at once, and gives the connecting up', (_, how) =>
    withMuteVmm(async ({ address, dialers }) => {
      const aborting = new AbortController()
      const answer = get({ ...how(address), signal: aborting.signal })
      answer.catch(() => {})
      await expect.poll(() => dialers.size).toBe(1)
      aborting.abort()
      await expect(answer).rejects.toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' })
      await expect.poll(() => dialers.size).toBe(0)
    }),
  )

  it('AbortSignal.timeout() holds', () =>
    withMuteVmm(async ({ address, dialers }) => {
      const started = performance.now()
      const agent = new VsockAgent(address, { connect: patient })
      await expect(get({ agent, signal: AbortSignal.timeout(300) })).rejects.toMatchObject({ name: 'AbortError' })
      expect(performance.now() - started).toBeLessThan(20_000)
      await expect.poll(() => dialers.size).toBe(0)
    }))

  it("the agent's own timeout and the request's hold", () =>
    withMuteVmm(async ({ address, dialers }) => {
      for (const options of [
        { agent: new VsockAgent(address, { timeout: 50, connect: patient }) },
        { agent: new VsockAgent(address, { connect: patient }), timeout: 50 },
      ]) {
        const request = http.get(options)
        request.on('error', () => {})
        await new Promise((resolve) => request.once('timeout', resolve))
        request.destroy()
        await expect.poll(() => dialers.size).toBe(0)
      }
    }))

  it('a request that waits for its turn is aborted, too', () =>
    withMuteVmm(async ({ address, dialers }) => {
      const agent = new VsockAgent(address, { maxSockets: 1, connect: patient })
      const first = get({ agent, signal: AbortSignal.timeout(500) })
      first.catch(() => {})
      const second = get({ agent, signal: AbortSignal.timeout(50) })
      await expect(Promise.all([first, second])).rejects.toMatchObject({ name: 'AbortError' })
      await expect(first).rejects.toMatchObject({ name: 'AbortError' })
      await expect.poll(() => dialers.size).toBe(0)
    }))

  it('destroy() of the agent gives its connecting up', () =>
    withMuteVmm(async ({ address, dialers }) => {
      const agent = new VsockAgent(address, { connect: patient })
      const answer = get({ agent })
      answer.catch(() => {})
      await expect.poll(() => dialers.size).toBe(1)
      agent.destroy()
      await expect(answer).rejects.toMatchObject({ code: 'ECONNRESET' })
      await expect.poll(() => dialers.size).toBe(0)
    }))

  it('the time limit of the connecting is the error of the request', () =>
    withMuteVmm(async ({ address }) => {
      const agent = new VsockAgent(address, { connect: { timeoutMs: 50 } })
      await expect(get({ agent })).rejects.toMatchObject({ name: 'VsockError', code: 'ETIMEDOUT', op: 'connect' })
    }))

  it('the signal of the agent ends its sockets', () =>
    withMuteVmm(async ({ address, dialers }) => {
      const own = new AbortController()
      const agent = new VsockAgent(address, { connect: { ...patient, signal: own.signal } })
      const answer = get({ agent })
      answer.catch(() => {})
      await expect.poll(() => dialers.size).toBe(1)
      own.abort('enough')
      await expect(answer).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
    }))
})

describe('https:', () => {
  it('is refused, and nothing is sent in the clear', () =>
    withSocketPath(async (path) => {
      let connections = 0
      const server = net.createServer((socket) => {
        connections++
        socket.destroy()
      })
      await new Promise<void>((resolve) => server.listen(path, resolve))
      const address = `unix:${path}`
      expect(() => https.get('https://guest/', { agent: new VsockAgent(address) as unknown as https.Agent })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_PROTOCOL' }) as Error,
      )
      const refusal = { code: 'ENOTSUP', message: expect.stringContaining('tls.connect') as string }
      const request = https.get('https://guest/', { createConnection: createConnection(address) as never })
      expect(await new Promise((resolve) => request.once('error', resolve))).toMatchObject(refusal)
      const session = http2.connect('https://guest', { createConnection: createConnection(address) })
      expect(await new Promise((resolve) => session.once('error', resolve))).toMatchObject(refusal)
      expect(connections).toBe(0)
      await new Promise((resolve) => server.close(resolve))
    }))
})

describe('what is wrong is refused where it is written', () => {
  it.each([
    ['VsockAgent', (address: never, connect: never) => new VsockAgent(address, { connect })],
    ['createConnection', createConnection as (address: never, connect: never) => unknown],
    ['connector', connector as (address: never, connect: never) => unknown],
  ])('%s', (_, make) => {
    expect(() => make('hvsock://x' as never, {} as never)).toThrow(/no port/)
    expect(() => make(5 as never, {} as never)).toThrow(/address 5/)
    expect(() => make('vsock://any:1' as never, {} as never)).toThrow(RangeError)
    expect(() => make('unix:/x' as never, { timeoutMs: -1 } as never)).toThrow(/timeoutMs/)
  })
})

it('createConnection gives a socket at once', () => {
  const socket = createConnection('unix:/nowhere')({})
  expect(socket).toBeInstanceOf(VsockSocket)
  expect(socket.connecting).toBe(true)
  socket.on('error', () => {}).destroy()
})
