import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { listenSeqpacket } from '@upcall/vsock'
import { beforeEach, describe, expect, test } from 'vitest'
import { upcall } from '../../../testing/harness.js'
import { closers, dir, serving } from '../../../testing/peers.js'

// Message sockets against Python's, over AF_UNIX. Nothing here connects over AF_VSOCK.
const addon = fileURLToPath(new URL('../../../../../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))
const python = (() => {
  try {
    execFileSync('python3', ['-c', 'import socket; socket.SOCK_SEQPACKET'], { stdio: 'ignore' })
    return true
  } catch {
    console.warn('Tests of messages are left out: there is no python3. To run them, install it.')
    return false
  }
})()

/** A program with a socket `s` of its own and the path of the peer. `ready`: it has said something on stdout. */
function start(program: string, path: string): { ended: Promise<string>; ready: Promise<unknown> } {
  const setUp = 'import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n'
  const child = spawn('python3', ['-u', '-c', `${setUp}${program}`, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  closers.push(() => child.kill('SIGKILL'))
  const ready = once(child.stdout, 'data').then(([said]) => said)
  const rest = ready.then(async (said) => `${said}${await text(child.stdout)}`)
  return { ended: rest, ready }
}

const CLIENT = 's.connect(sys.argv[1])\n'
/** Says `ready`, takes one connection and calls it `c`. */
const SERVER = "s.bind(sys.argv[1])\ns.listen()\nprint('ready')\nc = s.accept()[0]\n"
/** Each message up to the end, as Python writes it. */
const READ_ALL = "for m in iter(lambda: c.recv(1 << 20), b''): print(m if len(m) < 100 else len(m))\n"

describe.skipIf(!existsSync(addon) || !python)('messages (needs the addon and python3)', () => {
  beforeEach(() => {
    process.env.UPCALL_VSOCK_ADDON = addon
  })

  test('connect sends a message a line, and prints a line a message, up to both ends', async () => {
    const peer = start(`${SERVER}c.send(b'hello')\nc.send(b'x' * 70000)\n${READ_ALL}c.send(b'bye')\n`, `${dir}/s`)
    await peer.ready
    const { status, stdout, stderr } = await upcall(['--json', 'vsock', 'connect', `unix+seq:${dir}/s`], {
      // However the bytes are cut, the last line without its end, and an empty one.
      stdin: Readable.from(['on', 'e\ntwo\n', '\n', `${'y'.repeat(100_000)}\nla`, 'st']),
    })
    expect([status, stdout.text]).toEqual([0, `hello\n${'x'.repeat(70_000)}\nbye\n`])
    expect(await peer.ended).toBe("ready\nb'one'\nb'two'\n100000\nb'last'\n")
    expect(stderr.json).toMatchObject([{ op: 'vsock.connect', outcome: 'ok' }])
  })

  test('connect --exec joins a program', async () => {
    const peer = start(`${SERVER}c.send(b'one')\nc.send(b'two')\nc.shutdown(socket.SHUT_WR)\n${READ_ALL}`, `${dir}/s`)
    await peer.ready
    const { status } = await upcall(['vsock', 'connect', `unix+seq:${dir}/s`, '--exec', 'sed', 's/^/got /'])
    expect(status).toBe(0)
    expect(await peer.ended).toBe("ready\nb'got one'\nb'got two'\n")
  })

  test('listen takes one peer', async () => {
    const stdin = new PassThrough()
    const running = await serving(['vsock', 'listen', `unix+seq:${dir}/s`], stdin)
    expect(running.address).toBe(`unix+seq:${dir}/s`)
    const peer = start(
      `${CLIENT}for m in (b'a', b'bc'): s.send(m)\ns.shutdown(socket.SHUT_WR)\nprint(s.recv(9), s.recv(9))\n`,
      `${dir}/s`,
    )
    await running.stdout.has('a\nbc\n')
    stdin.end('one\ntwo')
    expect(await peer.ended).toBe("b'one' b'two'\n")
    expect(await running.status).toBe(0)
  })

  test('listen --keep --exec serves each peer', async () => {
    await serving(['vsock', 'listen', `unix+seq:${dir}/s`, '--keep', '--exec', 'cat'])
    for (const name of ['one', 'two']) {
      const peer = start(`${CLIENT}s.send(b'${name}')\ns.shutdown(socket.SHUT_WR)\nprint(s.recv(9), s.recv(9))\n`, `${dir}/s`)
      expect(await peer.ended).toBe(`b'${name}' b''\n`)
    }
  })

  test('a line that is too long for a message breaks the connection, and says so', async () => {
    const peer = start(`${SERVER}${READ_ALL}`, `${dir}/s`)
    await peer.ready
    const { status, stderr } = await upcall(['vsock', 'connect', `unix+seq:${dir}/s`], {
      stdin: Readable.from([`short\n${'y'.repeat(4 << 20)}\nnever`]),
    })
    expect(status).toBe(4)
    expect(stderr.text).toMatch(/a line is longer than \d+ bytes, as much as a message may have/)
    expect(await peer.ended).toBe("ready\nb'short'\n")
  })

  test('a peer that leaves is told', async () => {
    const peer = start(`${SERVER}print(c.recv(9))\nc.close()\n`, `${dir}/s`)
    await peer.ready
    const stdin = new PassThrough()
    stdin.write('one\n')
    const running = upcall(['vsock', 'connect', `unix+seq:${dir}/s`], { stdin })
    await peer.ended
    stdin.end('two\nthree\n')
    const { status, stderr } = await running
    expect(status).toBe(4)
    // Said by the write that failed, or by the look at a peer that has ended, whichever is first.
    expect(stderr.text).toMatch(/indeterminate: .*\(EPIPE\)/)
  })

  test('a server of streams is refused in words', async () => {
    await serving(['vsock', 'listen', `unix:${dir}/s`])
    const { status, stderr } = await upcall(['vsock', 'connect', `unix+seq:${dir}/s`])
    expect([status, stderr.text]).toEqual([3, expect.stringMatching(/EPROTOTYPE/)])
  })

  describe('forward', () => {
    const forwarding = (...more: string[]) =>
      serving(['--json', 'vsock', 'forward', `unix+seq:${dir}/near`, `unix+seq:${dir}/far`, ...more])

    test('carries each message whole, both ways, and the ends', async () => {
      const far = start(`${SERVER}c.send(b'hello')\n${READ_ALL}c.send(b'bye')\n`, `${dir}/far`)
      await far.ready
      const running = await forwarding()
      expect(running.stdout.json).toMatchObject([
        { event: 'listening', address: `unix+seq:${dir}/near`, to: `unix+seq:${dir}/far` },
      ])
      const near = start(
        `${CLIENT}s.send(b'one\\n')\ns.send(b'x' * 70000)\ns.shutdown(socket.SHUT_WR)\nprint(s.recv(9), s.recv(9), s.recv(9))\n`,
        `${dir}/near`,
      )
      expect(await near.ended).toBe("b'hello' b'bye' b''\n")
      expect(await far.ended).toBe("ready\nb'one\\n'\n70000\n")
      await running.stdout.has('"disconnect"')
      expect(running.stdout.json.slice(1)).toMatchObject([
        { event: 'connect', connection: 1, remote: `unix+seq:${dir}/near` },
        { event: 'disconnect', connection: 1, outcome: 'ok', sent: 70_004, received: 8 },
      ])
    })

    test('closes a client for which there is no connection', async () => {
      const running = await forwarding()
      const near = start(`${CLIENT}print(s.recv(9))\n`, `${dir}/near`)
      expect(await near.ended).toBe("b''\n")
      await running.stdout.has('"disconnect"')
      expect(running.stdout.json.at(-1)).toMatchObject({ outcome: 'not-sent', error: { code: 'ECONNREFUSED' } })
    })

    test.each([[[]], [['--grace', '50ms']]])('cuts what is open when it is told to end: %j', async (more) => {
      const far = start(`${SERVER}c.send(b'hello')\n${READ_ALL}`, `${dir}/far`)
      await far.ready
      const running = await forwarding(...more)
      const near = start(`${CLIENT}print(s.recv(9))\nprint(s.recv(9))\n`, `${dir}/near`)
      await near.ready
      running.interrupt('SIGTERM')
      expect(await running.status).toBe(0)
      expect(await near.ended).toBe("b'hello'\nb''\n")
      expect(running.stdout.json.at(-1)).toMatchObject({ outcome: 'indeterminate', received: 5, error: { code: 'ABORTED' } })
      expect(existsSync(`${dir}/near`)).toBe(false)
    })
  })

  test.each([
    [['vsock', 'forward', 'unix+seq:/x', 'unix:/y'], /<to>: is for streams, and <from> for messages\. Write \+seq after both/],
    [['vsock', 'forward', 'tcp:any', 'unix+seq:/y'], /<from>: is for streams, and <to> for messages/],
    [['vsock', 'forward', 'unix+seq:/x', 'vsock+seq://any:1'], /<to>: the CID to connect to cannot be any/],
    [['vsock', 'forward', 'unix+seq:/x', 'unix+seq:/y', '--linger', '1s'], /--linger: is for streams/],
    [['vsock', 'connect', 'unix+seq:/x', '--no-half-close'], /--no-half-close: is for streams/],
    [['vsock', 'listen', 'hvsock+seq:///x:1', '--as-vmm'], /--as-vmm: it carries streams/],
    [['vsock', 'connect', 'tcp+seq:1'], /<address>: .*the form is unknown|not the address of a message socket/],
    [['vsock', 'connect', 'unix+seq:/x', '--to-host'], /--to-host: only a vsock/],
  ])('wrong usage: %j', async (argv, message) => {
    const { status, stderr } = await upcall(argv)
    expect(status).toBe(2)
    expect(stderr.text).toMatch(message)
  })

  test('what listens is closed with its command', async () => {
    const running = await serving(['vsock', 'listen', `unix+seq:${dir}/s`, '--keep'])
    running.interrupt('SIGTERM')
    expect(await running.status).toBe(0)
    await using server = await listenSeqpacket(`unix+seq:${dir}/s`)
    expect(server.address).toMatchObject({ type: 'seqpacket' })
  })
})
