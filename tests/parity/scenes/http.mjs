// Node's http over sockets that the stage connects: agents, aborts, upgrades, and servers that close.
import { once } from 'node:events'
import http from 'node:http'
import { PassThrough, pipeline } from 'node:stream'
import { codeOf } from '../log.mjs'
import { scene } from '../stage.mjs'

/** @typedef {import('../stage.mjs').Stage} Stage */
/** @typedef {import('../log.mjs').Log} Log */

const turn = () => new Promise((resolve) => setImmediate(resolve))
/** @param {Record<string, unknown[] | undefined>} lists */
const count = (lists) => Object.values(lists).reduce((sum, list) => sum + (list?.length ?? 0), 0)
/** @param {http.Agent} agent */
const countsOf = (agent) =>
  `in use ${count(/** @type {never} */ (agent.sockets))}, free ${count(/** @type {never} */ (agent.freeSockets))}, waiting ${count(/** @type {never} */ (agent.requests))}`

/**
 * Requests, and logs what comes of it. Resolves when the request has closed.
 *
 * @param {Log} log @param {http.RequestOptions} options @param {string | undefined} [body]
 */
function ask(log, options, body) {
  const request = http.request(options)
  request.on('error', (error) => log.note(`request error ${codeOf(error)}`))
  request.on('timeout', () => log.note('request timeout'))
  request.on('abort', () => log.note('request abort'))
  request.on('continue', () => log.note('request continue'))
  request.on('response', (response) => {
    log.note(`response ${response.statusCode} reused ${request.reusedSocket}`)
    response.on('data', (chunk) => log.data(chunk))
    response.on('end', () => log.note(`response end complete ${response.complete} ${JSON.stringify(response.trailers)}`))
    response.on('error', (error) => log.note(`response error ${codeOf(error)}`))
    response.on('close', () => log.note('response close'))
  })
  const closed = new Promise((resolve) =>
    request.on('close', () => {
      log.note(`request close destroyed ${request.destroyed}`)
      resolve(undefined)
    }),
  )
  if (body !== undefined) request.end(body)
  return { request, closed }
}

/** @param {Stage} stage @param {http.RequestListener} answer @param {http.ServerOptions} [options] */
async function serve(stage, answer, options = {}) {
  const server = http.createServer(options, answer)
  /** @type {Set<import('node:net').Socket>} */
  const open = new Set()
  let connections = 0
  server.on('connection', (socket) => {
    connections++
    open.add(socket)
    socket.once('close', () => open.delete(socket))
  })
  await stage.listen(server)
  stage.later(() => server.closeAllConnections())
  return { server, open, connections: () => connections }
}

