import type { IncomingMessage } from 'node:http'
import swagger from '@fastify/swagger'
import { textOf } from '@upcall/foundation/error'
import type { Vm } from '@upcall/vmm'
import { type Address, bindServer } from '@upcall/vsock'
import { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import type * as v from 'valibot'
import packageJson from '../../package.json' with { type: 'json' }
import { type Log, silentLog } from '../log.js'
import { Changes, type ChangeWatcher } from './changes.js'
import { type FaultBody, faultOf, HttpError } from './fault.js'
import { refuse, track } from './refusal.js'
import { type App, addRoutes, refuseOthers, type SchemaTypes } from './routes.js'
import { jsonSchemaOf, read } from './schemas.js'

const MAX_BODY = 64 * 1024
/** Throws for bytes that are not UTF-8, instead of replacing them. */
const utf8 = new TextDecoder('utf-8', { fatal: true })

export interface ApiOptions {
  log: Log
  /** Hears of what is asked for. */
  changes?: ChangeWatcher | undefined
  /** How long a client may take to send a request, and how long a connection may be without one, in milliseconds. Default 5000. */
  requestTimeoutMs?: number | undefined
}

export interface ApiServer {
  /** The VM that the API controls. Requests that arrive before wait for it. */
  serve(vm: Vm): void
  /** Stops listening, removes the socket file and closes every connection. */
  close(): Promise<void>
}

export const REQUEST_MS = 5_000

/** Opens the control API: HTTP on a Unix socket. */
export async function openApi(address: Address, { log, changes, requestTimeoutMs = REQUEST_MS }: ApiOptions): Promise<ApiServer> {
  let serve!: (vm: Vm) => void
  const served = new Promise<Vm>((resolve) => {
    serve = resolve
  })
  const app = makeApp({ log, requestTimeoutMs, vm: served, changes })
  await app.ready()
  const bound = await bindServer(app.server, address, { mode: 0o600 })
  app.server.on('error', (error) => log.warn({ error: textOf(error) }, 'API accept failed'))
  return {
    serve,
    async close() {
      const closed = bound.close()
      app.server.closeAllConnections()
      await closed
    },
  }
}

/** The OpenAPI document of the control API. */
export async function openApiDocument(): Promise<object> {
  const app = makeApp({ log: silentLog, requestTimeoutMs: 1, vm: new Promise(() => {}) })
  await app.ready()
  return app.swagger()
}

export interface AppOptions {
  log: Log
  requestTimeoutMs: number
  /** Requests wait for it. */
  vm: Promise<Vm>
  /** What the path of every resource begins with. Default: nothing. No log says it. */
  prefix?: string | undefined
  changes?: ChangeWatcher | undefined
  /** Sees each request first. What it throws is the answer. */
  guard?: ((request: FastifyRequest) => void) | undefined
  /** The body that says what went wrong, if another reader than a program of the API's needs another. */
  bodyOf?: ((error: unknown) => FaultBody) | undefined
  /** Sent with every answer. */
  headers?: Readonly<Record<string, string>> | undefined
  /** Adds further routes, which do not wait for the VM. */
  extend?: ((app: App) => void) | undefined
}

/** The control API as an app that does not listen yet. */
export function makeApp(options: AppOptions): App {
  const { log, requestTimeoutMs, vm: served, prefix = '', guard, bodyOf, headers = {}, extend } = options
  let vm!: Vm
  const began = new WeakMap<object, number>()
  const changes = new Changes(options.changes, prefix)
  const app: App = fastify({
    logger: false,
    bodyLimit: MAX_BODY,
    exposeHeadRoutes: false,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: requestTimeoutMs,
    // An id that is too long is a wrong id, and its resource exists.
    routerOptions: { maxParamLength: 20_000 },
    http: { headersTimeout: requestTimeoutMs, connectionsCheckingInterval: Math.min(1_000, requestTimeoutMs) },
    clientErrorHandler: refuse,
    frameworkErrors: (error, request, reply: FastifyReply) => {
      // No hook runs for such a request.
      const { status, body } = faultOf(refusalBy(guard, request) ?? frameworkFault(error))
      logAnswer(request, status, 0)
      void sendJson(reply.code(status).headers(headers), body)
    },
  }).withTypeProvider<SchemaTypes>()
  takeJson(app)
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const { method, raw } = request
    const failure = frameworkFault(error)
    changes.fails(request, failure)
    const fault = faultOf(failure)
    if (fault.status === 500) log.error({ method, url: pathOf(request), error: error.stack ?? textOf(error) }, 'bug')
    // The client need not send the rest of a body that is not read.
    if (!raw.complete) reply.header('connection', 'close')
    return sendJson(reply.code(fault.status).headers(fault.headers ?? {}), bodyOf?.(failure) ?? fault.body)
  })
  // Not onResponse, which does not come if the client has hung up. The change was made all the same.
  app.addHook('onSend', async (request, { statusCode: status }) => {
    const durationMs = performance.now() - began.get(request)!
    logAnswer(request, status, durationMs)
    changes.ends(request, status, durationMs)
  })
  app.addHook('onRequest', async (request, reply) => {
    began.set(request, performance.now())
    reply.headers(headers)
    guard?.(request)
    track(request.raw, reply.raw)
    // Fastify refuses a content type that it cannot parse.
    delete request.headers['content-type']
  })
  refuseOthers(app)
  extend?.(app)
  addDocument(app)
  const api = async (routes: FastifyInstance) => {
    routes.addHook('onRequest', async () => {
      vm = await served
    })
    routes.addHook('preHandler', async (request) => changes.begins(request))
    routes.addHook('preSerialization', async (request, _reply, body) => {
      changes.succeeds(request, body)
      return body
    })
    addRoutes(routes as App, () => vm)
    routes.get('/openapi.json', { schema: { hide: true } as object }, async () => app.swagger())
  }
  void app.register(api, { prefix })
  return app

  function pathOf({ url }: FastifyRequest): string {
    return url.startsWith(prefix) ? url.slice(prefix.length) : ''
  }

  function logAnswer(request: FastifyRequest, status: number, ms: number): void {
    log.info({ method: request.method, url: pathOf(request), status, ms: Math.round(ms) }, 'API request')
  }
}

