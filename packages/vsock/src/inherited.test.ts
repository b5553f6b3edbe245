import { once } from 'node:events'
import { closeSync, existsSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import http from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, inherited, openDescriptors, sockaddrOf } from '../testing/addon.js'
import { bindServer } from './bind-server.js'
import { connect } from './connect.js'
import { createSocket } from './create-socket.js'
import { forward } from './forward/forward.js'
import { listenHybrid } from './hybrid.js'
import { listen } from './listen.js'
import type { Binding } from './native/binding.js'
import * as loader from './native/loader.js'
import { AF_VSOCK, encodeSockaddrVm } from './native/sockaddr.js'
import { VsockSocket } from './socket.js'

vi.mock('./native/loader.js', { spy: true })

const addon = addonIfBuilt()
const missing = new loader.AddonError('@upcall/vsock', 'it is not here', 'Get it.', [])

let dir: string
let path: string
const open: (() => unknown)[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-fd-'))
  path = join(dir, 'unit.sock')
})
afterEach(async () => {
  for (const close of open.splice(0)) await close()
  vi.restoreAllMocks()
  rmSync(dir, { recursive: true, force: true })
})

function use(binding: Binding | undefined): void {
  vi.mocked(loader.loadBinding).mockImplementation(() => {
    if (binding === undefined) throw missing
    return binding
  })
}

const stream = (address: string, connected: boolean) => () => {
  const descriptor = addon!.socket(addon!.AF_UNIX)
  if (connected) addon!.connect(descriptor, sockaddrOf(address))
  else addon!.bind(descriptor, sockaddrOf(address))
  return descriptor
}

const listening = (address: string) => () => {
  const descriptor = stream(address, false)()
  addon!.listen(descriptor, 16)
  return descriptor
}

/** Owned by whatever is made of it. */
const listeningFd = (address = path) => inherited(listening(address))

async function thrown(act: () => unknown): Promise<unknown> {
  try {
    await act()
  } catch (error) {
    return error
  }
  return expect.unreachable('it went well')
}

const say = async (address: string, words = 'hello') => {
  const socket = await connect(address, { allowHalfOpen: true, halfClose: true })
  socket.end(words)
  return text(socket)
}

