import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { catchUncaught } from '@upcall/foundation/testing/uncaught'
import { takePath } from '@upcall/foundation/unix-path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { openAcceptor } from './acceptor.js'
import { connect } from './connect.js'
import type { VsockSocket } from './socket.js'

vi.mock('@upcall/foundation/unix-path', { spy: true })

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

/** The kernel has the connection, and so has the acceptor after some turns. */
async function connected(path: string): Promise<VsockSocket> {
  const socket = await connect(`unix:${path}`)
  for (let i = 0; i < 20; i++) await new Promise(setImmediate)
  return socket
}

it('a connection that comes before its server is ready waits for it, and keeps its bytes', async () => {
  const path = join(dir, 's')
  const acceptor = await openAcceptor({ local: { transport: 'unix', path } }, {})
  const client = await connected(path)
  client.write('early')
  const taken = new Promise<VsockSocket>((resolve) => acceptor.start({ onConnection: resolve, onError: () => {} }))
  const socket = await taken
  expect(String((await once(socket, 'data'))[0])).toBe('early')
  // What happens to it is its taker's to hear.
  expect(socket.listenerCount('error')).toBe(0)
  client.destroy()
  socket.destroy()
  await acceptor.stop()
  expect(readdirSync(dir)).toEqual([])
})

it('a connection that no server takes is closed with the acceptor', async () => {
  const path = join(dir, 's')
  const acceptor = await openAcceptor({ local: { transport: 'unix', path } }, {})
  const client = await connected(path)
  const ended = once(client.resume(), 'end')
  await acceptor.stop()
  await ended
  client.destroy()
  expect(readdirSync(dir)).toEqual([])
})

it('a server that fails to take one early connection gets the others', async () => {
  using uncaught = catchUncaught()
  const path = join(dir, 's')
  const acceptor = await openAcceptor({ local: { transport: 'unix', path } }, {})
  const clients = [await connected(path), await connected(path)]
  const taken: VsockSocket[] = []
  const onConnection = (socket: VsockSocket) => {
    if (taken.push(socket) === 1) throw new Error('a bug')
  }
  acceptor.start({ onConnection, onError: () => {} })
  expect(taken).toHaveLength(2)
  expect(await uncaught.next()).toEqual(new Error('a bug'))
  for (const socket of [...clients, ...taken]) socket.destroy()
  await acceptor.stop()
})

it('the listener is closed although the file cannot be removed', async () => {
  const path = join(dir, 's')
  const stuck = Object.assign(new Error('stuck'), { code: 'EROFS' })
  vi.mocked(takePath).mockImplementationOnce(async (_path, { listen }) => {
    await listen(path)
    return () => Promise.reject(stuck)
  })
  const acceptor = await openAcceptor({ local: { transport: 'unix', path } }, {})
  acceptor.start({ onConnection: (socket) => socket.destroy(), onError: () => {} })
  await expect(acceptor.stop()).rejects.toBe(stuck)
  await expect(connect(`unix:${path}`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})