export const requests = [
  scene('keep-alive: three requests, one connection', async (stage) => {
    const { connections } = await serve(stage, (request, response) => response.end(request.url))
    const agent = stage.agent(http, { keepAlive: true })
    const log = stage.log('client')
    for (const path of ['/one', '/two', '/three']) {
      await ask(log, { agent, path }, '').closed
      while (count(/** @type {never} */ (agent.freeSockets)) === 0) await turn()
      log.note(countsOf(agent))
    }
    log.note(`${connections()} connections`)
  }),

  scene(
    'keep-alive: the server closes the idle connection, and the agent forgets it',
    async (stage) => {
      const { server, connections } = await serve(stage, (_, response) => response.end('ok'))
      const agent = stage.agent(http, { keepAlive: true })
      const log = stage.log('client')
      await ask(log, { agent }, '').closed
      while (count(/** @type {never} */ (agent.freeSockets)) === 0) await turn()
      server.closeIdleConnections()
      while (count(/** @type {never} */ (agent.freeSockets)) > 0) await turn()
      log.note(countsOf(agent))
      await ask(log, { agent }, '').closed
      log.note(`${connections()} connections`)
    },
    { needs: ['server'] },
  ),

  scene('keep-alive: keepAliveTimeout of the server ends idle connections', async (stage) => {
    const { open, server } = await serve(stage, (_, response) => response.end('ok'), { keepAliveTimeout: 50 })
    server.keepAliveTimeout = 50
    const agent = stage.agent(http, { keepAlive: true })
    const log = stage.log('client')
    await Promise.all(Array.from({ length: 10 }, () => ask(stage.log('many'), { agent }, '').closed))
    while (open.size > 0 || count(/** @type {never} */ (agent.freeSockets)) > 0) await turn()
    stage.log('many').lines.splice(0)
    log.note(countsOf(agent))
  }),

  scene('maxSockets: twenty requests, two connections', async (stage) => {
    let most = 0
    const { open, connections } = await serve(stage, (_, response) => {
      most = Math.max(most, open.size)
      setImmediate(() => response.end('ok'))
    })
    const agent = stage.agent(http, { keepAlive: true, maxSockets: 2 })
    const all = Array.from({ length: 20 }, () => ask(stage.log('many'), { agent }, '').closed)
    stage.log('client').note(countsOf(agent))
    await Promise.all(all)
    stage.log('many').lines.splice(0)
    stage.log('client').note(`at most ${most} connections, ${connections()} in all`)
  }),

  scene('maxTotalSockets and maxFreeSockets', async (stage) => {
    const { connections } = await serve(stage, (_, response) => response.end('ok'))
    const agent = stage.agent(http, { keepAlive: true, maxTotalSockets: 3, maxFreeSockets: 1 })
    const all = Array.from({ length: 9 }, (_, i) => ask(stage.log('many'), { agent, host: `host-${i % 2}` }, '').closed)
    await Promise.all(all)
    stage.log('many').lines.splice(0)
    stage.log('client').note(`${connections() <= 9} ${countsOf(agent).endsWith('waiting 0')}`)
  }),

  scene('without keep-alive the connection closes', async (stage) => {
    const { open } = await serve(stage, (_, response) => response.end('ok'))
    const agent = stage.agent(http, { keepAlive: false })
    const log = stage.log('client')
    await ask(log, { agent }, '').closed
    while (open.size > 0 || count(/** @type {never} */ (agent.sockets)) > 0) await turn()
    log.note(countsOf(agent))
  }),

  scene('a body each way, with trailers', async (stage) => {
    await serve(stage, (request, response) => {
      response.writeHead(200, { trailer: 'x-sum' })
      request.on('end', () => response.addTrailers({ 'x-sum': 'done' }))
      pipeline(request, new PassThrough(), response, () => {})
    })
    const log = stage.log('client')
    const { request, closed } = ask(log, { agent: stage.agent(http), method: 'POST' })
    request.write(Buffer.alloc(300_000, 'b'))
    request.end('last')
    await closed
  }),

  scene('nothing listens', async (stage) => {
    await ask(stage.log('client'), { agent: stage.agent(http) }, 'body').closed
  }),

  scene('the server destroys the connection before it answers', async (stage) => {
    await serve(stage, (request) => request.socket.destroy())
    await ask(stage.log('client'), { agent: stage.agent(http) }, '').closed
  }),

  scene('the server destroys the connection in the middle of its answer', async (stage) => {
    const log = stage.log('client')
    await serve(stage, (_, response) => {
      response.writeHead(200, { 'content-length': '10' })
      response.write('half.')
      void log.heard(5).then(() => response.socket?.destroy())
    })
    await ask(log, { agent: stage.agent(http) }, '').closed
  }),

  scene('the client destroys the request: the server sees it close', async (stage) => {
    const serverLog = stage.log('server')
    await serve(stage, (request, response) => {
      request.on('aborted', () => serverLog.note('request aborted'))
      request.on('close', () => serverLog.note('request close'))
      response.on('close', () => serverLog.note(`response close finished ${response.writableFinished}`))
      serverLog.note('request')
    })
    const { request, closed } = ask(stage.log('client'), { agent: stage.agent(http) }, '')
    await serverLog.saw('request')
    request.destroy()
    await closed
    await serverLog.saw('response close')
  }),

  scene('a signal aborts before the connection, and while the answer is waited for', async (stage) => {
    const serverLog = stage.log('server')
    await serve(stage, () => serverLog.note('request'))
    const agent = stage.agent(http)
    const early = new AbortController()
    const one = ask(stage.log('early'), { agent, signal: early.signal }, '')
    early.abort()
    await one.closed
    const late = new AbortController()
    const two = ask(stage.log('late'), { agent, signal: late.signal, path: '/late' }, '')
    await stage.log('server').saw('request')
    late.abort()
    await two.closed
  }),

  scene('the timeout of a request', async (stage) => {
    await serve(stage, () => {})
    const { request, closed } = ask(stage.log('client'), { agent: stage.agent(http), timeout: 50 }, '')
    request.on('timeout', () => request.destroy())
    await closed
  }),

  scene('the timeout of an agent', async (stage) => {
    await serve(stage, () => {})
    const { request, closed } = ask(stage.log('client'), { agent: stage.agent(http, { timeout: 50 }) }, '')
    request.on('timeout', () => request.destroy())
    await closed
  }),

  scene('Expect: 100-continue', async (stage) => {
    await serve(stage, (request, response) => void request.pipe(response))
    const log = stage.log('client')
    const headers = { expect: '100-continue' }
    const { request, closed } = ask(log, { agent: stage.agent(http), method: 'POST', headers })
    request.flushHeaders()
    await log.saw('request continue')
    request.end('the body')
    await closed
  }),

  scene('upgrade: bytes with the answer, and both ends end', async (stage) => {
    const { server } = await serve(stage, () => {})
    server.on('upgrade', (_, socket, head) => {
      stage.log('server').note(`upgrade ${head.length}`)
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst ')
      socket.pipe(socket)
      socket.on('close', () => stage.log('server').note('close'))
    })
    const log = stage.log('client')
    const request = http.request({
      agent: stage.agent(http),
      headers: { connection: 'upgrade', upgrade: 'echo' },
    })
    request.end()
    const [response, socket, head] = await once(request, 'upgrade')
    log.note(`upgraded ${response.statusCode}`)
    log.data(head)
    socket.on('data', (/** @type {Buffer} */ chunk) => log.data(chunk))
    socket.on('end', () => log.note('end'))
    socket.on('error', (/** @type {Error} */ error) => log.note(`error ${codeOf(error)}`))
    socket.on('close', () => log.note('close'))
    socket.write('second')
    await log.heard(12)
    socket.end()
    await log.saw('close')
    await stage.log('server').saw('close')
  }),

  scene('agent.destroy closes the free connections', async (stage) => {
    const { open } = await serve(stage, (_, response) => response.end('ok'))
    const agent = stage.agent(http, { keepAlive: true })
    const log = stage.log('client')
    await ask(log, { agent }, '').closed
    while (count(/** @type {never} */ (agent.freeSockets)) === 0) await turn()
    agent.destroy()
    while (open.size > 0 || count(/** @type {never} */ (agent.freeSockets)) > 0) await turn()
    log.note(countsOf(agent))
  }),

  scene(
    'server.close ends when the last answer has been sent',
    async (stage) => {
      const serverLog = stage.log('server')
      /** @type {http.ServerResponse | undefined} */
      let waiting
      const { server } = await serve(stage, (_, response) => {
        waiting = response
        serverLog.note('request')
      })
      server.on('close', () => serverLog.note('close'))
      const { closed } = ask(stage.log('client'), { agent: stage.agent(http, { keepAlive: false }) }, '')
      await serverLog.saw('request')
      server.close()
      await turn()
      waiting?.end('the last one')
      await closed
      await serverLog.saw('close')
    },
    { needs: ['server'] },
  ),

  scene('a malformed request', async (stage) => {
    const { server } = await serve(stage, () => {})
    server.on('clientError', (error, socket) => {
      stage.log('server').note(`clientError ${codeOf(error)}`)
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')
    })
    const socket = stage.connect()
    const log = stage.log('client')
    socket.on('data', (chunk) => log.data(chunk))
    socket.on('close', (hadError) => log.note(`close ${hadError}`))
    socket.write('nonsense\r\n\r\n')
    await log.saw('close')
  }),
]
