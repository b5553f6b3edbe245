import { execFileSync } from 'node:child_process'
import { getEventListeners } from 'node:events'
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, connect as netConnect, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exclusively, startingKey } from '@upcall/foundation/unix-path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connect } from './connect.js'
import { type ListenOptions, listen, type VsockServer } from './listen.js'
import { VsockSocket } from './socket.js'

let dir: string
let path: string
let servers: VsockServer[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vsock-'))
  path = join(dir, 'server.sock')
})
afterEach(async () => {
  for (const server of servers) {
    server.closeAllConnections()
    await server.close()
  }
  servers = []
  rmSync(dir, { recursive: true, force: true })
})

async function open(options: ListenOptions = {}, at = `unix:${path}`): Promise<VsockServer> {
  const server = await listen(at, options)
  servers.push(server)
  return server
}

/** A socket file whose process is gone. */
function leaveStaleSocket(at = path): void {
  execFileSync(
    process.execPath,
    ['-e', `require('net').createServer().listen(${JSON.stringify(at)}, () => process.kill(process.pid, 'SIGKILL'))`],
    {
      stdio: 'ignore',
      timeout: 10_000,
      // A child that ends by a signal is what is asked for.
      killSignal: 'SIGKILL',
    },
  )
}

function stale(at = path): void {
  expect(() => leaveStaleSocket(at)).toThrow()
  expect(lstatSync(at).isSocket()).toBe(true)
}

async function say(text: string, at = `unix:${path}`): Promise<string> {
  const socket = await connect(at)
  socket.end(text)
  let answer = ''
  for await (const chunk of socket) answer += chunk
  return answer
}

const echo = (socket: Socket) => socket.pipe(socket)

describe('accepting', () => {
  it('emits sockets that are net.Sockets with addresses', async () => {
    const server = await open()
    const accepted = new Promise<VsockSocket>((resolve) => server.once('connection', resolve))
    const socket = await connect(`unix:${path}`)
    const other = await accepted
    expect(other).toBeInstanceOf(VsockSocket)
    expect(other).toBeInstanceOf(Socket)
    expect(other.allowHalfOpen).toBe(false)
    expect(other.local).toEqual({ transport: 'unix', path })
    expect(other.remote).toBeUndefined()
    expect(other.halfClose).toBe(true)
    // What happens to it is its taker's to hear.
    expect(other.listenerCount('error')).toBe(0)
    socket.destroy()
  })

  it('binds <path>_<port> for what the guest connects to', async () => {
    const server = await open({}, `hvsock://${path}:52`)
    server.on('connection', (socket) => {
      expect(socket.halfClose).toBe(false)
      expect(socket.local).toEqual({ transport: 'hvsock', path, port: 52 })
      echo(socket)
    })
    expect(existsSync(path)).toBe(false)
    expect(await say('no handshake', `unix:${path}_52`)).toBe('no handshake')
    await server.close()
    expect(readdirSync(dir)).toEqual([])
  })

  it('iterates, holds connections back for the loop, and ends with close()', async () => {
    const server = await open()
    const answers = Promise.all(['one', 'two', 'three'].map((text) => say(text)))
    let seen = 0
    for await (const socket of server) {
      echo(socket)
      if (++seen === 3) break
    }
    expect(await answers).toEqual(['one', 'two', 'three'])
    // Leaving the loop left the server open.
    const again = server[Symbol.asyncIterator]()
    const next = again.next()
    await server.close()
    expect(await next).toEqual({ done: true, value: undefined })
    expect(await again.next()).toEqual({ done: true, value: undefined })
  })

  it('hands waiting connections to a listener that comes late', async () => {
    const server = await open()
    const answer = say('early')
    await until(() => server.connections.size === 1)
    server.on('connection', echo)
    expect(await answer).toBe('early')
  })

  it('closes connections beyond maxPending, and keeps those that wait', async () => {
    const server = await open({ maxPending: 2 })
    const sockets = await Promise.all([0, 1, 2, 3].map(() => connect(`unix:${path}`)))
    const ended = Promise.all(sockets.slice(2).map((socket) => new Promise((resolve) => socket.once('end', resolve).resume())))
    await ended
    expect(server.connections.size).toBe(2)
    server.on('connection', echo)
    const socket = sockets[0]!
    socket.write('x')
    expect(String(await new Promise((resolve) => socket.once('data', resolve)))).toBe('x')
    for (const each of sockets) each.destroy()
  })

  it('forgets a waiting connection that breaks', async () => {
    const server = await open({ maxPending: 1 })
    const first = await connect(`unix:${path}`)
    await until(() => server.connections.size === 1)
    for (const socket of server.connections) socket.destroy(new Error('broken'))
    await until(() => server.connections.size === 0)
    const taken: boolean[] = []
    server.on('connection', (socket) => {
      taken.push(!socket.destroyed)
      echo(socket)
    })
    expect(await say('next')).toBe('next')
    expect(taken).toEqual([true])
    first.destroy()
  })

  it.each([0, -1, 1.5, Number.NaN])('refuses maxPending %d', async (maxPending) => {
    await expect(listen(`unix:${path}`, { maxPending })).rejects.toThrow(RangeError)
    expect(readdirSync(dir)).toEqual([])
  })
})

