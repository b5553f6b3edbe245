import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { createServer, connect as netConnect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { connect, type HybridServer, listen, listenHybrid, type VsockServer, type VsockSocket } from '@upcall/vsock'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Running, start, upcall } from '../../harness.js'

let dir: string
const closers: (() => unknown)[] = []

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'upcall-vsock-'))
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
  rmSync(dir, { recursive: true })
})

/** A command that is over at the end of the test, and the address it says it listens on. */
async function serving(argv: string[], stdin?: Readable): Promise<Running & { address: string }> {
  const running = start(argv, stdin ? { stdin } : {})
  closers.push(() => {
    running.interrupt('SIGTERM')
    return running.status
  })
  const listening = Promise.race([running.stderr.has('listening'), running.stdout.has('listening')])
  await Promise.race([listening, running.status])
  const said = `${running.stderr.text}${running.stdout.text}`
  return { ...running, address: /(?:listening on |"address":")([^\s,"]+)/.exec(said)?.[1] ?? said }
}

/** A server that does this with each connection. */
async function server(address: string, serve: (socket: VsockSocket) => void): Promise<VsockServer> {
  const listening = await listen(address)
  listening.on('connection', (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  closers.push(async () => {
    listening.closeAllConnections()
    await listening.close()
  })
  return listening
}

/** A VMM whose guest has `unix:<dir>/guest` on port 80. */
async function vmm(options: { halfClose?: boolean } = {}): Promise<HybridServer> {
  const hybrid = await listenHybrid({
    ...options,
    path: join(dir, 'vm'),
    route: (port) => (port === 80 ? connect(`unix:${dir}/guest`) : undefined),
  })
  closers.push(() => hybrid.close())
  return hybrid
}

const echo = (socket: VsockSocket) => void socket.pipe(socket)

async function read(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** Bytes as a file or a pipe brings them. */
function* pieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

describe('connect', () => {
  test('stdin to the peer, the peer to stdout, whichever ends first', async () => {
    await server(`unix:${dir}/s`, async (socket) => {
      const request = await read(socket)
      socket.end(`you said ${request}`)
    })
    const { status, stdout, stderr } = await upcall(['vsock', 'connect', `unix:${dir}/s`], {
      stdin: Readable.from(['hel', 'lo']),
    })
    expect([status, stdout.text, stderr.text]).toEqual([0, 'you said hello', ''])

    // The peer first: what stdin says later still arrives.
    let heard: Promise<Buffer> | undefined
    await server(`unix:${dir}/t`, (socket) => {
      socket.end('bye')
      heard = read(socket)
    })
    const stdin = new PassThrough()
    const running = start(['vsock', 'connect', `unix:${dir}/t`], { stdin })
    await running.stdout.has('bye')
    stdin.end('still here')
    expect(await running.status).toBe(0)
    expect(String(await heard)).toBe('still here')
  })

  test('stdin at a terminal does not outlive the peer', async () => {
    await server(`unix:${dir}/s`, (socket) => socket.resume().end('bye\n'))
    const stdin = Object.assign(new PassThrough(), { isTTY: true })
    const { status, stdout } = await upcall(['vsock', 'connect', `unix:${dir}/s`], { stdin })
    expect([status, stdout.text, stdin.destroyed]).toEqual([0, 'bye\n', true])
  })

  test('8 MiB each way at once, to the bit, with a report on stderr', async () => {
    await server(`unix:${dir}/s`, echo)
    const bytes = randomBytes(8 << 20)
    const { status, stdout, stderr } = await upcall(['--json', 'vsock', 'connect', `unix:${dir}/s`], {
      stdin: Readable.from([bytes]),
    })
    expect(status).toBe(0)
    expect(digest(stdout.bytes)).toBe(digest(bytes))
    expect(stderr.json).toEqual([
      { op: 'vsock.connect', outcome: 'ok', sent: 8 << 20, received: 8 << 20, durationMs: expect.any(Number) },
    ])
  })

  test('over hvsock EOF is kept back until the guest has ended', async () => {
    let ended = false
    const guest = new Promise<VsockSocket>((resolve) => {
      void server(`unix:${dir}/guest`, (socket) => {
        socket
          .once('data', () => socket.write('answer'))
          .once('end', () => {
            ended = true
          })
        resolve(socket)
      })
    })
    await vmm()
    const running = start(['vsock', 'connect', `hvsock://${dir}/vm:80`], { stdin: Readable.from(['question']) })
    await running.stdout.has('answer')
    expect(ended).toBe(false)
    ;(await guest).end(', all of it')
    expect(await running.status).toBe(0)
    expect(running.stdout.text).toBe('answer, all of it')
  })

  /** A VMM of a few lines: answers OK and does with the connection as it is told. */
  async function rawVmm(serve: (socket: Socket) => void): Promise<string> {
    const listening = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {})
      socket.once('data', () => {
        socket.write('OK 1\n')
        serve(socket)
      })
    }).listen(join(dir, 'raw'))
    const sockets = new Set<Socket>()
    listening.on('connection', (socket) => sockets.add(socket))
    await once(listening, 'listening')
    closers.push(() => {
      for (const socket of sockets) socket.destroy()
      listening.close()
    })
    return `hvsock://${dir}/raw:80`
  }

  test.each([
    ['another upcall as the VMM', []],
    ['another upcall as the VMM, to a stdin that is slow', ['slow']],
  ])('a peer that ends first takes the rest of stdin: %s', async (_name, [slow]) => {
    const bytes = randomBytes(4 << 20)
    const peer = start(['vsock', 'listen', '--as-vmm', `hvsock://${dir}/vm:1`])
    await peer.stderr.has('listening')
    const stdin = new PassThrough()
    const running = start(['--json', 'vsock', 'connect', `hvsock://${dir}/vm:1`], { stdin })
    stdin.write(bytes.subarray(0, 1 << 20))
    if (slow) await new Promise<void>((resolve) => stdin.once('drain', resolve))
    stdin.end(bytes.subarray(1 << 20))
    expect([await running.status, await peer.status]).toEqual([0, 0])
    expect(running.stderr.json).toMatchObject([{ outcome: 'ok', sent: 4 << 20, received: 0 }])
    expect(digest(peer.stdout.bytes)).toBe(digest(bytes))
  })

  test('a peer that ends first without half-close, and reads on: all of stdin arrives, or it is no success', async () => {
    const bytes = randomBytes(4 << 20)
    let heard: Promise<Buffer> | undefined
    const reads = await rawVmm((socket) => {
      socket.end('bye')
      heard = read(socket)
    })
    const all = await upcall(['vsock', 'connect', reads], { stdin: Readable.from(pieces(bytes)) })
    expect([all.status, all.stdout.text, digest(await heard!)]).toEqual([0, 'bye', digest(bytes)])

    await server(`unix:${dir}/s`, (socket) => {
      socket.end('bye')
      heard = read(socket)
    })
    const unix = await upcall(['vsock', 'connect', `unix:${dir}/s`, '--no-half-close'], { stdin: Readable.from(pieces(bytes)) })
    expect([unix.status, digest(await heard!)]).toEqual([0, digest(bytes)])
  })

  test('a peer that has closed before stdin was through is status 4, with how many bytes went', async () => {
    const address = await rawVmm((socket) => {
      socket.write('bye')
      socket.destroySoon()
    })
    const stdin = new PassThrough()
    const running = start(['vsock', 'connect', address], { stdin })
    await running.stdout.has('bye')
    stdin.end('late')
    expect(await running.status).toBe(4)
    expect(running.stderr.text).toBe(
      `upcall: indeterminate: ${address}: the peer closed before it had taken everything (EPIPE): 0 bytes went out, the rest did not\n`,
    )
    const json = await upcall(['--json', 'vsock', 'connect', address], { stdin: Readable.from(pieces(randomBytes(1 << 20))) })
    expect(json.status).toBe(4)
    expect(json.stderr.json).toMatchObject([{ outcome: 'indeterminate' }])
    expect(json.stderr.json[0].sent).toBeLessThan(1 << 20)
  })

  test('a peer that has ended and takes no more is not waited for', async () => {
    const address = await rawVmm((socket) => void socket.pause().end('bye'))
    const bytes = randomBytes(8 << 20)
    const { status, stderr } = await upcall(['--json', 'vsock', 'connect', address, '--linger', '40ms'], {
      stdin: Readable.from(pieces(bytes)),
    })
    expect(status).toBe(4)
    expect(stderr.json).toMatchObject([{ outcome: 'indeterminate', error: { code: 'ETIMEDOUT' } }])
    expect(stderr.json[0].error.message).toMatch(/ended its side and takes no more: \d+ bytes went out, the rest did not/)
    expect(stderr.json[0].sent).toBeLessThan(8 << 20)
  })

  test('--half-close passes EOF on through a VMM that can; --linger bounds the wait for one that cannot', async () => {
    await server(`unix:${dir}/guest`, async (socket) => socket.end(`${(await read(socket)).length} bytes`))
    await vmm()
    const run = (...options: string[]) =>
      upcall(['vsock', 'connect', `hvsock://${dir}/vm:80`, ...options], { stdin: Readable.from(['question']) })
    expect(await run('--half-close')).toMatchObject({ status: 0, stdout: { text: '8 bytes' } })
    const lost = await run('--linger', '30ms')
    expect(lost.status).toBe(4)
    expect(lost.stdout.text).toBe('')
    expect(lost.stderr.text).toMatch(
      /no half-close to tell it; let the peer end first, allow more with --linger, or pass --half-close/,
    )
  })

  test.each([
    ['unix:DIR/none', /connect unix:.*: nobody listens, there is no such file \(ENOENT\); .*--retry/],
    ['hvsock://DIR/none:80', /no such file/],
    ['tcp:1', /connect tcp:\/\/127.0.0.1:1: nobody listens; .*--retry/],
    ['vsock://3:1024', /connect vsock:\/\/3:1024: native AF_VSOCK is switched off/],
  ])('no connection to %s is status 3', async (address, message) => {
    const argv = ['vsock', 'connect', address.replace('DIR', dir)]
    const { status, stdout, stderr } = await upcall(argv)
    expect([status, stdout.text]).toEqual([3, ''])
    expect(stderr.text).toMatch(/^upcall: not-sent: connect /)
    expect(stderr.text).toMatch(message)
    const json = await upcall(['--json', ...argv])
    expect(json.stderr.json).toMatchObject([
      { op: 'vsock.connect', outcome: 'not-sent', error: { code: expect.any(String), message: expect.stringMatching(message) } },
    ])
  })

  test('without the addon every command says what was tried and what to do', async () => {
    vi.stubEnv('UPCALL_VSOCK_ADDON', join(dir, 'addon.node'))
    try {
      for (const argv of [
        ['vsock', 'connect', 'vsock://3:1'],
        ['vsock', 'cid'],
        ['--target', 'vsock://3', 'status'],
        ['--target', 'vsock://3', '--arch', 'x86_64', 'cpu', 'add', '1'],
      ]) {
        const { status, stderr } = await upcall(argv)
        expect(status).toBe(3)
        expect(stderr.text).toContain('the native AF_VSOCK addon')
        expect(stderr.text).toContain(`${dir}/addon.node: no such file`)
        expect(stderr.text).toContain('use hvsock://<path>:<port>')
      }
      const { status, stderr } = await upcall(['serve', '--listen', 'vsock://any:219'])
      expect(status).toBe(2)
      expect(stderr.text).toContain(`${dir}/addon.node: no such file`)
    } finally {
      vi.unstubAllEnvs()
    }
  })

  test('--retry waits for a server, and --timeout bounds it', async () => {
    const running = start(['vsock', 'connect', `unix:${dir}/late`, '--retry'])
    const other = start(['vsock', 'connect', 'tcp:1', '--retry', '--timeout', '40ms'])
    await server(`unix:${dir}/late`, (socket) => socket.resume().end('there'))
    expect([await running.status, running.stdout.text]).toEqual([0, 'there'])
    expect(await other.status).toBe(3)
    const out = await upcall(['vsock', 'connect', `unix:${dir}/none`, '--retry', '--timeout', '2s'])
    expect(out.status).toBe(3)
    expect(out.stderr.text).toMatch(/no such file \(ENOENT\); gave up after \d+ attempts within 2000 ms, --timeout allows more/)
    // A VMM that is paused: it takes the connection and says nothing.
    const silent = createServer(() => {}).listen(join(dir, 'silent'))
    const sockets = new Set<Socket>()
    silent.on('connection', (socket) => sockets.add(socket))
    const paused = await upcall(['vsock', 'connect', `hvsock://${dir}/silent:80`, '--timeout', '40ms'])
    expect(paused.status).toBe(3)
    expect(paused.stderr.text).toMatch(/no answer within 40 ms; check that the guest runs, allow more with --timeout/)
    for (const socket of sockets) socket.destroy()
    silent.close()
  })

  test('a connection that breaks is status 4, and says so', async () => {
    const tcp = createServer((socket) => socket.once('data', () => socket.resetAndDestroy()))
    await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve))
    const { port } = tcp.address() as { port: number }
    const stdin = new PassThrough()
    stdin.write('x')
    const { status, stderr } = await upcall(['vsock', 'connect', `tcp:${port}`], { stdin })
    expect(status).toBe(4)
    expect(stderr.text).toMatch(
      /^upcall: indeterminate: tcp:.*: the connection broke behind 1 byte \(.*ECONNRESET\); what was on its way may be lost\n$/,
    )
    tcp.close()
  })

  test('an interruption ends it, with 130, and leaves nothing open', async () => {
    const sockets: VsockSocket[] = []
    await server(`unix:${dir}/s`, (socket) => sockets.push(socket) && socket.write('up'))
    const stdin = new PassThrough()
    const running = start(['vsock', 'connect', `unix:${dir}/s`], { stdin })
    await running.stdout.has('up')
    running.interrupt()
    expect(await running.status).toBe(130)
    expect(stdin.destroyed).toBe(true)
    await once(sockets[0]!.resume(), 'end')
    expect(running.stderr.text).toBe(
      `upcall: indeterminate: unix:${dir}/s: interrupted by SIGINT; what was on its way may be lost\n`,
    )
  })

  test('what an interruption cuts off is not called complete', async () => {
    await server(`unix:${dir}/s`, (socket) => void socket.write('up'))
    const running = start(['--json', 'vsock', 'connect', `unix:${dir}/s`], { stdin: new PassThrough() })
    await running.stdout.has('up')
    running.interrupt('SIGTERM')
    expect(await running.status).toBe(143)
    expect(running.stderr.json).toEqual([
      {
        ...{ op: 'vsock.connect', outcome: 'indeterminate', sent: 0, received: 2, durationMs: expect.any(Number) },
        error: { code: 'ABORTED', message: `unix:${dir}/s: interrupted by SIGTERM; what was on its way may be lost` },
      },
    ])
  })

  test.each([
    [['vsock', 'connect'], /missing required argument 'address'/],
    [['vsock', 'connect', 'nowhere'], /unknown form/],
    [['vsock', 'connect', 'unix:/x', 'cat'], /"cat": one address is all; a program is named behind --exec/],
    [['vsock', 'connect', 'unix:/x', '--exec'], /--exec: no program/],
    [['vsock', 'connect', 'unix:/x', '--to-host'], /--to-host: only a vsock/],
    [['vsock', 'connect', 'unix:/x', '--buffer-size', '1000'], /--buffer-size: only vsock/],
    [['vsock', 'connect', 'vsock://3:1', '--buffer-size', '0'], /--buffer-size: at least 1/],
    [['vsock', 'connect', 'unix:/x', '--half-close', '--no-half-close'], /only one of them can be true/],
    [['vsock', 'forward', 'tcp:any', 'tcp:1', '--no-half-close', '--half-close'], /only one of them can be true/],
    [['vsock', 'listen', 'unix:/nonexistent/s', '--half-close', '--half-close'], /create the directory first/],
    [['--target', 'unix:/x', 'vsock', 'connect', 'unix:/x'], /--target: is for the commands that talk to a guest/],
    [['vsock', 'listen', 'unix:/x', '--arch', 'x86_64'], /--arch: is for/],
    [['vsock', 'forward', 'tcp:any', 'tcp:1', '-t', 'unix:/x'], /--target: is for/],
    [['vsock', 'cid', '--arch', 'aarch64'], /--arch: is for/],
    [['vsock', 'listen', 'unix:/x', '--as-vmm'], /--as-vmm: only an hvsock/],
    [['vsock', 'listen', 'unix:/x', '--profile', 'firecracker'], /--profile: needs --as-vmm/],
    [['vsock', 'listen', 'hvsock:///x', '--as-vmm', '--profile', 'qemu'], /firecracker, cloud-hypervisor, dragonball/],
    [['vsock', 'listen', 'unix:/x', '--mode', '999'], /octal/],
    [['vsock', 'listen', 'tcp:any', '--mode', '660'], /tcp has no socket file/],
    [['vsock', 'listen', 'unix:/x', '--max', '2'], /--max: needs --keep and --exec/],
    [['vsock', 'listen', 'unix:/x', '--keep', '--timeout', '1s'], /--timeout: bounds the wait/],
    [['vsock', 'forward', 'tcp:any', 'tcp:any'], /<to>: the port to connect to cannot be any/],
    [['vsock', 'connect', 'tcp:0'], /<address>: the port to connect to cannot be any/],
    [['vsock', 'connect', 'vsock://3:any'], /<address>: the port to connect to cannot be any/],
    [['vsock', 'forward', 'tcp:any', 'vsock://any:3'], /<to>: the CID to connect to cannot be any/],
    [['vsock', 'forward', 'tcp:any', 'tcp:1', '--max', '0'], /--max: at least 1/],
    [['vsock', 'forward', 'unix:/nonexistent/s', 'tcp:1'], /<from>: listen unix:.*create the directory first/],
    [['vsock', 'listen', 'vsock://any:any'], /<address>: listen vsock:\/\/any:any: native AF_VSOCK is switched off/],
  ])('wrong usage: %j', async (argv, message) => {
    const { status, stderr } = await upcall(argv)
    expect(status).toBe(2)
    expect(stderr.text).toMatch(message)
    expect(stderr.lines).toHaveLength(1)
  })

  test.each([
    ['vsock.connect', ['vsock', 'connect', 'nowhere']],
    ['vsock.listen', ['vsock', 'listen', 'unix:/nonexistent/s']],
  ])('stdout is the stream’s, and gets nothing of what was wrong: %s', async (op, argv) => {
    const { status, stdout, stderr } = await upcall(['--json', ...argv])
    expect([status, stdout.text]).toEqual([2, ''])
    expect(stderr.json).toEqual([
      { op, outcome: 'not-sent', error: { code: 'USAGE', message: expect.stringMatching(/^<address>: /) } },
    ])
  })
})

