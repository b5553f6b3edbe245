// undici and ws over sockets that the stage connects.
import http from 'node:http'
import { Agent, Client, fetch, Pool } from 'undici'
import { WebSocket, WebSocketServer } from 'ws'
import { codeOf } from '../log.mjs'
import { scene } from '../stage.mjs'

/** @typedef {import('../stage.mjs').Stage} Stage */

const turn = () => new Promise((resolve) => setImmediate(resolve))

/** @param {Stage} stage @param {http.RequestListener} answer */
async function serve(stage, answer) {
  const server = http.createServer(answer)
  await stage.listen(server)
  stage.later(() => server.closeAllConnections())
  return server
}

/** What undici takes as `connect`. @param {Stage} stage */
const connector =
  (stage) => (/** @type {unknown} */ _options, /** @type {(error: Error | null, socket: unknown) => void} */ done) => {
    const socket = stage.connect()
    const failed = (/** @type {Error} */ error) => done(error, null)
    socket.once('error', failed).once('connect', () => done(null, socket.off('error', failed)))
  }

/** @param {Stage} stage @param {import('undici').Dispatcher} dispatcher */
function watchDispatcher(stage, dispatcher) {
  const log = stage.log('dispatcher')
  dispatcher.on('connect', () => log.note('connect'))
  dispatcher.on('disconnect', (_origin, _targets, error) => log.note(`disconnect ${codeOf(error)}`))
  dispatcher.on('connectionError', (_origin, _targets, error) => log.note(`connectionError ${codeOf(error)}`))
  stage.later(() => dispatcher.destroy())
  return log
}

const undici = [
  scene('a client: requests one after the other, then close', async (stage) => {
    await serve(stage, (request, response) => response.end(request.url))
    const client = new Client('http://guest', { connect: /** @type {never} */ (connector(stage)) })
    const events = watchDispatcher(stage, client)
    for (const path of ['/one', '/two']) {
      const { statusCode, body } = await client.request({ path, method: 'GET' })
      stage.log('client').note(`${statusCode} ${await body.text()}`)
    }
    await client.close()
    await events.saw('disconnect')
  }),

  scene(
    'a client: the server closes the idle connection',
    async (stage) => {
      const server = await serve(stage, (_, response) => response.end('ok'))
      const client = new Client('http://guest', { connect: /** @type {never} */ (connector(stage)) })
      const events = watchDispatcher(stage, client)
      await (await client.request({ path: '/', method: 'GET' })).body.text()
      await turn()
      server.closeIdleConnections()
      await events.saw('disconnect')
      await (await client.request({ path: '/', method: 'GET' })).body.text()
      await client.close()
      await events.saw('disconnect', 2)
    },
    { needs: ['server'] },
  ),

  scene('a client: the server destroys the connection in the middle', async (stage) => {
    const log = stage.log('client')
    await serve(stage, (_, response) => {
      response.writeHead(200, { 'content-length': '10' })
      response.write('half.')
      void log.heard(5).then(() => response.socket?.destroy())
    })
    const client = new Client('http://guest', { connect: /** @type {never} */ (connector(stage)) })
    const events = watchDispatcher(stage, client)
    try {
      const { body } = await client.request({ path: '/', method: 'GET' })
      for await (const chunk of body) log.data(chunk)
    } catch (error) {
      log.note(`threw ${codeOf(error)}`)
    }
    await events.saw('disconnect')
  }),

  scene('a client: a signal aborts', async (stage) => {
    const serverLog = stage.log('server')
    await serve(stage, (_, response) => {
      serverLog.note('request')
      response.on('close', () => serverLog.note('close'))
    })
    const client = new Client('http://guest', { connect: /** @type {never} */ (connector(stage)) })
    const events = watchDispatcher(stage, client)
    const controller = new AbortController()
    const asked = client
      .request({ path: '/', method: 'GET', signal: controller.signal })
      .catch((error) => stage.log('client').note(`threw ${error.name}`))
    await serverLog.saw('request')
    controller.abort()
    await asked
    await events.saw('disconnect')
    await serverLog.saw('close')
    // It connects again at once, with nothing to ask for.
    await events.saw('connect', 2)
  }),

  scene('a client: destroy while a request waits', async (stage) => {
    const serverLog = stage.log('server')
    await serve(stage, () => serverLog.note('request'))
    const client = new Client('http://guest', { connect: /** @type {never} */ (connector(stage)) })
    const events = watchDispatcher(stage, client)
    const asked = client
      .request({ path: '/', method: 'GET' })
      .catch((error) => stage.log('client').note(`threw ${codeOf(error)}`))
    await serverLog.saw('request')
    await client.destroy()
    await asked
    await events.saw('disconnect')
  }),

  scene('a pool: forty requests', async (stage) => {
    await serve(stage, (request, response) => void request.pipe(response))
    const pool = new Pool('http://guest', { connections: 4, connect: /** @type {never} */ (connector(stage)) })
    stage.later(() => pool.destroy())
    const lengths = Array.from({ length: 40 }, async (_, i) => {
      const { body } = await pool.request({ path: '/', method: 'PUT', body: Buffer.alloc(1000 * i) })
      return (await body.arrayBuffer()).byteLength
    })
    stage.log('client').note(JSON.stringify(await Promise.all(lengths)))
    await pool.close()
  }),

  scene('fetch through an agent', async (stage) => {
    await serve(stage, (request, response) => response.end(`${request.method} ${request.url} ${request.headers.host}`))
    const dispatcher = new Agent({ connect: /** @type {never} */ (connector(stage)) })
    stage.later(() => dispatcher.destroy())
    const response = await fetch('http://guest/path', { dispatcher })
    stage.log('client').note(`${response.status} ${await response.text()}`)
    await dispatcher.close()
  }),

  scene('nothing listens', async (stage) => {
    const client = new Client('http://guest', { connect: /** @type {never} */ (connector(stage)) })
    const events = watchDispatcher(stage, client)
    await client.request({ path: '/', method: 'GET' }).catch((error) => stage.log('client').note(`threw ${codeOf(error)}`))
    await events.saw('connectionError')
  }),
]

