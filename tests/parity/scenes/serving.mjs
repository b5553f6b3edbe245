// The side that listens: a net.Server at an address.
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { codeOf, watch } from '../log.mjs'
import { scene } from '../stage.mjs'

const turn = () => new Promise((resolve) => setImmediate(resolve))
/** @param {import('node:net').Server} server @returns {Promise<number>} */
const connections = (server) =>
  new Promise((resolve, reject) => server.getConnections((error, count) => (error ? reject(error) : resolve(count))))

export const serving = [
  scene('getConnections follows what is open', async ({ pair, log }) => {
    const { accepted, client, closed, server } = await pair()
    const serverLog = log('listener')
    serverLog.note(`${await connections(server)}, listening ${server.listening}`)
    await accepted()
    serverLog.note(`${await connections(server)}`)
    client.end()
    await closed()
    serverLog.note(`${await connections(server)}`)
  }),

  scene('close waits for the open connection', async ({ pair, log }) => {
    const { accepted, client, closed, server } = await pair()
    const serverLog = log('listener')
    server.on('close', () => serverLog.note('close'))
    await accepted()
    server.close((error) => serverLog.note(`callback ${codeOf(error)}`))
    serverLog.note(`closing, listening ${server.listening}`)
    await turn()
    client.end('still open')
    await closed()
    await serverLog.saw('callback')
  }),

  scene('close without a connection, twice', async ({ listen, log }) => {
    const server = await listen(createServer())
    const serverLog = log('listener')
    server.on('close', () => serverLog.note('close'))
    server.close((error) => serverLog.note(`first ${codeOf(error)}`))
    server.close((error) => serverLog.note(`second ${codeOf(error)}`))
    await serverLog.saw('first')
    await serverLog.saw('second')
    serverLog.note(`listening ${server.listening}`)
  }),

  scene('maxConnections drops', async ({ connect, listen, log }) => {
    const serverLog = log('listener')
    const server = createServer((socket) => {
      serverLog.note('connection')
      socket.on('error', () => {}).resume()
    })
    server.maxConnections = 1
    server.on('drop', (data) => serverLog.note(`drop ${typeof data}`))
    await listen(server)
    const first = watch(log('first'), connect())
    await first.saw('ready')
    await serverLog.saw('connection')
    const second = watch(log('second'), connect())
    await serverLog.saw('drop')
    await second.saw('close')
  }),

  scene('a hundred connections at once', async ({ connect, listen, log }) => {
    const serverLog = log('listener')
    let accepted = 0
    const accept = (/** @type {import('node:net').Socket} */ socket) => {
      accepted++
      socket.on('error', () => {}).once('data', () => socket.end('bye'))
    }
    await listen(createServer(accept))
    const sockets = Array.from({ length: 100 }, () => connect())
    const closed = sockets.map((socket) => gone(socket.resume()))
    for (const socket of sockets) socket.write('x')
    const results = await Promise.all(closed)
    serverLog.note(`${accepted} accepted, ${results.filter((hadError) => hadError).length} failed`)
  }),

  scene('pauseOnConnect', async ({ pair }) => {
    const { accepted, client, serverLog, closed } = await pair({ server: { pauseOnConnect: true } }, (socket, log) =>
      log.note(`paused ${socket.isPaused()}`),
    )
    const socket = await accepted()
    client.write('waits')
    await turn()
    serverLog.note('resumes')
    socket.resume()
    await serverLog.heard(5)
    client.end()
    await closed()
  }),

  scene('a socket knows its server', async ({ pair }) => {
    const { accepted, client, server, serverLog, closed } = await pair()
    const socket = /** @type {import('node:net').Socket & { server?: unknown }} */ (await accepted())
    serverLog.note(`${socket.server === server} half-open ${socket.allowHalfOpen}`)
    client.end()
    await closed()
  }),

  scene('a listener of connection that throws nothing away: its socket is connected', async ({ pair }) => {
    const { accepted, client, serverLog, closed } = await pair({}, (socket, log) =>
      log.note(`${socket.connecting} ${socket.pending} ${socket.readyState} ${socket.readableFlowing}`),
    )
    await accepted()
    serverLog.note('accepted')
    client.end()
    await closed()
  }),
].map((each) => ({ ...each, needs: ['server'] }))

/** @param {import('node:net').Socket} socket */
const gone = (socket) => new Promise((resolve) => socket.on('error', () => {}).on('close', resolve))

/** Three hundred descriptors at a time: the usual limit of a process is 1024. */
const ROUNDS = 4
const AT_ONCE = 250

export const counting = [
  scene(
    'a thousand connections: descriptors and sockets go back',
    async ({ connect, listen, log }) => {
      const live = new Set()
      const accept = (/** @type {import('node:net').Socket} */ socket) => {
        live.add(socket)
        socket.once('close', () => live.delete(socket))
        socket.on('error', () => {}).resume()
      }
      await listen(createServer(accept))
      const before = await settled()
      const rounds = log('rounds')
      for (let round = 0; round < ROUNDS; round++) {
        const sockets = Array.from({ length: AT_ONCE }, () => connect())
        const closed = sockets.map((socket) => gone(socket.resume()))
        if (round % 2 === 0) await Promise.all(sockets.map((socket) => once(socket, 'connect')))
        for (const [i, socket] of sockets.entries()) {
          if (i % 3 === 0) socket.end('bye')
          else if (i % 3 === 1) socket.destroy()
          else socket.destroySoon()
        }
        await Promise.all(closed)
        while (live.size > 0) await turn()
        rounds.note(`${live.size} live, ${Math.max(0, (await settled(before)) - before)} descriptors more`)
      }
    },
    { alone: true, needs: ['server'], lingerMs: 200 },
  ),

  scene(
    'a thousand sockets that are destroyed before they are connected',
    async ({ connect, listen, log }) => {
      await listen(createServer((socket) => socket.on('error', () => {}).resume()))
      const before = await settled()
      const rounds = log('rounds')
      for (let round = 0; round < ROUNDS; round++) {
        const sockets = Array.from({ length: AT_ONCE }, () => connect())
        const closed = sockets.map(gone)
        for (const [i, socket] of sockets.entries())
          if (i % 2 === 0) socket.destroy()
          else process.nextTick(() => socket.destroy())
        await Promise.all(closed)
        rounds.note(`${Math.max(0, (await settled(before)) - before)} descriptors more`)
      }
    },
    { alone: true },
  ),

  scene(
    'a thousand sockets where nothing listens',
    async ({ connect, log }) => {
      const before = await settled()
      const rounds = log('rounds')
      for (let round = 0; round < ROUNDS; round++) {
        const sockets = Array.from({ length: AT_ONCE }, () => connect())
        const errors = sockets.map((socket) => once(socket, 'error'))
        await Promise.all(errors)
        rounds.note(`${Math.max(0, (await settled(before)) - before)} descriptors more`)
      }
    },
    { alone: true },
  ),
]

/** How many descriptors this process has, when it has as few as it had before, or after many turns. */
async function settled(atMost = Number.POSITIVE_INFINITY) {
  let count = readdirSync('/proc/self/fd').length
  for (let turns = 0; count > atMost && turns < 50_000; turns++) {
    await turn()
    count = readdirSync('/proc/self/fd').length
  }
  return count
}
