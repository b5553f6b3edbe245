// What programs do with a bare net.Socket, side by side with `net`.
import net, { type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { createSocket } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { withMuteVmm } from '../support/mute-vmm.js'
import { allWays, type Way } from '../support/ways.js'

const closed = (socket: Socket) => new Promise<boolean>((resolve) => socket.once('close', resolve))

describe.each(allWays)('a socket over $name', (kind) => {
  let way: Way
  let server: net.Server
  let connections: Set<Socket>

  const serve = (handler: (socket: Socket) => void) =>
    server.removeAllListeners('connection').on('connection', (socket: Socket) => {
      connections.add(socket)
      socket.on('error', () => {}).once('close', () => connections.delete(socket))
      handler(socket)
    })

  beforeEach(async () => {
    way = await kind.open()
    connections = new Set()
    server = net.createServer()
    await new Promise<void>((resolve) => server.listen(way.path, resolve))
  })
  afterEach(async () => {
    for (const socket of connections) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
    await way[Symbol.asyncDispose]()
  })

  it('closes by itself when the peer has ended, after what was written', async () => {
    let got = ''
    serve((socket) => socket.on('data', (chunk) => (got += chunk)).end('bye'))
    const socket = way.connect()
    const events: string[] = []
    for (const event of ['connect', 'ready', 'end', 'finish', 'close'] as const) socket.on(event, () => events.push(event))
    socket.write('hello')
    socket.resume()
    expect(await closed(socket)).toBe(false)
    expect(events.filter((event) => event !== 'finish')).toEqual(['connect', 'ready', 'end', 'close'])
    expect(events).toContain('finish')
    await expect.poll(() => connections.size).toBe(0)
    expect(got).toBe('hello')
  })

  it('for await reads to the end, and the socket closes', async () => {
    serve((socket) => void socket.end(Buffer.alloc(300_000, 'x')))
    const socket = way.connect()
    let bytes = 0
    for await (const chunk of socket) bytes += (chunk as Buffer).length
    expect(bytes).toBe(300_000)
    await expect.poll(() => socket.destroyed).toBe(true)
    await expect.poll(() => connections.size).toBe(0)
  })

  it('leaving a for await destroys the socket', async () => {
    serve((socket) => void socket.write('first'))
    const socket = way.connect()
    for await (const chunk of socket) {
      expect(String(chunk)).toBe('first')
      break
    }
    expect(socket.destroyed).toBe(true)
    await expect.poll(() => connections.size).toBe(0)
  })

  it('pipeline() through it ends when the peer has answered', async () => {
    serve((socket) => socket.pipe(socket))
    const [source, sink] = [new PassThrough(), new PassThrough()]
    let text = ''
    sink.on('data', (chunk) => (text += chunk))
    const socket = way.connect()
    socket.once('data', () => source.end())
    source.write('hello')
    // A peer that only echoes ends when it sees EOF. Without half-close it sees none: the guest ends instead.
    const endAll = () => {
      for (const each of connections) each.end()
    }
    if (way.halfClose === false) socket.once('data', () => setTimeout(endAll, 20))
    await pipeline(source, socket, sink)
    expect(text).toBe('hello')
    await expect.poll(() => socket.destroyed).toBe(true)
  })

  it('finished() resolves when both directions are over, and fails when the peer resets', async () => {
    serve((socket) => void socket.end('bye'))
    const one = way.connect()
    one.resume()
    await finished(one)
    serve((socket) => socket.once('data', () => socket.destroy()))
    const two = way.connect()
    two.resume()
    two.write(Buffer.alloc(4 << 20))
    await expect(finished(two)).rejects.toMatchObject({ code: expect.stringMatching(/EPIPE|ECONNRESET/) as string })
  })

  it('destroy() at once, and destroy() with an error: "close" says which', async () => {
    serve(() => {})
    const one = way.connect()
    one.destroy()
    expect(await closed(one)).toBe(false)
    const two = way.connect()
    const error = new Promise((resolve) => two.once('error', resolve))
    const over = closed(two)
    two.destroy(new Error('mine'))
    expect(await error).toMatchObject({ message: 'mine' })
    expect(await over).toBe(true)
    await expect.poll(() => connections.size).toBe(0)
  })

  it('end() at once sends what was written, and the socket closes after the answer', async () => {
    let got = ''
    serve((socket) => {
      socket.on('data', (chunk) => (got += chunk))
      if (way.halfClose === false) socket.once('data', () => socket.end('answer'))
      else socket.once('end', () => socket.end('answer'))
      socket.allowHalfOpen = true
    })
    const socket = way.connect()
    let text = ''
    socket.on('data', (chunk) => (text += chunk))
    const over = closed(socket)
    socket.end('request')
    expect(await over).toBe(false)
    expect([got, text]).toEqual(['request', 'answer'])
  })

  it('write() and end() call back, also before it connects', async () => {
    serve((socket) => socket.resume().once('data', () => socket.end()))
    const socket = way.connect()
    socket.resume()
    const calls: string[] = []
    socket.write('a', () => calls.push('write'))
    socket.end('b', () => calls.push('end'))
    await closed(socket)
    expect(calls).toEqual(['write', 'end'])
  })

  it('counts what was written and read, without the handshake', async () => {
    serve((socket) => socket.once('data', () => socket.end('answer')))
    const socket = way.connect()
    socket.resume().write('request')
    expect([socket.bytesWritten, socket.bytesRead]).toEqual([7, 0])
    await closed(socket)
    expect([socket.bytesWritten, socket.bytesRead]).toEqual([7, 6])
  })

  it('setTimeout() set before it connects works', async () => {
    serve(() => {})
    const socket = way.connect()
    socket.setTimeout(50)
    await new Promise((resolve) => socket.once('timeout', resolve))
    expect(socket.destroyed).toBe(false)
    socket.destroy()
    await closed(socket)
  })

  // Node has it from 20.4 for readable streams.
  it('is async disposable', async () => {
    serve(() => {})
    const socket = way.connect()
    const over = closed(socket)
    socket.on('error', () => {})
    {
      await using _ = socket
    }
    expect(socket.destroyed).toBe(true)
    await over
  })

  it('with allowHalfOpen, stays writable after the peer has ended', async () => {
    let got = ''
    serve((socket) => socket.on('data', (chunk) => (got += chunk)).end('bye'))
    const socket = way.connect({ allowHalfOpen: true })
    socket.resume()
    await new Promise((resolve) => socket.once('end', resolve))
    for (let i = 0; i < 20; i++) await new Promise(setImmediate)
    expect([socket.destroyed, socket.writable]).toEqual([false, true])
    socket.end('later')
    await closed(socket)
    await expect.poll(() => got).toBe('later')
  })
})

it('setTimeout() tells of a guest that does not answer', () =>
  withMuteVmm(async ({ address, dialers }) => {
    const socket = createSocket(address, { timeoutMs: 60_000 })
    socket.setTimeout(50)
    await new Promise((resolve) => socket.once('timeout', resolve))
    expect([socket.connecting, socket.destroyed]).toEqual([true, false])
    socket.destroy()
    await closed(socket)
    await expect.poll(() => dialers.size).toBe(0)
  }))