test('the help says what hvsock cannot do, and no example of it waits for EOF', async () => {
  const { stdout } = await upcall(['vsock', '--help'])
  expect(stdout.text).toMatch(/What hvsock:\/\/ cannot do: [\s\S]*--half-close/)
  for (const command of ['connect', 'listen', 'forward']) stdout.write((await upcall(['vsock', command, '--help'])).stdout.text)
  const examples = stdout.lines.filter((line) => line.startsWith('  $ '))
  expect(examples.length).toBeGreaterThan(10)
  expect(examples.filter((line) => /connect hvsock:.* < /.test(line) && !line.includes('--half-close'))).toEqual([])
})

describe('--exec', () => {
  test('a program’s stdin and stdout are the connection’s, its status the command’s', async () => {
    let said: Promise<Buffer> | undefined
    await server(`unix:${dir}/s`, (socket) => {
      said = read(socket)
      socket.end('from the peer')
    })
    const script = 'echo "to $UPCALL_PEER"; cat >&2; exit 7'
    const { status, stdout, stderr } = await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'sh', '-c', script])
    expect([status, stdout.text, stderr.text]).toEqual([7, '', 'from the peer'])
    expect(String(await said)).toBe(`to unix:${dir}/s\n`)
  })

  test('the words behind it are the program’s, whatever they look like', async () => {
    let said: Promise<Buffer> | undefined
    await server(`unix:${dir}/s`, (socket) => {
      said = read(socket)
      socket.end()
    })
    for (const dashes of [[], ['--']]) {
      const argv = ['vsock', 'connect', `unix:${dir}/s`, '--exec', ...dashes, 'echo', '--json', '-t', '--exec', '--']
      expect(await upcall(argv)).toMatchObject({ status: 0, stderr: { text: '' } })
      expect(String(await said)).toBe('--json -t --exec --\n')
    }
  })

  test('a program that leaves early ends the connection; one that ends by a signal has 128 more', async () => {
    await server(`unix:${dir}/s`, (socket) => socket.resume().once('end', () => socket.end()))
    expect(await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'true'])).toMatchObject({ status: 0 })
    expect(await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'sh', '-c', 'kill -KILL $$'])).toMatchObject({
      status: 137,
    })
  })

  test('127 for one that is not there, 126 for one that cannot be started', async () => {
    await server(`unix:${dir}/s`, echo)
    const missing = await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', '/nonexistent/program'])
    expect(missing.status).toBe(127)
    expect(missing.stderr.text).toMatch(/--exec: \/nonexistent\/program: no such program/)
    expect(await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', dir])).toMatchObject({ status: 126 })
    // Node throws these, and emits the others.
    for (const [program, why] of [
      [`${process.execPath}/program`, 'ENOTDIR'],
      [`/${'x'.repeat(300)}`, 'ENAMETOOLONG'],
      ['', 'ERR_INVALID_ARG_VALUE'],
    ] as const) {
      const refused = await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', program])
      expect(refused.status).toBe(126)
      expect(refused.stderr.text).toContain(`cannot be started (${why})`)
    }
    const long = await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'true', 'x'.repeat(1 << 18)])
    expect(long.status).toBe(126)
    expect(long.stderr.text).toContain('--exec: true: cannot be started (E2BIG)')
    expect(await upcall(['vsock', 'connect', `unix:${dir}/none`, '--exec', 'true'])).toMatchObject({ status: 3 })
  })

  test('an interruption ends the program, too', async () => {
    await server(`unix:${dir}/s`, (socket) => socket.resume())
    const running = start(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'sh', '-c', 'echo up >&2; exec cat'])
    await running.stderr.has('up')
    running.interrupt()
    expect(await running.status).toBe(130)
  })
})

