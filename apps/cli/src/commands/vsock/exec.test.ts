import { describe, expect, test } from 'vitest'
import { start, upcall } from '../../../testing/harness.js'
import { dir, echo, read, server } from '../../../testing/peers.js'

describe('--exec', () => {
  test("a program's stdin and stdout are the connection's, its status the command's", async () => {
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

  test("the words after it are the program's, whatever they look like", async () => {
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

  test('a program that leaves early ends the connection; a program that a signal ends has status 128 and the signal', async () => {
    await server(`unix:${dir}/s`, (socket) => socket.resume().once('end', () => socket.end()))
    expect(await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'true'])).toMatchObject({ status: 0 })
    expect(await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', 'sh', '-c', 'kill -KILL $$'])).toMatchObject({
      status: 137,
    })
  })

  test('127 for a program that does not exist, 126 for a program that cannot be started', async () => {
    await server(`unix:${dir}/s`, echo)
    const missing = await upcall(['vsock', 'connect', `unix:${dir}/s`, '--exec', '/nonexistent/program'])
    expect(missing.status).toBe(127)
    expect(missing.stderr.text).toMatch(/--exec \/nonexistent\/program: no such program\. /)
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
    expect(long.stderr.text).toContain('--exec true: cannot be started (E2BIG)')
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
