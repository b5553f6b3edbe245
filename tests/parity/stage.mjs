// A *scene* is a small program that gets the one line that differs between `net` and a transport of ours (`connect`, `listen`) and
// writes down what both ends see. It knows no test runner and runs in a guest, too.
import { createServer } from 'node:net'
import { codeOf, Log, watch } from './log.mjs'

/** The end of a scene that hangs. Nothing else depends on it. */
const DEADLINE_MS = 25_000
/** No scene is so slow that a peer stays silent for so long, unless it is silent for ever. */
const LINGER_MS = 10_000

/**
 * Somewhere to listen and to connect to.
 *
 * @typedef {object} Place
 * @property {(options?: object) => import('node:net').Socket} connect
 * @property {(server: import('node:net').Server) => Promise<unknown>} listen
 * @property {() => Promise<unknown>} close
 * @property {((options?: object) => import('node:http').Agent) | undefined} [agent] an agent of its own; else one with `connect`
 */

/**
 * @typedef {object} Transport
 * @property {string} name
 * @property {readonly string[]} traits what it has of `features`, and what the table of differences asks for
 * @property {(lingerMs: number) => Promise<Place>} open `lingerMs`: for transports without half-close
 */

/**
 * @typedef {object} Scene
 * @property {string} name
 * @property {(stage: Stage) => Promise<unknown>} play
 * @property {readonly string[]} needs traits without which a transport has no such scene
 * @property {boolean} alone counts what belongs to the whole process
 * @property {number | undefined} lingerMs for a scene that has no peer that ends, and shows nothing of that
 */

/** @param {string} name @param {Scene['play']} play @param {{ needs?: string[], alone?: boolean, lingerMs?: number }} [more] @returns {Scene} */
export function scene(name, play, { needs = [], alone = false, lingerMs } = {}) {
  return { name, play, needs, alone, lingerMs }
}

export class Stage {
  /** @type {Map<string, Log>} */
  #logs = new Map()
  /** @type {(() => unknown)[]} */
  #closers = []
  #place

  /** @param {Place} place */
  constructor(place) {
    this.#place = place
    // A scene takes what it needs out of its stage.
    for (const name of /** @type {const} */ (['log', 'connect', 'listen', 'agent', 'pair', 'later']))
      Object.assign(this, { [name]: this[name].bind(this) })
  }

  /** The log of an end. @param {string} name */
  log(name) {
    const log = this.#logs.get(name) ?? new Log()
    this.#logs.set(name, log)
    return log
  }

  /** The one line. @param {object} [options] */
  connect(options = {}) {
    const socket = this.#place.connect(options)
    this.later(() => socket.on('error', () => {}).destroy())
    return socket
  }

  /** The other one. @template {import('node:net').Server} T @param {T} server @returns {Promise<T>} */
  async listen(server) {
    server.on('connection', (socket) => this.later(() => socket.on('error', () => {}).destroy()))
    await this.#place.listen(server)
    this.later(() => server.listening && server.close())
    return server
  }

  /** An http.Agent whose sockets come from `connect`. @param {typeof import('node:http')} http @param {object} [options] */
  agent(http, options = {}) {
    const agent = this.#place.agent?.(options) ?? new http.Agent(options)
    // As http.Agent's own does it, which hands its options to net.connect.
    if (!this.#place.agent) agent.createConnection = ({ timeout }) => this.connect({ timeout })
    this.later(() => agent.destroy())
    return agent
  }

  /**
   * Listens, connects and watches: `client` and `server`. The server's handler is called with the socket before anything else happens.
   *
   * @param {{ client?: object, server?: object, reads?: 'both' | 'client' | 'server' | 'none' }} [options]
   * @param {(socket: import('node:net').Socket, log: Log) => unknown} [onConnection]
   */
  async pair({ client: clientOptions = {}, server: serverOptions = {}, reads = 'both' } = {}, onConnection) {
    const serverLog = this.log('server')
    /** @type {import('node:net').Socket | undefined} */
    let accepted
    const server = createServer(serverOptions, (socket) => {
      accepted = socket
      watch(serverLog, socket, { data: reads === 'both' || reads === 'server' })
      serverLog.note('connection')
      onConnection?.(socket, serverLog)
    })
    await this.listen(server)
    const clientLog = this.log('client')
    const client = this.connect(clientOptions)
    watch(clientLog, client, { data: reads === 'both' || reads === 'client' })
    return {
      client,
      clientLog,
      serverLog,
      server,
      /** The accepted socket, when both ends are connected. */
      accepted: async () => {
        await serverLog.saw('connection')
        await clientLog.saw('ready')
        return /** @type {import('node:net').Socket} */ (accepted)
      },
      closed: () => Promise.all([clientLog.saw('close'), serverLog.saw('close')]),
    }
  }

  /** Something to undo when the scene is over, in the reverse order. @param {() => unknown} close */
  later(close) {
    this.#closers.push(close)
  }

  /** @returns {Record<string, string[]>} */
  get logs() {
    return Object.fromEntries([...this.#logs].map(([name, { lines }]) => [name, [...lines]]))
  }

  async end() {
    for (const log of this.#logs.values()) log.freeze()
    for (const close of this.#closers.reverse()) await close()
  }
}

/**
 * Plays a scene over a transport.
 *
 * @param {Scene} scene @param {Transport} transport @param {{ deadlineMs?: number, lingerMs?: number }} [options]
 * @returns {Promise<Record<string, string[]>>} the log of each end
 */
export async function play(scene, transport, { deadlineMs = DEADLINE_MS, lingerMs = scene.lingerMs ?? LINGER_MS } = {}) {
  const place = await transport.open(lingerMs)
  const stage = new Stage(place)
  /** @type {NodeJS.Timeout | undefined} */
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('it hangs')), deadlineMs)
  })
  try {
    await Promise.race([scene.play(stage), late])
    return stage.logs
  } catch (error) {
    const told = JSON.stringify(stage.logs, null, 2)
    throw new Error(`"${scene.name}" over ${transport.name}: ${codeOf(error)}\n${told}`, { cause: error })
  } finally {
    clearTimeout(timer)
    await stage.end()
    await place.close()
  }
}
