import { createServer, type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type Clock, systemClock } from '@upcall/client'
import type { Vm } from '@upcall/vmm'
import type { VsockServer } from '@upcall/vsock'
import type { Log } from '../log.js'
import { faultOf, HttpError } from './fault-message.js'
import { findRoute } from './routes.js'

const MAX_BODY = 64 * 1024
/** How long a client may take to send its request. */
const BODY_MS = 5_000
/** How long a connection may be without a request. */
const IDLE_MS = 5_000
/** Throws where a character would be made up. */
const utf8 = new TextDecoder('utf-8', { fatal: true })

export interface ApiOptions {
  /** Where it listens; from here on it is the API's to close. */
  server: VsockServer
  vm: Vm
  log: Log
  clock?: Clock | undefined
}

export interface ApiServer {
  /** Stops listening, removes the socket file and cuts every connection off. */
  close(): Promise<void>
}

/** The control API, HTTP over a Unix socket. A change once begun is carried through, whoever hangs up. */
export function serveApi({ server, vm, log, clock = systemClock }: ApiOptions): ApiServer {
  const connections = new WeakMap<object, Idleness>()
  const http = createServer({ keepAliveTimeout: IDLE_MS }, (request, response) => {
    const idleness = connections.get(request.socket)
    idleness?.begin()
    response.once('close', () => idleness?.end())
    void answer(request, response, vm, log)
  })
  http.on('clientError', refuse)
  server.on('connection', (socket) => {
    connections.set(socket, new Idleness(socket, clock))
    http.emit('connection', socket)
  })
  server.on('error', (error) => log.warn({ error: error.message }, 'API accept failed'))
  return {
    async close() {
      await server.close()
      server.closeAllConnections()
      http.close()
    },
  }
}

/** Cuts a connection off on which no request has been under way for so long, however slowly the next one trickles in. */
class Idleness {
  readonly #socket: Duplex
  readonly #clock: Clock
  #requests = 0
  #cancel = () => {}

  constructor(socket: Duplex, clock: Clock) {
    this.#socket = socket
    this.#clock = clock
    socket.once('close', () => this.#cancel())
    this.#wait()
  }

  begin(): void {
    this.#requests++
    this.#cancel()
  }

  end(): void {
    if (--this.#requests === 0) this.#wait()
  }

  #wait(): void {
    if (!this.#socket.destroyed) this.#cancel = this.#clock.setTimer(IDLE_MS, () => this.#socket.destroy())
  }
}

/** What is no HTTP, which no request comes of. */
function refuse(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (!socket.writable) return void socket.destroy()
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : 400
  const fault = faultOf(new HttpError(status, `request: is not HTTP as it should be: ${error.message}`))
  const text = `${JSON.stringify(fault?.body)}\n`
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-type: application/json`
  socket.end(`${head}\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, () => socket.destroy())
}

async function answer(request: IncomingMessage, response: ServerResponse, vm: Vm, log: Log): Promise<void> {
  const { method = '', url = '' } = request
  const started = performance.now()
  const send = (status: number, body?: unknown, headers: Record<string, string> = {}) => {
    const text = body === undefined ? undefined : `${JSON.stringify(body)}\n`
    response.writeHead(status, {
      ...headers,
      ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
    })
    response.end(text)
    log.info({ method, url, status, ms: Math.round(performance.now() - started) }, 'API request')
  }
  try {
    const { handle, id } = findRoute(method, url)
    const body = parse(await readBody(request))
    const result = await handle(vm, { id, body })
    send(result.status, 'body' in result ? result.body : undefined)
  } catch (error) {
    const fault = faultOf(error)
    // What was not read would be taken for the next request.
    const headers = { ...fault?.headers, ...(!request.complete && { connection: 'close' }) }
    if (fault) return send(fault.status, fault.body, headers)
    log.error({ method, url, error: (error as Error).stack ?? String(error) }, 'bug')
    send(500, { fault_message: `internal error: ${(error as Error).message}`, outcome: 'indeterminate', errno: null }, headers)
  }
}

function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let length = 0
    const timer = setTimeout(() => end(new HttpError(408, `body: not complete within ${BODY_MS} ms`)), BODY_MS)
    const end = (error?: Error) => {
      clearTimeout(timer)
      // Left flowing: destroying the request would take the answer with it.
      request.off('data', onData).resume()
      if (error) reject(error)
      else resolve(Buffer.concat(chunks))
    }
    const onData = (chunk: Buffer) => {
      length += chunk.length
      if (length > MAX_BODY) end(new HttpError(413, `body: more than ${MAX_BODY} bytes`))
      else chunks.push(chunk)
    }
    request.on('data', onData)
    request.once('end', () => end())
    request.once('close', () => end(new HttpError(400, 'body: the connection was closed before its end')))
  })
}

function parse(bytes: Buffer): unknown {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    throw new HttpError(400, 'body: is not UTF-8')
  }
  if (text.trim() === '') return undefined
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch (error) {
    throw new HttpError(400, `body: is not JSON: ${(error as Error).message}`)
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new HttpError(400, 'body: must be a JSON object')
  return body
}
