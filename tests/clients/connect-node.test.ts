// @connectrpc/connect-node over HTTP/2 and HTTP/1.1, and over restarts of the server.

import http2 from 'node:http2'
import { create, createFileRegistry } from '@bufbuild/protobuf'
import type { GenService } from '@bufbuild/protobuf/codegenv2'
import { FileDescriptorProtoSchema, file_google_protobuf_wrappers, type StringValueSchema } from '@bufbuild/protobuf/wkt'
import { Code, type ConnectRouter, createClient, type Transport } from '@connectrpc/connect'
import { connectNodeAdapter, createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { allWays, type Way } from '../support/ways.js'

/** `service Echo { rpc Say(StringValue) returns (StringValue) }`, without a build step. */
const registry = createFileRegistry(
  create(FileDescriptorProtoSchema, {
    name: 'echo.proto',
    package: 'test',
    syntax: 'proto3',
    dependency: ['google/protobuf/wrappers.proto'],
    service: [
      {
        name: 'Echo',
        method: [{ name: 'Say', inputType: '.google.protobuf.StringValue', outputType: '.google.protobuf.StringValue' }],
      },
    ],
  }),
  (name) => (name === 'google/protobuf/wrappers.proto' ? file_google_protobuf_wrappers : undefined),
)
const Echo = registry.getService('test.Echo') as GenService<{
  say: { methodKind: 'unary'; input: typeof StringValueSchema; output: typeof StringValueSchema }
}>

const routes = (router: ConnectRouter) => router.service(Echo, { say: (request) => ({ value: `you said ${request.value}` }) })

async function say(transport: Transport, value: string): Promise<string> {
  return (await createClient(Echo, transport).say({ value }, { timeoutMs: 10_000 })).value
}

describe.each(allWays)('connect-node over $name', (kind) => {
  let way: Way
  let server: http2.Http2Server
  let sessions: Set<http2.ServerHttp2Session>

  const start = async () => {
    sessions = new Set()
    server = http2.createServer(connectNodeAdapter({ routes }))
    server.on('session', (session) => {
      sessions.add(session)
      session.on('error', () => {}).once('close', () => sessions.delete(session))
    })
    await new Promise<void>((resolve) => server.listen(way.path, resolve))
  }
  const stop = async (how: 'close' | 'destroy') => {
    const closed = new Promise((resolve) => server.close(resolve))
    for (const session of sessions) session[how]()
    await closed
  }
  beforeEach(async () => {
    way = await kind.open()
    await start()
  })
  afterEach(async () => {
    await stop('destroy')
    await way[Symbol.asyncDispose]()
  })

  const transports = {
    'the Connect protocol': createConnectTransport,
    gRPC: createGrpcTransport,
  } as const

  it.each(Object.entries(transports))('%s, and a new session after each restart', async (_, createTransport) => {
    const transport = createTransport({
      baseUrl: 'http://guest',
      httpVersion: '2',
      nodeOptions: { createConnection: () => way.connect() },
    })
    expect(await Promise.all(['a', 'b'].map((text) => say(transport, text)))).toEqual(['you said a', 'you said b'])
    expect(sessions.size).toBe(1)
    for (const how of ['close', 'destroy'] as const) {
      await stop(how)
      await start()
      await expect.poll(() => say(transport, 'again').catch((error: Error) => error.message)).toBe('you said again')
    }
  })

  it('HTTP/1.1 takes an agent', async () => {
    await stop('destroy')
    const { createServer } = await import('node:http')
    const plain = createServer(connectNodeAdapter({ routes }))
    await new Promise<void>((resolve) => plain.listen(way.path, resolve))
    const agent = way.agent({ keepAlive: true })
    const transport = createConnectTransport({ baseUrl: 'http://guest', httpVersion: '1.1', nodeOptions: { agent } })
    expect(await say(transport, 'hello')).toBe('you said hello')
    agent.destroy()
    await new Promise((resolve) => plain.close(resolve))
    await start()
  })

  it('tells of a server that is not there, and goes on when it is there', async () => {
    await stop('destroy')
    const transport = createConnectTransport({
      baseUrl: 'http://guest',
      httpVersion: '2',
      nodeOptions: { createConnection: () => way.connect() },
    })
    // connect-node does not know the ENOENT of a Unix socket without a file. It knows our ECONNREFUSED.
    const code = way.address === undefined ? Code.Internal : Code.Unavailable
    await expect(say(transport, 'hello')).rejects.toMatchObject({ code })
    await start()
    expect(await say(transport, 'hello')).toBe('you said hello')
  })
})