describe('listen', () => {
  test('takes one connection, whose socket file is gone by then, and no second one', async () => {
    const running = await serving(['vsock', 'listen', `unix:${dir}/s`, '--mode', '600'], Readable.from(['hello']))
    expect(running.address).toBe(`unix:${dir}/s`)
    expect(running.stderr.text).toBe(`listening on unix:${dir}/s\n`)
    expect(statSync(join(dir, 's')).mode & 0o777).toBe(0o600)
    const socket = await connect(`unix:${dir}/s`)
    expect(String(await read(socket))).toBe('hello')
    expect(existsSync(join(dir, 's'))).toBe(false)
    socket.end('late answer')
    expect(await running.status).toBe(0)
    expect(running.stdout.text).toBe('late answer')
  })

  test('any: the port that was chosen is said', async () => {
    const running = await serving(['--json', 'vsock', 'listen', 'tcp:any'])
    expect(running.stderr.json).toEqual([
      { event: 'listening', address: expect.stringMatching(/^tcp:\/\/127\.0\.0\.1:[1-9]\d+$/) },
    ])
    const socket = netConnect(Number(running.address.split(':').at(-1)), '127.0.0.1')
    socket.resume().end('bytes')
    expect(await running.status).toBe(0)
    expect(running.stderr.json[1]).toMatchObject({ op: 'vsock.listen', outcome: 'ok', sent: 0, received: 5 })
  })

  test('hvsock: what the guest initiates; with --as-vmm the guest’s own port', async () => {
    const guest = await serving(['vsock', 'listen', `hvsock://${dir}/vm:514`])
    ;(await connect(`unix:${dir}/vm_514`)).resume().end('a line\n')
    expect(await guest.status).toBe(0)
    expect(guest.stdout.text).toBe('a line\n')

    const port = await serving(['vsock', 'listen', '--as-vmm', `hvsock://${dir}/vm:22`, '--exec', 'cat'])
    await expect(connect(`hvsock://${dir}/vm:23`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    const socket = await connect(`hvsock://${dir}/vm:22`, { halfClose: true })
    socket.end('and back')
    expect(String(await read(socket))).toBe('and back')
    expect(await port.status).toBe(0)
    expect(existsSync(join(dir, 'vm'))).toBe(false)
  })

  test('nobody who comes in time is status 3; an interruption is 130; a path in use is 2', async () => {
    const late = await upcall(['vsock', 'listen', `unix:${dir}/s`, '--timeout', '20ms'])
    expect(late.status).toBe(3)
    expect(late.stderr.text).toMatch(/nobody connected within 20 ms/)
    const running = await serving(['vsock', 'listen', `unix:${dir}/s`])
    expect(await upcall(['vsock', 'listen', `unix:${dir}/s`])).toMatchObject({ status: 2 })
    // The look whether somebody lives there was a connection; it was the one.
    running.interrupt()
    expect([0, 130]).toContain(await running.status)
    expect(existsSync(join(dir, 's'))).toBe(false)
  })

  test('--keep --exec: a program for each, at most --max at once, and SIGTERM ends it with 0', async () => {
    const argv = ['--json', 'vsock', 'listen', `unix:${dir}/s`, '--keep', '--max', '2', '--exec', 'sh', '-c', 'echo ready; cat']
    const running = await serving(argv)
    const sockets = await Promise.all([1, 2, 3].map(() => connect(`unix:${dir}/s`)))
    const first = await Promise.race(sockets.map((socket) => once(socket, 'data').then(() => socket)))
    await running.stderr.has('"connection":2')
    expect(running.stderr.text).not.toContain('"connection":3')
    first.end('x')
    await running.stderr.has('"connection":3')
    for (const socket of sockets) if (socket !== first) socket.end('x')
    for (const n of [1, 2, 3]) await running.stderr.has(`"event":"disconnect","connection":${n}`)
    running.interrupt('SIGTERM')
    expect(await running.status).toBe(0)
    const gone = running.stderr.json.filter(({ event }) => event === 'disconnect')
    expect(gone).toHaveLength(3)
    for (const end of gone) expect(end).toMatchObject({ outcome: 'ok', sent: 7, received: 1, status: 0 })
    expect(existsSync(join(dir, 's'))).toBe(false)
    for (const socket of sockets) socket.destroy()
  })

  test('--keep without a program: one connection after the other into stdout, stdin unread', async () => {
    const stdin = new PassThrough()
    const running = await serving(['vsock', 'listen', `unix:${dir}/s`, '--keep'], stdin)
    const first = await connect(`unix:${dir}/s`)
    const second = await connect(`unix:${dir}/s`)
    second.resume().end('second\n')
    first.write('first, ')
    await running.stdout.has('first, ')
    first.resume().end('ended\n')
    await running.stdout.has('second\n')
    expect(running.stdout.text).toBe('first, ended\nsecond\n')
    expect(stdin.readableFlowing).toBeNull()
    running.interrupt()
    expect(await running.status).toBe(130)
  })
})

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
        read(guest).then((answer) => answers(String(answer)))
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
    const running = await serving(['--json', 'vsock', 'forward', ...argv.map(at)])
    const sender = await upcall(['vsock', 'connect', at(near)], { stdin: Readable.from(pieces(bytes)) })
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
    test.each(cases)('%s, %s behind %d bytes', async (place, way, bytes) => {
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

  test('whoever cannot be connected is closed, reset over tcp, refused as a VMM does, and the rest goes on', async () => {
    const to = `unix:${dir}/guest`
    const tcp = await serving(['--json', 'vsock', 'forward', 'tcp:any', to])
    const dial = () => netConnect(Number(tcp.address.split(':').at(-1)), '127.0.0.1')
    const [error] = await once(dial(), 'error')
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    expect(tcp.stdout.json.at(-1)).toMatchObject({
      event: 'disconnect',
      connection: 1,
      outcome: 'not-sent',
      error: { code: 'ECONNREFUSED', message: expect.stringContaining('no such file') },
    })
    const asVmm = await serving(['vsock', 'forward', '--as-vmm', `hvsock://${dir}/vm:80`, to])
    await expect(connect(`hvsock://${dir}/vm:80`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(asVmm.stdout.text).toMatch(/#1 not-sent: connect unix:.*no such file/)
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
      `#1 indeterminate: unix:${dir}/guest: interrupted by SIGINT; what was on its way may be lost`,
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
