import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, isIPv6 } from 'node:net'
import { checkObject, checkString, integer } from '@upcall/foundation/check'
import { errnoOf, textOf } from '@upcall/foundation/error'
import { traceOf } from '@upcall/foundation/trace'
import type { Registry } from 'prom-client'
import { MetricsError } from '../errors.js'
import { LOOPBACK } from './address.js'

const trace = traceOf('metrics')

export interface ServeOptions {
  /** What is served. */
  register: Pick<Registry, 'metrics' | 'contentType'>
  /** Default `127.0.0.1`: other machines do not reach it. There is no authentication and no encryption. */
  host?: string | undefined
  /** Default 0: any free port. */
  port?: number | undefined
}

export interface MetricsServer extends AsyncDisposable {
  /** `http://127.0.0.1:9100/metrics` */
  readonly url: string
  readonly port: number
  /** Cuts what is open. Idempotent. */
  close(): Promise<void>
}

/** A scrape is one short request: a client that takes longer does not scrape. */
const REQUEST_MS = 5_000
/** For an answer that its client does not read. */
const SILENCE_MS = 60_000
const MAX_CONNECTIONS = 64

/**
 * Serves `GET /metrics` and `HEAD /metrics`, and nothing else: another path is answered with 404, another method with 405.
 *
 * @throws MetricsError with the errno if it cannot listen: `EADDRINUSE` for a port that is in use.
 */
export async function serveMetrics(options: ServeOptions): Promise<MetricsServer> {
  checkObject('options', options)
  const { register, host = LOOPBACK } = options
  checkObject('register', register, 'a Registry')
  checkString('host', host)
  const port = integer('port', options.port ?? 0, { max: 0xffff })
  const limits = { headersTimeout: REQUEST_MS, requestTimeout: REQUEST_MS, keepAliveTimeout: REQUEST_MS }
  const server = createServer({ ...limits, connectionsCheckingInterval: 1_000 }, (request, response) => {
    void answer(register, request, response)
  })
  server.maxConnections = MAX_CONNECTIONS
  server.setTimeout(SILENCE_MS)
  await listening(server, host, port)
  // Out of descriptors, for instance: the program goes on, and the next scrape may succeed.
  server.on('error', (error) => trace({ type: 'error', error }, 'metrics: %s', textOf(error)))
  return new Serving(server)
}

class Serving implements MetricsServer {
  readonly url: string
  readonly port: number
  readonly #server: Server
  #closing: Promise<void> | undefined

  constructor(server: Server) {
    this.#server = server
    const { address, port } = server.address() as AddressInfo
    this.port = port
    this.url = `http://${inUrl(address)}:${port}/metrics`
  }

  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      this.#server.close(() => resolve())
      this.#server.closeAllConnections()
    })
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

const inUrl = (host: string): string => (isIPv6(host) ? `[${host}]` : host)

async function listening(server: Server, host: string, port: number): Promise<void> {
  try {
    server.listen({ host, port })
    await once(server, 'listening')
  } catch (cause) {
    const code = errnoOf(cause)
    throw new MetricsError({ code, op: 'listen', subject: `${inUrl(host)}:${port}`, ...why(code), cause })
  }
}

function why(code: string): { what: string; next: string } {
  switch (code) {
    case 'EADDRINUSE':
      return { what: 'the port is in use (EADDRINUSE)', next: 'Choose another port, or 0 for any free port.' }
    case 'EACCES':
      return { what: 'this port is not for this user (EACCES)', next: 'Choose a port above 1023.' }
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { what: `this machine does not have the address (${code})`, next: 'Choose an address that "ip address" shows.' }
    default:
      return { what: `listening failed (${code})`, next: 'See the cause.' }
  }
}

async function answer(register: ServeOptions['register'], request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [path] = (request.url ?? '').split('?', 1)
  if (path !== '/metrics') return say(response, 404, 'The metrics are at /metrics.\n')
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return say(response.setHeader('Allow', 'GET, HEAD'), 405, 'The methods are GET and HEAD.\n')
  try {
    const text = await register.metrics()
    say(response.setHeader('Content-Type', register.contentType), 200, text)
  } catch (error) {
    trace({ type: 'failed', error }, 'metrics: %s', textOf(error))
    say(response, 500, `The metrics could not be collected: ${textOf(error)}\n`)
  }
}

function say(response: ServerResponse, status: number, text: string): void {
  if (!response.hasHeader('Content-Type')) response.setHeader('Content-Type', 'text/plain; charset=utf-8')
  response.setHeader('X-Content-Type-Options', 'nosniff')
  // HEAD has the length too. Node leaves the text out.
  response.setHeader('Content-Length', Buffer.byteLength(text))
  response.writeHead(status).end(text)
}