/** Bodies are JSON both ways, and are what the schemas of valibot let through. */
function takeJson(app: App): void {
  app.setReplySerializer(textOfBody)
  app.setSerializerCompiler(() => (payload) => JSON.stringify(payload))
  app.setValidatorCompiler(({ schema, httpPart }) => (value) => {
    try {
      // Fastify passes null for a body that is missing. A body that is null does not get this far.
      return { value: read(schema as v.GenericSchema, value ?? undefined, httpPart ?? 'body') }
    } catch (error) {
      return { error: error as Error }
    }
  })
  // As curl sends it: the body is JSON, whatever its content type says.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, async (_request: IncomingMessage | object, bytes: Buffer) => parse(bytes))
}

function addDocument(app: App): void {
  void app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'vmm-shim', description: 'The control API of a demo VMM', version: packageJson.version },
    },
    transform: ({ schema, url }) => ({ schema: schema && jsonSchemas(schema), url }),
    transformObject: (document) => withOptionalBodies('openapiObject' in document ? document.openapiObject : {}),
  })
}

function textOfBody(body: unknown): string {
  return `${JSON.stringify(body)}\n`
}

/** As the app's serializer does it, which does not apply to a request without a route. */
function sendJson(reply: FastifyReply, body: unknown): FastifyReply {
  return reply.type('application/json; charset=utf-8').send(textOfBody(body))
}

/** Every schema of a route as JSON Schema. */
function jsonSchemas(schema: object): object {
  const { body, params, response, ...rest } = schema as Record<string, unknown>
  const responses = Object.entries(response ?? {}).map(([status, each]) => [status, jsonSchemaOf(each)])
  return {
    ...rest,
    ...(body !== undefined && { body: jsonSchemaOf(body as v.GenericSchema) }),
    ...((body as v.GenericSchema | undefined)?.type === 'optional' && { [OPTIONAL_BODY]: true }),
    ...(params !== undefined && { params: jsonSchemaOf(params as v.GenericSchema) }),
    response: Object.fromEntries(responses),
  }
}

/** Marks an operation whose body may be left out. The framework calls every body required. */
const OPTIONAL_BODY = 'x-optional-body'

function withOptionalBodies(document: { paths?: object }): object {
  for (const operation of Object.values(document.paths ?? {}).flatMap<Record<string, unknown>>(Object.values)) {
    if (operation[OPTIONAL_BODY]) operation.requestBody = { ...(operation.requestBody as object), required: false }
    delete operation[OPTIONAL_BODY]
  }
  return document
}

function refusalBy(guard: AppOptions['guard'], request: FastifyRequest): unknown {
  try {
    guard?.(request)
    return undefined
  } catch (error) {
    return error
  }
}

/** The framework's own errors, in the API's words. */
function frameworkFault(error: unknown): unknown {
  const { code, statusCode } = error as Partial<FastifyError>
  if (error instanceof HttpError || typeof statusCode !== 'number' || statusCode >= 500) return error
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return new HttpError(413, 'body', `must have at most ${MAX_BODY} bytes`)
  if (code === 'FST_ERR_BAD_URL') return new HttpError(400, 'id', 'must be percent-encoded correctly')
  return new HttpError(statusCode, 'request', textOf(error))
}

function parse(bytes: Buffer): unknown {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    throw new HttpError(400, 'body', 'is not UTF-8')
  }
  if (text.trim() === '') return undefined
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch (error) {
    throw new HttpError(400, 'body', `is not JSON: ${textOf(error)}`)
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new HttpError(400, 'body', 'must be a JSON object')
  return body
}
