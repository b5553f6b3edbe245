import diagnostics from 'node:diagnostics_channel'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { bindServer } from './bind-server.js'
import { connect } from './connect.js'
import { listenHybrid } from './hybrid.js'
import { listen } from './listen.js'

let dir: string
let path: string
const seen: unknown[] = []
const see = (message: unknown) => void seen.push(message)

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 's')
  seen.length = 0
  diagnostics.subscribe('upcall:vsock', see)
})
afterEach(() => {
  diagnostics.unsubscribe('upcall:vsock', see)
  rmSync(dir, { recursive: true, force: true })
})

it('each failed attempt of a connect with retry is seen, with its error and the delay until the next one', async () => {
  const connecting = connect(`unix:${path}`, { retry: { minDelayMs: 1, maxDelayMs: 1 } })
  await expect.poll(() => seen.length).toBeGreaterThan(1)
  const server = await listen(`unix:${path}`)
  const socket = await connecting
  const remote = { transport: 'unix', path }
  expect(seen.slice(0, 2)).toMatchObject([
    { type: 'connect-failed', remote, attempts: 1, error: { code: 'ECONNREFUSED' }, retryInMs: 1 },
    { type: 'connect-failed', remote, attempts: 2, error: { code: 'ECONNREFUSED' }, retryInMs: 1 },
  ])
  expect(seen).toContainEqual({ type: 'connected', remote, attempts: expect.any(Number) })
  socket.destroy()
  await server.close()
})

it('the last failure has no next attempt', async () => {
  await expect(connect(`unix:${path}`)).rejects.toThrow()
  expect(seen).toMatchObject([{ type: 'connect-failed', attempts: 1, retryInMs: undefined }])
})

it('a server is seen from its listening to its close', async () => {
  const server = await listen(`unix:${path}`, { maxPending: 1 })
  const sockets = [await connect(`unix:${path}`), await connect(`unix:${path}`)]
  const local = { transport: 'unix', path }
  await expect.poll(() => seen).toContainEqual({ type: 'dropped', local })
  await server.close()
  const types = seen.map((message) => (message as { type: string }).type)
  expect(types.filter((type) => type !== 'connected')).toEqual(['listening', 'accepted', 'accepted', 'dropped', 'closed'])
  expect(seen[0]).toEqual({ type: 'listening', local })
  for (const socket of sockets) socket.destroy()
})

it("a server of the caller's, too", async () => {
  const server = http.createServer()
  await bindServer(server, `unix:${path}`)
  await new Promise((resolve) => server.close(resolve))
  expect(seen).toMatchObject([{ type: 'listening' }, { type: 'closed' }])
})

it('handshakes and refusals are seen', async () => {
  const vmm = await listenHybrid({ path, route: (port) => (port === 1 ? new PassThrough() : undefined) })
  const socket = await connect(`hvsock://${path}:1`)
  await expect(connect(`hvsock://${path}:2`)).rejects.toThrow()
  expect(seen).toContainEqual({ type: 'handshake', path, port: 1, hostPort: 2 ** 30 })
  expect(seen).toContainEqual({ type: 'refused', path, port: 2, reason: 'no-route', cause: undefined })
  socket.destroy()
  await once(socket, 'close')
  await vmm.close()
})