describe.runIf(addon !== undefined).each([
  ['with the addon', true],
  ['without the addon', false],
])('%s, a Unix socket that another program opened', (_, withAddon) => {
  beforeEach(() => use(withAddon ? addon! : undefined))

  it.each(['a path', 'an abstract name'])('is listened on at %s; the server owns it, and its maker the file', async (kind) => {
    const address = kind === 'a path' ? path : `@upcall-fd-${process.pid}-${withAddon}`
    const before = openDescriptors()
    const fd = listeningFd(address)
    const server = await listen({ fd })
    expect(server.address).toEqual({ transport: 'unix', path: address })
    server.on('connection', (socket) => {
      expect(socket).toBeInstanceOf(VsockSocket)
      expect(socket.local).toEqual(server.address)
      socket.pipe(socket)
    })
    // By the addon: Node 20 pads an abstract name with zeros.
    const client = createSocket({ fd: inherited(stream(address, true)) }, { allowHalfOpen: true })
    client.end('hello')
    expect(await text(client)).toBe('hello')
    await server.close()
    await expect.poll(openDescriptors).toBe(before)
    expect(existsSync(path)).toBe(kind === 'a path')
  })

  it('may be bound and not listen yet', async () => {
    await using server = await listen({ fd: inherited(stream(path, false)) }, { backlog: 3 })
    server.on('connection', (socket) => socket.pipe(socket))
    expect(await say(`unix:${path}`)).toBe('hello')
  })

  it("is where a server of the caller's listens", async () => {
    const server = http.createServer((request, response) => response.end(request.url))
    const bound = await bindServer(server, { fd: listeningFd() })
    expect(server.address()).toBe(path)
    expect(server.listening).toBe(true)
    const request = http.get({ socketPath: path, path: '/activated' })
    const [response] = (await once(request, 'response')) as [http.IncomingMessage]
    expect(await text(response)).toBe('/activated')
    await bound.close()
    expect(existsSync(path)).toBe(true)
    await expect(connect(`unix:${path}`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('is where a bridge listens', async () => {
    await using target = await listen(`unix:${dir}/target`, { allowHalfOpen: true })
    target.on('connection', (socket) => socket.pipe(socket))
    await using bridge = await forward({ fd: listeningFd() }, target.address)
    expect(bridge.address).toEqual({ transport: 'unix', path })
    expect(await say(`unix:${path}`)).toBe('hello')
    const fd = 9_999
    await expect(forward({ fd }, target.address)).rejects.toMatchObject({ code: 'EBADF' })
    await expect(forward({ fd }, target.address, { asVmm: true })).rejects.toThrow('asVmm: must be false for a descriptor')
    await expect(forward({ fd }, target.address, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
  })

  it('is where a VMM of hybrid vsock listens', async () => {
    await using server = await listenHybrid({ fd: listeningFd(), route: () => new PassThrough() })
    expect(server.path).toBe(path)
    expect(await say(`hvsock://${path}:52`)).toBe('hello')
  })

  it('is a connection: connected from the start, and closed with its socket', async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
    open.push(() => server.close())
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const before = openDescriptors()
    const fd = inherited(stream(path, true))
    const socket = createSocket({ fd }, { allowHalfOpen: true })
    expect([socket.connecting, socket.pending, socket.halfClose]).toEqual([false, false, true])
    expect(socket.local).toBeUndefined()
    if (withAddon) expect(socket.remote).toEqual({ transport: 'unix', path })
    socket.end('hello')
    expect(await text(socket)).toBe('hello')
    await expect.poll(openDescriptors).toBe(before)

    const stop = new AbortController()
    const awaited = await connect({ fd: inherited(stream(path, true)) }, { signal: stop.signal })
    stop.abort()
    expect(awaited.destroyed).toBe(false)
    awaited.destroy()
    const reason = new Error('enough')
    const aborted = createSocket({ fd: inherited(stream(path, true)) }, { signal: AbortSignal.abort(reason) })
    const [error] = await once(aborted, 'error')
    expect(error).toMatchObject({ code: 'ABORTED', cause: reason })
    await expect.poll(openDescriptors).toBe(before)
  })

  it('is a connection with the options of any other', async () => {
    const server = createServer((socket) => socket.on('error', () => {}).resume())
    open.push(() => server.close())
    await new Promise<void>((resolve) => server.listen(path, resolve))
    const fd = inherited(stream(path, true))
    expect(() => createSocket({ fd }, { timeout: -1 })).toThrow(/timeout: must be/)
    expect(() => createSocket({ fd }, { onread: {} } as object)).toThrow(/onread: must be left out/)
    const socket = createSocket({ fd }, { timeout: 60_000, highWaterMark: 7 })
    expect([socket.timeout, socket.readableHighWaterMark, socket.writableHighWaterMark]).toEqual([60_000, 7, 7])
    socket.destroy()
    await once(socket, 'close')
  })

  it('is refused where this process uses it already, and goes on', async () => {
    const fd = listeningFd()
    await using server = await listen({ fd })
    server.on('connection', (socket) => socket.pipe(socket))
    const twice = { name: 'VsockError', code: 'EEXIST', what: 'this process uses the descriptor already (EEXIST)' }
    await expect(listen({ fd })).rejects.toMatchObject(twice)
    await expect(forward({ fd }, `unix:${path}`)).rejects.toMatchObject(twice)
    const connected = inherited(stream(path, true))
    const socket = createSocket({ fd: connected })
    expect(await thrown(() => createSocket({ fd: connected }))).toMatchObject(twice)
    expect(await thrown(() => connect({ fd: connected }))).toMatchObject(twice)
    socket.end('hello')
    expect(await text(socket)).toBe('hello')
    expect(await say(`unix:${path}`)).toBe('hello')
  })

  it('is told from what cannot be used, which stays open', async () => {
    const file = openSync(process.execPath, 'r')
    const directory = openSync(dir, 'r')
    const listens = listeningFd()
    const connected = inherited(stream(path, true))
    const unbound = inherited(() => addon!.socket(addon!.AF_UNIX))
    open.push(() => {
      for (const fd of [file, directory, listens, connected, unbound]) closeSync(fd)
    })
    const before = openDescriptors()
    const wrongs: [act: () => unknown, code: string, message: RegExp][] = [
      [
        () => listen({ fd: 9_999 }),
        'EBADF',
        /^listen fd 9999: there is no open descriptor of this number \(EBADF\)\. systemd counts from 3/,
      ],
      [() => createSocket({ fd: 9_999 }), 'EBADF', /^connect fd 9999: /],
      [() => listen({ fd: file }), 'ENOTSOCK', /: the descriptor is a plain file, not a socket\. /],
      [() => bindServer(http.createServer(), { fd: directory }), 'ENOTSOCK', /: the descriptor is a directory, not a socket/],
      [
        () => createSocket({ fd: listens }),
        'EINVAL',
        /^connect fd \d+: the socket listens, it is not a connection\. Pass it to listen\(\)\.$/,
      ],
      [
        () => listen({ fd: connected }),
        'EISCONN',
        /: the socket is connected, it cannot listen\. Pass it to createSocket\(\)\.$/,
      ],
      [() => connect({ fd: unbound }), 'ENOTCONN', /: the socket is not connected\. /],
    ]
    if (withAddon)
      wrongs.push([() => listen({ fd: unbound }), 'EINVAL', /: the socket is not bound to an address\. Bind it first/])
    for (const [act, code, message] of wrongs) {
      const error = await thrown(act)
      expect(error).toMatchObject({ name: 'VsockError', code, retryable: false })
      expect((error as Error).message).toMatch(message)
    }
    for (const fd of [-1, 1.5, Number.NaN, '3', 2 ** 31, undefined])
      await expect(listen({ fd: fd as number })).rejects.toThrow('fd: must be an integer from 0 to 2147483647, got ')
    await expect(listen({ fd: listens }, { mode: 0o600 })).rejects.toThrow(
      'mode: must be left out: the file of an inherited socket belongs to its maker, got 384',
    )
    await expect(listenHybrid({ fd: listens, path, route: () => undefined })).rejects.toThrow(
      'path: must be left out where there is fd, got ',
    )
    await expect(listenHybrid({ route: () => undefined })).rejects.toMatchObject({ code: 'ERR_INVALID_ADDRESS' })
    await expect(listen({ fd: listens }, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
    expect(openDescriptors()).toBe(before)
  })

  it('is not TCP', async () => {
    const tcp = () => {
      const descriptor = addon!.socket(addon!.AF_INET)
      const any = Buffer.alloc(16)
      any.writeUInt16LE(addon!.AF_INET)
      any.set([127, 0, 0, 1], 4)
      addon!.bind(descriptor, any)
      addon!.listen(descriptor, 1)
      return descriptor
    }
    const fd = inherited(tcp)
    expect(await thrown(() => listen({ fd }))).toMatchObject({
      code: 'EAFNOSUPPORT',
      message: `listen fd ${fd}: the descriptor is a TCP socket, neither AF_UNIX nor AF_VSOCK. For TCP call net.Server.listen({ fd }).`,
    })
    if (withAddon) closeSync(fd)
  })
})

describe.runIf(addon !== undefined)('AF_VSOCK that another program opened', () => {
  const vsock = (port: number, listens: boolean) => () => {
    const descriptor = addon!.socket(AF_VSOCK)
    if (port >= 0) addon!.bind(descriptor, encodeSockaddrVm({ cid: 0xffffffff, port }))
    if (listens) addon!.listen(descriptor, 1)
    return descriptor
  }
  const kernelHasIt = (() => {
    try {
      addon?.close(addon.socket(AF_VSOCK))
      return addon !== undefined
    } catch {
      return false
    }
  })()

  it.runIf(kernelHasIt).each([true, false])(
    'is listened on (listening already: %s), and closed with the server',
    async (listens) => {
      use(addon!)
      const before = openDescriptors()
      const fd = inherited(vsock(0xffffffff, listens))
      const server = await listen({ fd })
      expect(server.address).toMatchObject({ transport: 'vsock', cid: 0xffffffff })
      expect(server.address).not.toMatchObject({ port: 0xffffffff })
      await expect(listen(server.address)).rejects.toMatchObject({ code: 'EADDRINUSE' })
      await server.close()
      expect(openDescriptors()).toBe(before)
      await (await listen(server.address)).close()
    },
  )

  it.runIf(kernelHasIt)('is refused where this process listens on it already, and stays open', async () => {
    use(addon!)
    const fd = inherited(vsock(0xffffffff, true))
    const server = await listen({ fd })
    const before = openDescriptors()
    const twice = { code: 'EEXIST', op: 'listen', what: 'this process uses the descriptor already (EEXIST)' }
    await expect(listen({ fd })).rejects.toMatchObject(twice)
    await expect(bindServer(http.createServer(), { fd })).rejects.toMatchObject(twice)
    expect(openDescriptors()).toBe(before)
    expect(fstatSync(fd).isSocket()).toBe(true)
    await server.close()
    expect(() => fstatSync(fd)).toThrow(/EBADF/)
  })

  it.runIf(kernelHasIt)('is told from what cannot be used', async () => {
    use(addon!)
    const fds = [inherited(vsock(-1, false)), inherited(vsock(0xffffffff, true))] as const
    expect(await thrown(() => listen({ fd: fds[0] }))).toMatchObject({
      code: 'EINVAL',
      what: 'the socket is not bound to an address',
    })
    expect(await thrown(() => createSocket({ fd: fds[0] }))).toMatchObject({ code: 'ENOTCONN' })
    expect(await thrown(() => createSocket({ fd: fds[1] }))).toMatchObject({ code: 'EINVAL' })
    expect(await thrown(() => listenHybrid({ fd: fds[1], route: () => undefined }))).toMatchObject({ code: 'EAFNOSUPPORT' })
    use(undefined)
    const error = await thrown(() => listen({ fd: fds[1] }))
    expect(error).toMatchObject({ code: 'ENOTSUP', op: 'listen' })
    expect((error as Error).message).toBe(
      `listen fd ${fds[1]}: the descriptor is not a Unix stream socket, and for AF_VSOCK there is no addon: it is not here. Get it.`,
    )
    expect(await thrown(() => createSocket({ fd: fds[1] }))).toMatchObject({ code: 'ENOTSUP', op: 'connect' })
    for (const fd of fds) closeSync(fd)
  })
})