describe('the socket file', () => {
  it('is made with its mode, and removed at close', async () => {
    const server = await open({ mode: 0o600 })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(readdirSync(dir)).toEqual(['server.sock'])
    await server.close()
    await server.close()
    expect(readdirSync(dir)).toEqual([])
  })

  it('is taken over from a server that died', async () => {
    stale()
    const server = await open()
    server.on('connection', echo)
    expect(await say('alive')).toBe('alive')
    expect(readdirSync(dir)).toEqual(['server.sock'])
  })

  it('is not taken from a server that lives', async () => {
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(path, resolve))
    const { ino } = statSync(path)
    const error = await listen(`unix:${path}`).catch((e: Error) => e)
    expect(error).toMatchObject({ code: 'EADDRINUSE', op: 'listen', local: { transport: 'unix', path }, retryable: false })
    expect((error as Error).message).toBe(
      `listen unix:${path}: another server listens there. Stop that server, or choose another path.`,
    )
    expect(statSync(path).ino).toBe(ino)
    expect(readdirSync(dir)).toEqual(['server.sock'])
    await new Promise((resolve) => other.close(resolve))
  })

  it('is not taken from ourselves', async () => {
    await open()
    await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'EADDRINUSE' })
  })

  it.each([
    ['a regular file', () => writeFileSync(path, 'precious')],
    ['a directory', () => mkdirSync(path)],
    ['a dangling link', () => symlinkSync('nowhere', path)],
  ])('never replaces %s', async (_, make) => {
    make()
    const before = lstatSync(path).ino
    await expect(listen(`unix:${path}`)).rejects.toThrow(/exists and is not a socket\. Move it away/)
    expect(lstatSync(path).ino).toBe(before)
    expect(readdirSync(dir)).toEqual(['server.sock'])
  })

  it('is left alone at close if another process has it by then', async () => {
    const server = await open()
    rmSync(path)
    writeFileSync(path, 'not ours')
    await server.close()
    expect(readFileSync(path, 'utf8')).toBe('not ours')
  })

  it.each([
    ['no file', () => {}],
    ['a stale one', () => stale()],
  ])('goes to exactly one of many that start at once, with %s there', async (_, prepare) => {
    prepare()
    const starts = await Promise.allSettled(Array.from({ length: 20 }, () => listen(`unix:${path}`)))
    const won = starts.filter((start) => start.status === 'fulfilled').map((start) => start.value)
    servers.push(...won)
    expect(won).toHaveLength(1)
    for (const start of starts) if (start.status === 'rejected') expect(start.reason).toMatchObject({ code: 'EADDRINUSE' })
    won[0]!.on('connection', echo)
    expect(await say('the winner')).toBe('the winner')
    expect(readdirSync(dir)).toEqual(['server.sock'])
  })

  it.runIf(process.platform === 'linux')(
    'may have a path of 107 bytes, in a directory that leaves no room for another name',
    async () => {
      const deep = join(dir, 'd'.repeat(105 - Buffer.byteLength(dir) - 1))
      mkdirSync(deep)
      const longest = `${deep}/s`
      expect(Buffer.byteLength(longest)).toBe(107)
      const server = await open({ mode: 0o600 }, `unix:${longest}`)
      server.on('connection', echo)
      expect(await say('deep', `unix:${longest}`)).toBe('deep')
      await server.close()
      expect(readdirSync(deep)).toEqual([])
    },
  )

  it('needs its directory', async () => {
    const error = await listen(`unix:${dir}/missing/s`).catch((e: Error) => e)
    expect(error).toMatchObject({ code: 'ENOENT', op: 'listen', cause: { code: 'ENOENT' } })
    expect((error as Error).message).toMatch(/the directory does not exist \(ENOENT\)\. Create it first\.$/)
  })

  it.runIf(process.platform === 'linux')('is taken over by one starter at a time', async () => {
    // A socket whose listener is gone: the listener's own name is removed with it, the link stays.
    const dead = createServer()
    await new Promise<void>((resolve) => dead.listen(`${path}.dead`, resolve))
    linkSync(`${path}.dead`, path)
    await new Promise((resolve) => dead.close(resolve))
    const { ino } = lstatSync(path)

    const order: string[] = []
    let finish = () => {}
    const other = exclusively(
      await startingKey(path),
      (what) => new Error(what),
      async () => {
        await new Promise<void>((resolve) => {
          finish = resolve
        })
        order.push('the other starter has looked')
      },
    )
    const starting = open().then(() => order.push('we listen'))
    for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate)
    expect(order).toEqual([])
    expect(lstatSync(path).ino).toBe(ino)
    finish()
    await Promise.all([other, starting])
    expect(order).toEqual(['the other starter has looked', 'we listen'])
  })
})

