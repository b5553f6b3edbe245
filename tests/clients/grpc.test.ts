// @grpc/grpc-js. Its client takes no socket: a bridge gives it a `unix:` address. Its server takes accepted sockets.
import * as grpc from '@grpc/grpc-js'
import { withoutLeaks } from '@upcall/testkit'
import { createSocket, forward, listen, type VsockServer, VsockSocket } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { echoHandlers, echoService } from '../support/echo-service.js'
import { ourWays, type Way } from '../support/ways.js'

const EchoClient = grpc.makeClientConstructor(echoService, 'Echo')
const insecure = grpc.credentials.createInsecure()

interface Echo extends grpc.Client {
  say(text: string, callback: grpc.requestCallback<string>): grpc.ClientUnaryCall
  say(text: string, options: grpc.CallOptions, callback: grpc.requestCallback<string>): grpc.ClientUnaryCall
  chat(): grpc.ClientDuplexStream<string, string>
}

const clientOf = (path: string) =>
  new EchoClient(`unix:${path}`, insecure, {
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 200,
  }) as unknown as Echo

function say(client: Echo, text: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + 20_000
    client.say(text, { deadline, waitForReady: true } as grpc.CallOptions, (error, answer) =>
      error ? reject(error) : resolve(answer),
    )
  })
}

async function chat(client: Echo, texts: readonly string[]): Promise<string[]> {
  const call = client.chat()
  for (const text of texts) call.write(text)
  call.end()
  const answers: string[] = []
  for await (const answer of call) answers.push(answer as string)
  return answers
}

/** A server whose connections come from `listen`. */
async function injected(address: string): Promise<{ server: grpc.Server; listener: VsockServer; close(): Promise<void> }> {
  const server = new grpc.Server()
  server.addService(echoService, echoHandlers)
  const injector = server.createConnectionInjector(grpc.ServerCredentials.createInsecure())
  const listener = await listen(address)
  listener.on('connection', (socket) => injector.injectConnection(socket))
  return {
    server,
    listener,
    async close() {
      await listener.close()
      injector.destroy()
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()))
    },
  }
}

describe.each(ourWays)('gRPC over $name', (kind) => {
  const bridgeTo = (way: Way, path: string) => forward(`unix:${path}`, way.address!, { halfClose: way.halfClose })

  it('a client reaches a server through a bridge, and again after the server has been restarted', async () => {
    await withoutLeaks(async () => {
      await using way = await kind.open()
      let guest = await injected(`unix:${way.path}`)
      const bridge = await bridgeTo(way, `${way.path}.bridge`)
      const client = clientOf(`${way.path}.bridge`)
      expect(await say(client, 'hello')).toBe('you said hello')
      expect(await chat(client, ['a', 'b'])).toEqual(['A', 'B'])
      const large = 'x'.repeat(1 << 20)
      expect(await say(client, large)).toBe(`you said ${large}`)

      guest.listener.closeAllConnections()
      await guest.close()
      guest = await injected(`unix:${way.path}`)
      expect(await say(client, 'again')).toBe('you said again')

      client.close()
      await bridge.close()
      await guest.close()
    })
  })

  it('a call fails with UNAVAILABLE when the server goes away in its middle', async () => {
    await using way = await kind.open()
    const guest = await injected(`unix:${way.path}`)
    const bridge = await bridgeTo(way, `${way.path}.bridge`)
    const client = clientOf(`${way.path}.bridge`)
    const call = client.chat()
    call.write('first')
    expect(await new Promise((resolve) => call.once('data', resolve))).toBe('FIRST')
    const error = new Promise((resolve) => call.once('error', resolve))
    guest.listener.closeAllConnections()
    expect(await error).toMatchObject({ code: grpc.status.UNAVAILABLE })
    client.close()
    await bridge.close()
    await guest.close()
  })

  it('the injected sockets are ours', async () => {
    await using way = await kind.open()
    const guest = await injected(`unix:${way.path}`)
    const socket = createSocket(way.address!, { halfClose: way.halfClose })
    await expect.poll(() => guest.listener.connections.size).toBe(1)
    for (const each of guest.listener.connections) expect(each).toBeInstanceOf(VsockSocket)
    socket.destroy()
    await expect.poll(() => guest.listener.connections.size).toBe(0)
    await guest.close()
  })
})
