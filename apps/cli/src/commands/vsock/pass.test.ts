import { execFileSync } from 'node:child_process'
import { appendFileSync, closeSync, constants, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { VsockSocket } from '@upcall/vsock'
import { describe, expect, test } from 'vitest'
import { start, upcall } from '../../../testing/harness.js'
import { closers, dir, read, server } from '../../../testing/peers.js'

// The build of this checkout. Nothing here connects over AF_VSOCK.
const addon = fileURLToPath(new URL('../../../../../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))
const built = existsSync(addon)

/** Commands of this file load it. Their tests begin with the addon switched off. */
function useAddon() {
  process.env.UPCALL_VSOCK_ADDON = addon
}

/** A guest of `upcall vsock forward --as-vmm`. */
async function guestAt(port: number): Promise<{ address: string; connected: Promise<VsockSocket> }> {
  let connect: (socket: VsockSocket) => void = () => {}
  const connected = new Promise<VsockSocket>((resolve) => {
    connect = resolve
  })
  await server(`unix:${dir}/guest`, (socket) => connect(socket))
  const address = `hvsock://${dir}/vm:${port}`
  const running = start(['--json', 'vsock', 'forward', '--as-vmm', address, `unix:${dir}/guest`])
  closers.push(async () => {
    running.interrupt('SIGTERM')
    await running.status
  })
  await running.stdout.has('listening')
  return { address, connected }
}

test('without the addon the command says so, and how', async () => {
  const { status, stderr } = await upcall(['vsock', 'pass', 'hvsock:///nonexistent:1'])
  expect(status).toBe(3)
  expect(stderr.text).toMatch(
    /^upcall: not-sent: pass hvsock:\/\/\/nonexistent:1: only the native addon can send descriptors: .*switched off.*\. Node itself /,
  )
})

test.each([
  [['unix:/x'], /<address>: only an hvsock:\/\/ address has a VMM/],
  [['hvsock:///x:1', 'file', '--fd', '3'], /--fd: a file is given, too/],
  [['hvsock:///x:1', '--write'], /--write: needs \[file\]/],
  [['hvsock:///x:1', '/nonexistent/file'], /\/nonexistent\/file: it does not exist \(ENOENT\)/],
  [['hvsock:///x:1', '/nonexistent/file', '--write'], /it does not exist \(ENOENT\)/],
  [['hvsock:///x:1', '/', '--write'], /it is a directory \(EISDIR\)/],
])('wrong usage: pass %j', async (argv, message) => {
  const { status, stderr } = await upcall(['vsock', 'pass', ...argv])
  expect(status).toBe(2)
  expect(stderr.text).toMatch(message)
  expect(stderr.lines).toHaveLength(1)
})

describe.skipIf(!built)('with the addon', () => {
  test('a file to the guest; the command ends at once', async () => {
    useAddon()
    const { address, connected } = await guestAt(1027)
    writeFileSync(join(dir, 'request'), 'from the file')
    const { status, stdout, stderr } = await upcall(['vsock', 'pass', address, join(dir, 'request')])
    expect([status, stderr.text]).toEqual([0, ''])
    expect(stdout.text).toMatch(/^host port \d+\n$/)
    expect(String(await read(await connected))).toBe('from the file')
  })

  test("the guest's bytes to a file that is made, and then has more", async () => {
    useAddon()
    const { address, connected } = await guestAt(1027)
    const log = join(dir, 'log')
    const { status, stdout } = await upcall(['--json', 'vsock', 'pass', address, log, '--write'])
    expect(status).toBe(0)
    expect(stdout.json).toEqual([{ op: 'vsock.pass', outcome: 'ok', hostPort: expect.any(Number) }])
    appendFileSync(log, 'first ')
    ;(await connected).end('from the guest')
    await expect.poll(() => readFileSync(log, 'latin1')).toBe('first from the guest')
  })

  test('a FIFO that has no writer yet, with --keep; a FIFO without a reader cannot be written', async () => {
    useAddon()
    const { address, connected } = await guestAt(1027)
    const fifo = join(dir, 'fifo')
    execFileSync('mkfifo', [fifo])
    const refused = await upcall(['vsock', 'pass', address, fifo, '--write'])
    expect(refused.status).toBe(2)
    expect(refused.stderr.text).toMatch(/it is a FIFO without a reader, or a socket \(ENXIO\)\. Open it for reading first/)

    expect((await upcall(['vsock', 'pass', address, fifo, '--keep'])).status).toBe(0)
    let heard = ''
    ;(await connected).on('data', (chunk) => (heard += chunk))
    for (const word of ['one ', 'two']) {
      const writer = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK)
      appendFileSync(writer, word)
      closeSync(writer)
      await expect.poll(() => heard, { timeout: 5_000 }).toContain(word)
    }
  })

  test('a descriptor of the command, and a number that is not open', async () => {
    useAddon()
    const { address, connected } = await guestAt(1027)
    writeFileSync(join(dir, 'request'), 'by number')
    const fd = openSync(join(dir, 'request'), 'r')
    closers.push(() => closeSync(fd))
    expect((await upcall(['vsock', 'pass', address, '--fd', String(fd)])).status).toBe(0)
    expect(String(await read(await connected))).toBe('by number')
    const { status, stderr } = await upcall(['vsock', 'pass', address, '--fd', '4000'])
    expect(status).toBe(2)
    expect(stderr.text).toMatch(/--fd: pass .*descriptor 4000 is not open \(EBADF\)\. Pass an open descriptor/)
  })

  test('no VMM, and a VMM that refuses the port: status 3, and what to do', async () => {
    useAddon()
    const missing = await upcall(['vsock', 'pass', `hvsock://${dir}/none:1`, '/dev/null'])
    expect(missing.status).toBe(3)
    expect(missing.stderr.text).toMatch(/^upcall: not-sent: pass hvsock:.*does not exist/)
    await guestAt(1027)
    const refused = await upcall(['--json', 'vsock', 'pass', `hvsock://${dir}/vm:1`, '/dev/null'])
    expect(refused.status).toBe(3)
    expect(refused.stdout.json).toEqual([
      {
        op: 'vsock.pass',
        outcome: 'not-sent',
        error: expect.objectContaining({ code: 'ECONNREFUSED', op: 'pass', next: expect.stringMatching(/only Dragonball/) }),
      },
    ])
  })
})
