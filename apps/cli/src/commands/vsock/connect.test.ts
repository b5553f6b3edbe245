import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import type { VsockSocket } from '@upcall/vsock'
import { describe, expect, test, vi } from 'vitest'
import { start, upcall } from '../../../testing/harness.js'
import { digest, dir, echo, pieces, rawVmm, read, server, vmm } from '../../../testing/peers.js'

/** A busy machine may be silent for longer than half a second. */
const PATIENT = ['--linger', '10m']

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
    let connected: (socket: VsockSocket) => void
    const guest = new Promise<VsockSocket>((resolve) => {
      connected = resolve
    })
    await server(`unix:${dir}/guest`, (socket) => {
      socket
        .once('data', () => socket.write('answer'))
        .once('end', () => {
          ended = true
        })
      connected(socket)
    })
    await vmm()
    const running = start(['vsock', 'connect', `hvsock://${dir}/vm:80`], { stdin: Readable.from(['question']) })
    await running.stdout.has('answer')
    expect(ended).toBe(false)
    ;(await guest).end(', all of it')
    expect(await running.status).toBe(0)
    expect(running.stdout.text).toBe('answer, all of it')
  })

  test.each([
    ['another upcall as the VMM', []],
    ['another upcall as the VMM, to a stdin that is slow', ['slow']],
  ])('a peer that ends first takes the rest of stdin: %s', async (_name, [slow]) => {
    const bytes = randomBytes(4 << 20)
    const peer = start(['vsock', 'listen', '--as-vmm', `hvsock://${dir}/vm:1`, ...PATIENT])
    await peer.stderr.has('listening')
    const stdin = new PassThrough()
    const running = start(['--json', 'vsock', 'connect', `hvsock://${dir}/vm:1`, ...PATIENT], { stdin })
    stdin.write(bytes.subarray(0, 1 << 20))
    if (slow) await new Promise<void>((resolve) => stdin.once('drain', resolve))
    stdin.end(bytes.subarray(1 << 20))
    expect([await running.status, await peer.status]).toEqual([0, 0])
    expect(running.stderr.json).toMatchObject([{ outcome: 'ok', sent: 4 << 20, received: 0 }])
    expect(digest(peer.stdout.bytes)).toBe(digest(bytes))
  })

  test('a peer that ends first without half-close, and reads on: all of stdin arrives, or it is not a success', async () => {
    const bytes = randomBytes(4 << 20)
    let heard: Promise<Buffer> | undefined
    const reads = await rawVmm((socket) => {
      socket.end('bye')
      heard = read(socket)
    })
    const all = await upcall(['vsock', 'connect', reads, ...PATIENT], { stdin: Readable.from(pieces(bytes)) })
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
      `upcall: indeterminate: ${address}: the peer closed before it had taken everything (EPIPE). It took 0 bytes; the rest is lost.\n`,
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
    expect(stderr.json[0].error.message).toMatch(
      /has ended its direction and takes no more\. It took \d+ bytes; the rest is lost\./,
    )
    expect(stderr.json[0].sent).toBeLessThan(8 << 20)
  })

  test('--half-close passes EOF on through a VMM that can; --linger bounds the wait for a VMM that cannot', async () => {
    await server(`unix:${dir}/guest`, async (socket) => socket.end(`${(await read(socket)).length} bytes`))
    await vmm()
    const run = (...options: string[]) =>
      upcall(['vsock', 'connect', `hvsock://${dir}/vm:80`, ...options], { stdin: Readable.from(['question']) })
    expect(await run('--half-close')).toMatchObject({ status: 0, stdout: { text: '8 bytes' } })
    const lost = await run('--linger', '30ms')
    expect(lost.status).toBe(4)
    expect(lost.stdout.text).toBe('')
    expect(lost.stderr.text).toMatch(
      /without half-close the transport cannot tell it\. Let the peer end first, allow more time with --linger, or pass --half-close/,
    )
  })

  test.each([
    ['unix:DIR/none', /connect unix:.*: there is no listener, the file does not exist \(ENOENT\)\. .*--retry/],
    ['hvsock://DIR/none:80', /the file does not exist/],
    ['tcp:1', /connect tcp:\/\/127.0.0.1:1: there is no listener\. .*--retry/],
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
        expect(stderr.text).toContain('hvsock://<path>:<port>')
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
    expect(out.stderr.text).toMatch(
      /the file does not exist \(ENOENT\); gave up after \d+ attempts within \d+ ms\. Allow more time with --timeout/,
    )
    // A VMM that is paused: it takes the connection and says nothing.
    const silent = createServer(() => {}).listen(join(dir, 'silent'))
    const sockets = new Set<Socket>()
    silent.on('connection', (socket) => sockets.add(socket))
    const paused = await upcall(['vsock', 'connect', `hvsock://${dir}/silent:80`, '--timeout', '40ms'])
    expect(paused.status).toBe(3)
    expect(paused.stderr.text).toMatch(/no answer within 40 ms\. Check that the guest runs, allow more time with --timeout/)
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
      /^upcall: indeterminate: tcp:.*: the connection broke after 1 byte: .*ECONNRESET\. What was on its way may be lost\.\n$/,
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
      `upcall: indeterminate: unix:${dir}/s: interrupted by SIGINT. What was on its way may be lost.\n`,
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
        error: {
          ...{
            code: 'ABORTED',
            subject: `unix:${dir}/s`,
            what: 'interrupted by SIGTERM',
            next: 'What was on its way may be lost.',
          },
          message: `unix:${dir}/s: interrupted by SIGTERM. What was on its way may be lost.`,
        },
      },
    ])
  })
})
