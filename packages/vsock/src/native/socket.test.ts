import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { addonIfBuilt, FAMILIES, openDescriptors, sockaddrUnix } from '../../testing/addon.js'
import { adopt, type Names } from './adopt.js'
import type { Binding, Descriptor } from './binding.js'
import { connectSocket } from './connect.js'
import { type Listener, type ListenHandlers, listenSocket, type Sleep } from './listen.js'

const addon = addonIfBuilt()

class NamedSocket extends Socket {
  constructor(
    fd: number,
    readonly names: Names,
  ) {
    super({ fd, readable: true, writable: true, allowHalfOpen: true })
  }
}
const create = (fd: number, names: Names) => new NamedSocket(fd, names)

describe.runIf(addon)('the addon', () => {
  const binding = addon as Binding
  const opened: { destroy?: () => void; close?: () => void }[] = []
  afterEach(() => {
    for (const each of opened.splice(0)) each.destroy?.() ?? each.close?.()
  })
  const keep = <T extends Socket | Listener>(each: T): T => {
    opened.push(each)
    return each
  }

  type Target = { family: number; sockaddr: Uint8Array; backlog?: number }

  function listen(target: Target, handlers: Partial<ListenHandlers<NamedSocket>> = {}, sleep?: Sleep, over = binding) {
    const accepted: NamedSocket[] = []
    const waiting: ((socket: NamedSocket) => void)[] = []
    const listener = keep(
      listenSocket(
        over,
        { backlog: 16, ...target },
        {
          create,
          onConnection(socket) {
            keep(socket)
            const waiter = waiting.shift()
            if (waiter) waiter(socket)
            else accepted.push(socket)
          },
          onError: (error) => expect.unreachable(String(error)),
          ...handlers,
        },
        sleep,
      ),
    )
    const next = () =>
      new Promise<NamedSocket>((resolve) => {
        const socket = accepted.shift()
        if (socket) resolve(socket)
        else waiting.push(resolve)
      })
    return { listener, next }
  }

  async function pair({ family, fresh }: (typeof FAMILIES)[number]) {
    const { listener, next } = listen({ family, sockaddr: fresh() })
    const client = keep(await connectSocket(binding, { family, sockaddr: listener.local }, create))
    return { client, server: await next(), listener }
  }

  async function text(socket: Socket): Promise<string> {
    let all = ''
    socket.setEncoding('utf8').on('data', (chunk) => {
      all += chunk
    })
    await once(socket, 'end')
    return all
  }

  describe.each(FAMILIES)('over $name', (kind) => {
    it('connects, carries data both ways, and names both ends', async () => {
      const { client, server, listener } = await pair(kind)
      client.write('ping')
      expect(String((await once(server, 'data'))[0])).toBe('ping')
      server.write('pong')
      expect(String((await once(client, 'data'))[0])).toBe('pong')
      expect(client.names.remote).toEqual(listener.local)
      expect(server.names.local).toEqual(listener.local)
      if (kind.name === 'TCP') expect(server.names.remote).toEqual(client.names.local)
    })

    it('closes one half and leaves the other open, in either order', async () => {
      for (const first of ['client', 'server'] as const) {
        const ends = await pair(kind)
        const [early, late] = first === 'client' ? [ends.client, ends.server] : [ends.server, ends.client]
        early.end('done')
        expect(await text(late)).toBe('done')
        late.end('still here')
        expect(await text(early)).toBe('still here')
      }
    })

    it('holds a fast writer back until the reader reads, and loses nothing', async () => {
      const { client, server } = await pair(kind)
      const piece = randomBytes(65_536)
      const pieces = 128
      const sent = createHash('sha256')
      let held = 0
      const write = async () => {
        for (let i = 0; i < pieces; i++) {
          sent.update(piece)
          if (client.write(piece)) continue
          held++
          if (held === 1) server.on('data', (chunk) => received.update(chunk))
          await once(client, 'drain')
        }
        client.end()
      }
      const received = createHash('sha256')
      await Promise.all([write(), once(server, 'end')])
      expect(held).toBeGreaterThan(0)
      expect(server.bytesRead).toBe(pieces * piece.length)
      expect(received.digest('hex')).toBe(sent.digest('hex'))
    })

    it('passes a destroyed end on as EOF', async () => {
      const { client, server } = await pair(kind)
      client.destroy()
      expect(await text(server)).toBe('')
    })

    it("rejects with the kernel's errno where there is no listener, and leaves nothing open", async () => {
      const { listener } = listen({ family: kind.family, sockaddr: kind.fresh() })
      listener.close()
      const before = openDescriptors()
      const connecting = connectSocket(binding, { family: kind.family, sockaddr: listener.local }, create)
      await expect(connecting).rejects.toMatchObject({ code: 'ECONNREFUSED', errno: -111, syscall: 'connect' })
      expect(openDescriptors()).toBe(before)
    })
  })

  describe('a pending connect', () => {
    // A TCP connect to a listener whose queue is full stays in progress: its SYN is dropped.
    const [, tcp] = FAMILIES

    async function pending(signal?: AbortSignal) {
      const { listener } = listen({ family: tcp.family, sockaddr: tcp.fresh(), backlog: 0 }, {}, undefined, {
        ...binding,
        accept: () => undefined,
      })
      const attempts = Array.from({ length: 4 }, () =>
        connectSocket(binding, { family: tcp.family, sockaddr: listener.local }, create, { signal, ref: false }),
      )
      return attempts
    }

    it("rejects with the signal's reason, at once, and leaves nothing open", async () => {
      const stop = new AbortController()
      const reason = new Error('changed my mind')
      const before = openDescriptors()
      const attempts = await pending(stop.signal)
      setImmediate(() => stop.abort(reason))
      const results = await Promise.allSettled(attempts)
      const rejected = results.filter((result) => result.status === 'rejected')
      expect(rejected.length).toBeGreaterThanOrEqual(2)
      for (const result of rejected) expect(result.reason).toBe(reason)
      for (const result of results) if (result.status === 'fulfilled') result.value.destroy()
      for (const each of opened.splice(0)) each.close?.()
      await expect.poll(openDescriptors).toBe(before)
    })

    it('opens nothing for a signal that is aborted already', async () => {
      const before = openDescriptors()
      const reason = new Error('too late')
      const signal = AbortSignal.abort(reason)
      const target = { family: tcp.family, sockaddr: tcp.fresh() }
      await expect(connectSocket(binding, target, create, { signal })).rejects.toBe(reason)
      expect(openDescriptors()).toBe(before)
    })

    it('does not listen to the signal any longer once connected', async () => {
      const stop = new AbortController()
      const [unix] = FAMILIES
      const { listener } = listen({ family: unix.family, sockaddr: unix.fresh() })
      const target = { family: unix.family, sockaddr: listener.local }
      const socket = keep(await connectSocket(binding, target, create, { signal: stop.signal }))
      stop.abort()
      expect(socket.destroyed).toBe(false)
    })

    it('is refused at once over AF_UNIX when the backlog is full', async () => {
      const [unix] = FAMILIES
      const target = { family: unix.family, sockaddr: unix.fresh(), backlog: 0 }
      const { listener } = listen(target, {}, undefined, { ...binding, accept: () => undefined })
      const attempts = Array.from({ length: 3 }, () =>
        connectSocket(binding, { family: unix.family, sockaddr: listener.local }, create).then(keep),
      )
      const results = await Promise.allSettled(attempts)
      expect(results.map((result) => (result.status === 'rejected' ? result.reason.code : 'connected'))).toEqual([
        'connected',
        'EAGAIN',
        'EAGAIN',
      ])
    })
  })

  describe('adopting', () => {
    it('closes the connection when the socket cannot be made, and leaves nothing open', async () => {
      const [unix] = FAMILIES
      const { listener } = listen({ family: unix.family, sockaddr: unix.fresh() })
      const before = openDescriptors()
      const boom = new Error('no socket')
      const connecting = connectSocket(binding, { family: unix.family, sockaddr: listener.local }, () => {
        throw boom
      })
      await expect(connecting).rejects.toBe(boom)
      await new Promise(setImmediate)
      for (const each of opened.splice(1)) each.destroy?.()
      // What the listener keeps ready for the next connection.
      await expect.poll(openDescriptors).toBeLessThanOrEqual(before + 1)
    })

    it('closes the socket when the connection is gone', () => {
      const connection = binding.socket(binding.AF_UNIX)
      let socket: Socket | undefined
      const makeAndClose = (fd: number) => {
        socket = new Socket({ fd, readable: true, writable: true })
        binding.close(connection)
        return socket
      }
      const remote = sockaddrUnix('gone')
      expect(() => adopt(binding, connection, binding.placeholder(), remote, makeAndClose)).toThrow('EBADF')
      expect(socket?.destroyed).toBe(true)
    })
  })

  describe('a listener', () => {
    const [unix] = FAMILIES

    it('refuses after close, which is idempotent; accepted connections stay', async () => {
      const { client, server, listener } = await pair(unix)
      listener.close()
      listener.close()
      listener.unref()
      listener.ref()
      const target = { family: unix.family, sockaddr: listener.local }
      await expect(connectSocket(binding, target, create)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
      client.write('x')
      expect(String((await once(server, 'data'))[0])).toBe('x')
    })

    it('leaves nothing open, the place that it kept for the next connection included', async () => {
      const before = openDescriptors()
      const { client, server, listener } = await pair(unix)
      const closed = Promise.all([once(client, 'close'), once(server, 'close')])
      client.destroy()
      server.destroy()
      await closed
      listener.close()
      expect(openDescriptors()).toBe(before)
    })

    it('throws what bind says, and leaves nothing open', () => {
      const { listener } = listen({ family: unix.family, sockaddr: unix.fresh() })
      const before = openDescriptors()
      expect(() => listen({ family: unix.family, sockaddr: listener.local })).toThrow('bind EADDRINUSE')
      expect(openDescriptors()).toBe(before)
    })

    it('can be closed by the handler of a connection, with more waiting', async () => {
      const sockets: Socket[] = []
      const done = new Promise<void>((resolve) => {
        const { listener } = listen(
          { family: unix.family, sockaddr: unix.fresh() },
          {
            onConnection(socket) {
              sockets.push(keep(socket))
              listener.close()
              setImmediate(resolve)
            },
          },
        )
        for (let i = 0; i < 3; i++)
          void connectSocket(binding, { family: unix.family, sockaddr: listener.local }, create).then(keep)
      })
      await done
      expect(sockets).toHaveLength(1)
    })

    it('accepts more than a batch of waiting connections', async () => {
      const { listener, next } = listen({ family: unix.family, sockaddr: unix.fresh(), backlog: 200 })
      const target = { family: unix.family, sockaddr: listener.local }
      const clients = await Promise.all(Array.from({ length: 150 }, () => connectSocket(binding, target, create).then(keep)))
      const servers = await Promise.all(clients.map(() => next()))
      expect(new Set(servers).size).toBe(150)
    })

    it('waits when descriptors run out, longer each time, and then loses no connection', async () => {
      const pauses: { ms: number; resume: () => void; cancelled: boolean }[] = []
      let exhausted = 3
      const poor: Binding = {
        ...binding,
        accept(descriptor: Descriptor) {
          if (exhausted-- > 0) throw Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' })
          return binding.accept(descriptor)
        },
      }
      const paused: unknown[] = []
      const tick: (() => void)[] = []
      const { listener, next } = listen(
        { family: unix.family, sockaddr: unix.fresh() },
        {
          onPause(error, delayMs) {
            paused.push([(error as NodeJS.ErrnoException).code, delayMs])
            tick.shift()?.()
          },
        },
        (ms, fn) => {
          const pause = { ms, resume: fn, cancelled: false }
          pauses.push(pause)
          return () => {
            pause.cancelled = true
          }
        },
        poor,
      )
      const target = { family: unix.family, sockaddr: listener.local }
      for (let i = 0; i < 3; i++) {
        const seen = new Promise<void>((resolve) => tick.push(resolve))
        if (i === 0) keep(await connectSocket(binding, target, create))
        else pauses[i - 1]!.resume()
        await seen
        // Not watched meanwhile: the loop turns, and looks at what is watched, without another try.
        for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
        expect(pauses).toHaveLength(i + 1)
      }
      pauses[2]!.resume()
      expect(await next()).toBeInstanceOf(Socket)
      expect(paused).toEqual([
        ['EMFILE', 10],
        ['EMFILE', 20],
        ['EMFILE', 40],
      ])
    })

    it('gives up a pause when it is closed', async () => {
      let cancelled = 0
      const poor: Binding = {
        ...binding,
        accept() {
          throw Object.assign(new Error('accept ENFILE'), { code: 'ENFILE' })
        },
      }
      await new Promise<void>((resolve) => {
        const { listener } = listen(
          { family: unix.family, sockaddr: unix.fresh() },
          {
            onPause() {
              listener.close()
              resolve()
            },
          },
          () => () => cancelled++,
          poor,
        )
        void connectSocket(binding, { family: unix.family, sockaddr: listener.local }, create).then(keep)
      })
      expect(cancelled).toBe(1)
    })

    it('closes and reports when accepting fails for good', async () => {
      const broken: Binding = {
        ...binding,
        accept() {
          throw Object.assign(new Error('accept EIO'), { code: 'EIO' })
        },
      }
      const failed = new Promise<unknown>((resolve) => {
        const { listener } = listen({ family: unix.family, sockaddr: unix.fresh() }, { onError: resolve }, undefined, broken)
        void connectSocket(binding, { family: unix.family, sockaddr: listener.local }, create).then(keep)
      })
      expect(await failed).toMatchObject({ code: 'EIO' })
    })
  })
})