/** @param {Stage} stage @param {(socket: WebSocket) => unknown} serveOne */
async function serveWebSockets(stage, serveOne) {
  const server = await serve(stage, () => {})
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (socket) => {
    watchWebSocket(stage, 'server', socket)
    serveOne(socket)
  })
  stage.later(() => {
    for (const socket of sockets.clients) socket.terminate()
    sockets.close()
  })
}

/** @param {Stage} stage @param {string} name @param {WebSocket} socket */
function watchWebSocket(stage, name, socket) {
  const log = stage.log(name)
  socket.on('open', () => log.note('open'))
  socket.on('message', (data, isBinary) => log.note(`message ${isBinary ? /** @type {Buffer} */ (data).length : data}`))
  socket.on('ping', (data) => log.note(`ping ${data}`))
  socket.on('pong', (data) => log.note(`pong ${data}`))
  socket.on('error', (error) => log.note(`error ${codeOf(error)}`))
  socket.on('close', (code, reason) => log.note(`close ${code} ${reason}`))
  return log
}

/** @param {Stage} stage */
function openWebSocket(stage) {
  const socket = new WebSocket('ws://guest/', { createConnection: /** @type {never} */ (() => stage.connect()) })
  stage.later(() => socket.terminate())
  return { socket, log: watchWebSocket(stage, 'client', socket) }
}

const websockets = [
  scene('messages, pings, and the client closes', async (stage) => {
    await serveWebSockets(stage, (socket) => socket.on('message', (data, binary) => socket.send(data, { binary })))
    const { socket, log } = openWebSocket(stage)
    await log.saw('open')
    socket.send('text')
    socket.send(Buffer.alloc(200_000))
    await log.saw('message', 2)
    socket.ping('are you there')
    await log.saw('pong')
    socket.close(4001, 'done')
    await log.saw('close')
    await stage.log('server').saw('close')
  }),

  scene('the server closes', async (stage) => {
    await serveWebSockets(stage, (socket) => {
      socket.send('hello')
      socket.close(1001, 'going away')
    })
    const { log } = openWebSocket(stage)
    await log.saw('close')
    await stage.log('server').saw('close')
  }),

  ...['client', 'server'].map((who) =>
    scene(`the ${who} terminates`, async (stage) => {
      await serveWebSockets(stage, (socket) => {
        if (who === 'server') socket.on('message', () => socket.terminate())
      })
      const { socket, log } = openWebSocket(stage)
      await log.saw('open')
      if (who === 'client') socket.terminate()
      else socket.send('go')
      await log.saw('close')
      await stage.log('server').saw('close')
    }),
  ),

  scene('the server answers with another status', async (stage) => {
    await serve(stage, (_, response) => response.writeHead(426).end())
    const { log } = openWebSocket(stage)
    await log.saw('close')
  }),

  scene('nothing listens', async (stage) => {
    const { log } = openWebSocket(stage)
    await log.saw('close')
  }),
]

export const clients = { undici, websockets }