describe('the end', () => {
  it('comes with the signal', async () => {
    const reason = new Error('enough')
    await expect(listen(`unix:${path}`, { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: reason,
    })
    const early = new AbortController()
    const starting = listen(`unix:${path}`, { signal: early.signal })
    early.abort(reason)
    await expect(starting).rejects.toMatchObject({ code: 'ABORTED', cause: reason })
    expect(readdirSync(dir)).toEqual([])
    const control = new AbortController()
    const server = await open({ signal: control.signal })
    const closed = new Promise<void>((resolve) => server.once('close', resolve))
    control.abort()
    await closed
    expect(readdirSync(dir)).toEqual([])
  })

  it('comes to many with one signal, which one listener is enough for', async () => {
    const control = new AbortController()
    const { signal } = control
    const servers = await Promise.all(Array.from({ length: 12 }, (_, i) => listen(`unix:${path}${i}`, { signal })))
    const listeners = () => getEventListeners(signal, 'abort').length
    expect(listeners()).toBe(1)
    const closed = servers.map((server) => new Promise<void>((resolve) => server.once('close', resolve)))
    await servers[0]!.close()
    expect(listeners()).toBe(1)
    control.abort()
    await Promise.all(closed)
    expect([listeners(), readdirSync(dir)]).toEqual([0, []])
  })

  it('closes who waits and leaves who was taken', async () => {
    const server = await open()
    const taken = await connect(`unix:${path}`)
    for await (const socket of server) {
      echo(socket)
      break
    }
    const waiting = await connect(`unix:${path}`)
    const ended = new Promise((resolve) => waiting.once('end', resolve).resume())
    await until(() => server.connections.size === 2)
    await server.close()
    await ended
    taken.write('still here')
    expect(String(await new Promise((resolve) => taken.once('data', resolve)))).toBe('still here')
    const end = new Promise((resolve) => taken.once('end', resolve).resume())
    server.closeAllConnections()
    await end
    waiting.destroy()
    taken.destroy()
  })

  it('comes by itself with await using', async () => {
    {
      await using server = await listen(`unix:${path}`)
      expect(server.address).toEqual({ transport: 'unix', path })
    }
    expect(readdirSync(dir)).toEqual([])
    expect(await new Promise((resolve) => netConnect(path).once('error', (e: NodeJS.ErrnoException) => resolve(e.code)))).toBe(
      'ENOENT',
    )
  })
})

/** Gives the event loop its turns until something holds. */
async function until(holds: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 10_000; performance.now() < deadline; ) {
    if (holds()) return
    await new Promise(setImmediate)
  }
  throw new Error('it never came to hold')
}

describe('the options of a socket file', () => {
  it.each([0, -1, 1.5, Number.NaN, 2 ** 31])('backlog %d is refused before anything is made', async (backlog) => {
    await expect(listen('unix:/nonexistent/a.sock', { backlog })).rejects.toThrow(
      `backlog: must be an integer from 1 to 2147483647, got ${backlog}`,
    )
  })

  it.each([-1, 0o1000, 1.5, Number.NaN, '0600' as never])('mode %s is refused before anything is made', async (mode) => {
    await expect(listen('unix:/nonexistent/a.sock', { mode })).rejects.toThrow(
      `mode: must be an integer from 0 to 0o777, got ${JSON.stringify(mode) === 'null' ? 'NaN' : JSON.stringify(mode)}`,
    )
  })
})
