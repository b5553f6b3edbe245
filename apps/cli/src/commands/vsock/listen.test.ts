import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { upcall } from '../../../testing/harness.js'
import { connect, dir, read, serving } from '../../../testing/peers.js'

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

  test("hvsock: connections that the guest makes; with --as-vmm the guest's own port", async () => {
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

  test('no peer in time is status 3; an interruption is 130; a path in use is 2', async () => {
    const late = await upcall(['vsock', 'listen', `unix:${dir}/s`, '--timeout', '20ms'])
    expect(late.status).toBe(3)
    expect(late.stderr.text).toMatch(/no peer connected within 20 ms\. Allow more time/)
    const running = await serving(['vsock', 'listen', `unix:${dir}/s`])
    expect(await upcall(['vsock', 'listen', `unix:${dir}/s`])).toMatchObject({ status: 2 })
    // The check for a live listener was a connection, the only one that it takes.
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
