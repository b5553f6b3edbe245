import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer, connect as netConnect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { VsockSocket } from '@upcall/vsock'
import { describe, expect, test } from 'vitest'
import { start, upcall } from '../../../testing/harness.js'
import { closers, connect, digest, dir, echo, pieces, read, server, serving, vmm } from '../../../testing/peers.js'

describe('forward', () => {
  /** Starts a forwarder of each kind to a guest that echoes, and gives how to reach its near end. */
  const chains = {
    'tcp to unix': async () => {
      const { address } = await serving(['vsock', 'forward', 'tcp:any', `unix:${dir}/guest`])
      return () => netConnect({ port: Number(address.split(':').at(-1)), host: '127.0.0.1', allowHalfOpen: true })
    },
    'unix to hvsock': async () => {
      await vmm()
      await serving(['vsock', 'forward', `unix:${dir}/near`, `hvsock://${dir}/vm:80`, '--half-close'])
      return () => connect(`unix:${dir}/near`)
    },
    'hvsock, guest-initiated, to tcp to unix': async () => {
      const { address } = await serving(['vsock', 'forward', 'tcp:any', `unix:${dir}/guest`])
      await serving(['vsock', 'forward', `hvsock://${dir}/vm:80`, address, '--half-close'])
      return () => connect(`unix:${dir}/vm_80`)
    },
    'hvsock as a VMM to unix': async () => {
      await serving(['vsock', 'forward', '--as-vmm', `hvsock://${dir}/vm:80`, `unix:${dir}/guest`])
      return () => connect(`hvsock://${dir}/vm:80`, { halfClose: true })
    },
  }

  test.each(Object.keys(chains) as (keyof typeof chains)[])(
    '%s: 8 MiB each way at once, EOF each way by itself',
    async (name) => {
      await server(`unix:${dir}/guest`, echo)
      const open = await chains[name]()
      const bytes = randomBytes(8 << 20)
      const socket = await open()
      socket.end(bytes)
      expect(digest(await read(socket))).toBe(digest(bytes))

      // The other end first.
      await server(`unix:${dir}/guest2`, (guest) => {
        guest.end('first')
        void read(guest).then((answer) => answers(String(answer)))
      })
      let answers: (answer: string) => void = () => {}
      const answer = new Promise<string>((resolve) => {
        answers = resolve
      })
      const { address } = await serving(['vsock', 'forward', `unix:${dir}/near2`, `unix:${dir}/guest2`])
      const second = await connect(address)
      expect(String(await read(second))).toBe('first')
      second.end('last')
      expect(await answer).toBe('last')
    },
  )

  test('many connections at once, each by itself', async () => {
    await server(`unix:${dir}/guest`, echo)
    const running = await serving(['--json', 'vsock', 'forward', `unix:${dir}/near`, `unix:${dir}/guest`, '--max', '20'])
    const texts = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => {
        const socket = await connect(`unix:${dir}/near`)
        socket.end(`number ${i}`)
        return String(await read(socket))
      }),
    )
    expect(texts).toEqual(Array.from({ length: 60 }, (_, i) => `number ${i}`))
    await running.stdout.has('"event":"disconnect","connection":60')
    const gone = () => running.stdout.json.filter(({ event }) => event === 'disconnect')
    while (gone().length < 60) await new Promise(setImmediate)
    expect(new Set(gone().map(({ outcome }) => outcome))).toEqual(new Set(['ok']))
    running.interrupt('SIGTERM')
    expect(await running.status).toBe(0)
    expect(existsSync(join(dir, 'near'))).toBe(false)
  })

  test('a slow reader holds the sender back', async () => {
    let guest: VsockSocket | undefined
    await server(`unix:${dir}/guest`, (socket) => {
      guest = socket
    })
    const running = await serving(['--json', 'vsock', 'forward', `unix:${dir}/near`, `unix:${dir}/guest`])
    const socket = await connect(`unix:${dir}/near`)
    const bytes = randomBytes(32 << 20)
    let sent = 0
    const pieces = function* () {
      for (; sent < bytes.length; sent += 65_536) yield bytes.subarray(sent, sent + 65_536)
    }
    Readable.from(pieces(), { objectMode: false }).pipe(socket)
    // It stands still when nothing moves for many turns in a row.
    for (let still = 0, last = -1; still < 2_000; last = sent) {
      await new Promise(setImmediate)
      still = sent === last && guest ? still + 1 : 0
    }
    // What the kernel and the streams on the way hold.
    expect(sent).toBeLessThan(4 << 20)
    expect(digest(await read(guest!))).toBe(digest(bytes))
    guest!.end()
    await running.stdout.has('"disconnect"')
    expect(running.stdout.json.at(-1)).toMatchObject({ outcome: 'ok', sent: 32 << 20, received: 0 })
    socket.destroy()
  })

  test('without half-close on one side, what was said still arrives, and its end is the end of both', async () => {
    await server(`unix:${dir}/guest`, (socket) => void socket.once('data', () => socket.end('answer')))
    await vmm({ halfClose: false })
    const running = await serving(['--json', 'vsock', 'forward', `unix:${dir}/near`, `hvsock://${dir}/vm:80`])
    const socket = await connect(`unix:${dir}/near`)
    socket.end('question')
    expect(String(await read(socket))).toBe('answer')
    await running.stdout.has('"disconnect"')
    expect(running.stdout.json.at(-1)).toMatchObject({ outcome: 'ok', sent: 8, received: 6 })
  })

  test.each([
    ['as a VMM', ['--as-vmm', 'hvsock://DIR/near:80', 'unix:DIR/guest'], 'hvsock://DIR/near:80'],
    ['to a VMM', ['unix:DIR/near', 'hvsock://DIR/vm:80'], 'unix:DIR/near'],
    ['from one VMM to another', ['--as-vmm', 'hvsock://DIR/near:80', 'hvsock://DIR/vm:80'], 'hvsock://DIR/near:80'],
    ['without half-close', ['--no-half-close', 'unix:DIR/near', 'unix:DIR/guest'], 'unix:DIR/near'],
    [
      'without half-close as a VMM',
      ['--no-half-close', '--as-vmm', 'hvsock://DIR/near:80', 'unix:DIR/guest'],
      'hvsock://DIR/near:80',
    ],
  ])('a peer that ends first takes the rest: %s', async (_name, argv, near) => {
    const bytes = randomBytes(4 << 20)
    let heard: Promise<Buffer> | undefined
    await server(`unix:${dir}/guest`, (socket) => {
      socket.end('bye')
      heard = read(socket)
    })
    await vmm()
    const at = (text: string) => text.replace('DIR', dir)
    // A busy machine may be silent for longer than half a second.
    const patient = ['--linger', '10m']
    const running = await serving(['--json', 'vsock', 'forward', ...argv.map(at), ...patient])
    const sender = await upcall(['vsock', 'connect', at(near), ...patient], { stdin: Readable.from(pieces(bytes)) })
    expect([sender.status, sender.stdout.text, digest(await heard!)]).toEqual([0, 'bye', digest(bytes)])
    await running.stdout.has('"disconnect"')
    expect(running.stdout.json.at(-1)).toMatchObject({ outcome: 'ok', sent: 4 << 20, received: 3 })
  })

  describe('a source that has closed is not waited for', () => {
    const ways = {
      'closes at once': (socket: Socket, bytes: Buffer) => void socket.write(bytes, () => socket.destroy()),
      'ends, and closes later': (socket: Socket, bytes: Buffer) =>
        void socket.end(bytes, () => setTimeout(() => socket.destroy(), 100)),
    }
    const places = {
      'unix to a VMM without half-close': [`unix:DIR/near`, 'hvsock://DIR/vm:80'],
      'unix to unix': ['unix:DIR/near', 'unix:DIR/guest'],
      'as a VMM to one without half-close': ['--as-vmm', 'hvsock://DIR/near:80', 'hvsock://DIR/vm:80'],
      'as a VMM to unix': ['--as-vmm', 'hvsock://DIR/near:80', 'unix:DIR/guest'],
      'from a guest to a VMM without half-close': ['hvsock://DIR/near:80', 'hvsock://DIR/vm:80'],
    }
    const cases = Object.keys(places).flatMap((place) =>
      Object.keys(ways).flatMap((way) => [0, 5, 300_000].map((bytes) => [place, way, bytes] as const)),
    )
    test.each(cases)('%s, %s after %d bytes', async (place, way, bytes) => {
      const argv = places[place as keyof typeof places].map((text) => text.replace('DIR', dir))
      let heard: Promise<Buffer> | undefined
      await server(`unix:${dir}/guest`, (socket) => {
        heard = read(socket)
        void heard.then(() => socket.end())
      })
      await vmm({ halfClose: false })
      // What a silent peer is granted: far beyond the time of this test.
      const running = await serving(['--json', 'vsock', 'forward', ...argv, '--linger', '10m'])
      const asVmm = argv.includes('--as-vmm')
      const socket = netConnect({ path: argv[0]?.startsWith('hvsock') ? `${dir}/near_80` : `${dir}/near`, allowHalfOpen: true })
      closers.push(() => socket.destroy())
      await once(socket, 'connect')
      const command = Buffer.from(asVmm ? 'CONNECT 80\n' : '')
      ways[way as keyof typeof ways](socket, Buffer.concat([command, Buffer.alloc(bytes)]))
      await expect.poll(() => running.stdout.text, { timeout: 10_000 }).toContain('"disconnect"')
      const report = running.stdout.json.at(-1)
      // As a VMM: it may have closed before the reply, and had said nothing that the guest could have.
      if (asVmm && bytes === 0 && report?.outcome === 'not-sent') return
      expect(report).toMatchObject({ outcome: 'ok', sent: bytes, received: 0 })
      expect((await heard!).length).toBe(bytes)
    })
  })

  test('takes a command in pieces, unless it is told to be as strict as some VMM', async () => {
    await server(`unix:${dir}/guest`, echo)
    const torn = async (path: string, pieces = ['CON', 'NECT 8', '0\n']) => {
      const socket = netConnect(path).on('error', () => {})
      closers.push(() => socket.destroy())
      const answer = new Promise<string>((resolve) => {
        socket.once('data', (chunk) => resolve(String(chunk))).once('close', () => resolve(''))
      })
      for (const piece of pieces) {
        socket.write(piece)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      return answer
    }
    await serving(['vsock', 'forward', '--as-vmm', `hvsock://${dir}/a:80`, `unix:${dir}/guest`])
    expect(await torn(`${dir}/a`)).toMatch(/^OK /)
    const strict = ['--as-vmm', '--profile', 'firecracker', `hvsock://${dir}/b:80`]
    await serving(['vsock', 'forward', ...strict, `unix:${dir}/guest`])
    // It closes at the first piece, so no second one is sent that it might read together with the first.
    expect(await torn(`${dir}/b`, ['CON'])).toBe('')
  })

  test('the profile brings the half-close of its VMM, and --half-close wins', async () => {
    await server(`unix:${dir}/guest`, async (socket) => {
      const request = await read(socket)
      socket.end(`you said ${request}`)
    })
    const ask = async (name: string, ...options: string[]) => {
      await serving(['vsock', 'forward', '--as-vmm', ...options, `hvsock://${dir}/${name}:80`, `unix:${dir}/guest`])
      const socket = await connect(`hvsock://${dir}/${name}:80`, { halfClose: true })
      socket.on('error', () => {}).end('hello')
      return String(await read(socket).catch(() => ''))
    }
    expect(await ask('a', '--profile', 'cloud-hypervisor')).toBe('you said hello')
    expect(await ask('b', '--profile', 'dragonball')).toBe('')
    expect(await ask('c', '--profile', 'dragonball', '--half-close')).toBe('you said hello')
  })

  test('a client that cannot be connected is closed, reset over tcp, refused as a VMM does, and the rest goes on', async () => {
    const to = `unix:${dir}/guest`
    const tcp = await serving(['--json', 'vsock', 'forward', 'tcp:any', to])
    const dial = () => netConnect(Number(tcp.address.split(':').at(-1)), '127.0.0.1')
    const [error] = await once(dial(), 'error')
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    expect(tcp.stdout.json.at(-1)).toMatchObject({
      event: 'disconnect',
      connection: 1,
      outcome: 'not-sent',
      error: { code: 'ECONNREFUSED', message: expect.stringContaining('the file does not exist') },
    })
    const asVmm = await serving(['vsock', 'forward', '--as-vmm', `hvsock://${dir}/vm:80`, to])
    await expect(connect(`hvsock://${dir}/vm:80`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(asVmm.stdout.text).toMatch(/#1 not-sent: connect unix:.*the file does not exist/)
    await server(to, echo)
    const socket = await connect(`hvsock://${dir}/vm:80`, { halfClose: true })
    socket.end('now')
    expect(String(await read(socket))).toBe('now')
  })

  test.each([
    ['forward', 'CONNECT 81\n', 'port 81: no-route'],
    ['forward', 'GET / HTTP/1.1\r\n\r\n', 'bad-command'],
    ['listen', 'CONNECT 81\n', 'port 81: no-route'],
    ['listen', 'CONNECT x\n', 'bad-command'],
  ])('%s as a VMM tells of a dialer that it closed: %j', async (command, words, reason) => {
    const to = command === 'forward' ? [`unix:${dir}/guest`] : ['--keep']
    const running = start(['--json', 'vsock', command, '--as-vmm', `hvsock://${dir}/vm:80`, ...to])
    const log = command === 'forward' ? running.stdout : running.stderr
    await log.has('"listening"')
    const socket = netConnect(join(dir, 'vm'))
    socket.end(words)
    await read(socket)
    await log.has('"refused"')
    expect(log.json.at(-1)).toEqual({ time: expect.any(String), event: 'refused', reason })
    running.interrupt()
    await running.status
  })

  test('--timeout bounds each connecting', async () => {
    const silent = createServer(() => {}).listen(join(dir, 'vm'))
    const sockets: Socket[] = []
    silent.on('connection', (socket) => sockets.push(socket))
    const running = await serving(['vsock', 'forward', `unix:${dir}/near`, `hvsock://${dir}/vm:80`, '--timeout', '30ms'])
    const socket = await connect(`unix:${dir}/near`)
    expect(await read(socket)).toHaveLength(0)
    await running.stdout.has('no answer within 30 ms')
    for (const each of [...sockets, socket]) each.destroy()
    silent.close()
  })

  test('a reset is passed on', async () => {
    const tcp = createServer((socket) => socket.once('data', () => socket.resetAndDestroy()))
    await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve))
    const { port } = tcp.address() as { port: number }
    const running = await serving(['--json', 'vsock', 'forward', 'tcp:any', `tcp:${port}`])
    const socket = netConnect(Number(running.address.split(':').at(-1)), '127.0.0.1')
    socket.write('x')
    const [error] = await once(socket, 'error')
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    await running.stdout.has('"disconnect"')
    expect(running.stdout.json.at(-1)).toMatchObject({ outcome: 'indeterminate', error: { code: 'ECONNRESET' } })
    tcp.close()
  })

  test('SIGINT closes what is open, with 130; --grace lets it end', async () => {
    await server(`unix:${dir}/guest`, echo)
    const hard = await serving(['vsock', 'forward', `unix:${dir}/near`, `unix:${dir}/guest`])
    const cut = await connect(`unix:${dir}/near`)
    cut.write('x')
    await once(cut, 'data')
    hard.interrupt()
    expect(await hard.status).toBe(130)
    expect(hard.stdout.text).toContain(
      `#1 indeterminate: unix:${dir}/guest: interrupted by SIGINT. What was on its way may be lost.`,
    )
    expect(await read(cut)).toHaveLength(0)
    cut.destroy()

    const soft = await serving(['vsock', 'forward', `unix:${dir}/near`, `unix:${dir}/guest`, '--grace', '1m'])
    const socket = await connect(`unix:${dir}/near`)
    socket.write('x')
    await once(socket, 'data')
    soft.interrupt('SIGTERM')
    // It listens no more, and still carries.
    while (existsSync(join(dir, 'near'))) await new Promise(setImmediate)
    socket.end('the end')
    expect(String(await read(socket))).toBe('the end')
    expect(await soft.status).toBe(0)

    const over = await serving(['vsock', 'forward', `unix:${dir}/near`, `unix:${dir}/guest`, '--grace', '10ms'])
    const idle = await connect(`unix:${dir}/near`)
    idle.write('x')
    await once(idle, 'data')
    over.interrupt('SIGTERM')
    expect(await over.status).toBe(0)
    idle.destroy()
  })
})
