// Node's http2 over sockets that the stage connects: a session each, and a connection that goes away.
import { once } from 'node:events'
import http2 from 'node:http2'
import { codeOf } from '../log.mjs'
import { scene } from '../stage.mjs'

/** @typedef {import('../stage.mjs').Stage} Stage */

/** @param {Stage} stage @param {(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => unknown} answer */
async function serve(stage, answer) {
  const server = http2.createServer()
  /** @type {Set<http2.ServerHttp2Session>} */
  const sessions = new Set()
  server.on('session', (session) => {
    sessions.add(session)
    session.on('error', () => {})
    session.on('close', () => sessions.delete(session))
    stage.later(() => session.destroy())
  })
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    answer(stream, headers)
  })
  server.on('sessionError', () => {})
  await stage.listen(server)
  return { server, sessions }
}

/** @param {Stage} stage */
function openSession(stage) {
  const log = stage.log('client')
  const socket = stage.connect()
  const session = http2.connect('http://guest', { createConnection: () => socket })
  session.on('connect', () => log.note('session connect'))
  session.on('error', (error) => log.note(`session error ${codeOf(error)}`))
  session.on('goaway', (code) => log.note(`session goaway ${code}`))
  session.on('close', () => log.note(`session close destroyed ${session.destroyed} closed ${session.closed}`))
  socket.on('close', (hadError) => stage.log('socket').note(`close ${hadError}`))
  stage.later(() => session.destroy())
  return { session, log, socket }
}

/** @param {Stage} stage @param {http2.ClientHttp2Session} session @param {string} path @param {string} [body] */
function ask(stage, session, path, body) {
  const log = stage.log(path)
  const stream = session.request({ ':path': path, ':method': body === undefined ? 'GET' : 'POST' })
  stream.on('response', (headers) => log.note(`response ${headers[':status']}`))
  stream.on('data', (chunk) => log.data(chunk))
  stream.on('end', () => log.note('end'))
  stream.on('aborted', () => log.note('aborted'))
  stream.on('error', (error) => log.note(`error ${codeOf(error)}`))
  stream.on('close', () => log.note(`close ${stream.rstCode}`))
  stream.end(body)
  return { stream, log }
}

export const sessions = [
  scene('requests side by side, then close', async (stage) => {
    await serve(stage, (stream, headers) => {
      stream.respond({ ':status': 200 })
      stream.end(`you asked for ${headers[':path']}`)
    })
    const { session, log } = openSession(stage)
    const asked = ['/one', '/two', '/three'].map((path) => ask(stage, session, path))
    await Promise.all(asked.map((each) => each.log.saw('close')))
    session.close(() => log.note('close callback'))
    await log.saw('session close')
    await stage.log('socket').saw('close')
  }),

  scene('a body each way', async (stage) => {
    await serve(stage, (stream) => {
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
    })
    const { session, log } = openSession(stage)
    await ask(stage, session, '/echo', 'e'.repeat(300_000)).log.saw('close')
    session.close()
    await log.saw('session close')
  }),

  scene('ping', async (stage) => {
    await serve(stage, () => {})
    const { session, log } = openSession(stage)
    await new Promise((resolve) => session.once('connect', resolve))
    await new Promise((resolve) =>
      session.ping(Buffer.from('12345678'), (error, _, payload) => {
        log.note(`ping ${codeOf(error)} ${payload}`)
        resolve(undefined)
      }),
    )
    session.close()
    await log.saw('session close')
  }),

  scene('the server says goaway, and what is open goes on', async (stage) => {
    /** @type {http2.ServerHttp2Stream | undefined} */
    let waiting
    await serve(stage, (stream) => {
      waiting = stream
      stream.respond({ ':status': 200 })
      stream.session?.goaway()
      stream.write('before ')
    })
    const { session, log } = openSession(stage)
    const asked = ask(stage, session, '/slow')
    await log.saw('session goaway')
    waiting?.end('after')
    await asked.log.saw('close')
    log.note(`closed ${session.closed}`)
  }),

  scene('the server closes its session', async (stage) => {
    await serve(stage, (stream) => {
      stream.respond({ ':status': 200 })
      stream.end('the last')
      stream.session?.close()
    })
    const { session, log } = openSession(stage)
    const asked = ask(stage, session, '/last')
    await asked.log.saw('close')
    await log.saw('session close')
    await stage.log('socket').saw('close')
  }),

  scene('the connection breaks in the middle of a stream', async (stage) => {
    /** @type {http2.Http2Session | undefined} */
    let serving
    await serve(stage, (stream) => {
      serving = stream.session
      stream.respond({ ':status': 200 })
      stream.write('half')
    })
    const { session, log } = openSession(stage)
    const asked = ask(stage, session, '/broken')
    await asked.log.heard(4)
    // As when the process is killed: no goaway.
    socketOf(serving).destroy()
    await asked.log.saw('close')
    await log.saw('session close')
    await stage.log('socket').saw('close')
    // Node 20 and 22 throw. Later versions give a stream that fails.
    try {
      const [error] = await once(session.request({}), 'error')
      log.note(`a request afterwards fails: ${codeOf(error)}`)
    } catch (error) {
      log.note(`a request afterwards: ${codeOf(error)}`)
    }
  }),

  scene('the client destroys its session', async (stage) => {
    const { sessions } = await serve(stage, (stream) => stream.respond({ ':status': 200 }))
    const { session, log } = openSession(stage)
    const asked = ask(stage, session, '/unanswered')
    await asked.log.saw('response')
    session.destroy(new Error('mine'))
    await asked.log.saw('close')
    await log.saw('session close')
    while (sessions.size > 0) await new Promise((resolve) => setImmediate(resolve))
    log.note('the server has no session')
  }),

  scene('the client cancels a stream', async (stage) => {
    const serverLog = stage.log('server')
    await serve(stage, (stream) => {
      stream.respond({ ':status': 200 })
      stream.write('some')
      stream.on('aborted', () => serverLog.note('aborted'))
      stream.on('close', () => serverLog.note(`close ${stream.rstCode}`))
    })
    const { session, log } = openSession(stage)
    const asked = ask(stage, session, '/cancelled')
    await asked.log.heard(4)
    asked.stream.close(http2.constants.NGHTTP2_CANCEL)
    await serverLog.saw('close')
    await asked.log.saw('close')
    session.close()
    await log.saw('session close')
  }),

  scene('nothing listens', async (stage) => {
    const { session, log } = openSession(stage)
    const asked = ask(stage, session, '/nobody')
    await asked.log.saw('close')
    await log.saw('session close')
  }),
]

/** The socket of a session, without the guard that keeps programs from ending it. */
/** @param {http2.Http2Session | undefined} session @returns {import('node:net').Socket} */
function socketOf(session) {
  const fields = /** @type {Record<symbol, import('node:net').Socket>} */ (/** @type {unknown} */ (session))
  const found = Object.getOwnPropertySymbols(fields).find(({ description }) => description === 'socket')
  if (found === undefined) throw new Error('the session has no socket')
  return /** @type {import('node:net').Socket} */ (fields[found])
}
