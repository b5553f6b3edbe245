import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { createConnection } from 'node:net'
import { text } from 'node:stream/consumers'
import { expect, test } from 'vitest'
import { type Running, start, upcall } from '../../../testing/harness.js'
import { closers, dir } from '../../../testing/peers.js'

const address = () => `hvsock://${dir}/vm:9999`

async function listening(...args: string[]): Promise<Running> {
  const running = start([...args, 'vsock', 'notify', address()])
  closers.push(async () => {
    running.interrupt()
    await running.status
  })
  await running.stdout.has('listening')
  return running
}

/** What sd_notify(3) does, as the VMM brings it. */
async function tell(message: string): Promise<void> {
  const socket = createConnection({ path: `${dir}/vm_9999`, allowHalfOpen: true })
  await once(socket, 'connect')
  socket.end(message)
  expect(await text(socket)).toBe('')
}

test('prints what the guest tells, and ends with 0 when it is ready', async () => {
  const { stdout, stderr, status } = await listening()
  await tell('X_SYSTEMD_HOSTNAME=guest\nSTATUS=\u001b[2Jred')
  await tell('READY=1')
  expect(await status).toBe(0)
  expect(stdout.lines).toEqual([
    `listening on ${address()}`,
    'guest: X_SYSTEMD_HOSTNAME=guest STATUS=?[2Jred',
    'guest: READY=1',
    'ready',
  ])
  expect(stderr.text).toBe('')
  expect(existsSync(`${dir}/vm_9999`)).toBe(false)
})

test('the same as JSON, with a CID that the transport does not tell, and a unit', async () => {
  const running = start(['--json', 'vsock', 'notify', address(), '--cid', '42', '--unit', 'ssh.target', '--mode', '600'])
  await running.stdout.has('listening')
  expect(statSync(`${dir}/vm_9999`).mode & 0o777).toBe(0o600)
  await tell('READY=1')
  await tell('X_SYSTEMD_UNIT_ACTIVE=ssh.target')
  expect(await running.status).toBe(0)
  expect(running.stdout.json).toEqual([
    { event: 'listening', address: address() },
    { event: 'notify', cid: 42, fields: { READY: '1' } },
    { event: 'notify', cid: 42, fields: { X_SYSTEMD_UNIT_ACTIVE: 'ssh.target' } },
    { op: 'vsock.notify', outcome: 'ok', cid: 42, fields: { READY: '1' }, units: ['ssh.target'] },
  ])
})

test('a guest that goes down or fails: status 1, with what it told', async () => {
  const { stdout, stderr, status } = await listening()
  await tell('EXIT_STATUS=7')
  expect(await status).toBe(1)
  expect(stdout.lines.at(-1)).toBe('guest: EXIT_STATUS=7')
  expect(stderr.text).toBe(
    `upcall: guest-error: ready ${address()}: it has gone down (EXIT_STATUS=7). Look at the console or the journal of the guest.\n`,
  )
  const failed = await listening('--json')
  await tell('X_SYSTEMD_UNIT_ACTIVE=emergency.target\nREADY=1')
  expect(await failed.status).toBe(1)
  expect(failed.stdout.json.at(-1)).toMatchObject({
    op: 'vsock.notify',
    outcome: 'guest-error',
    error: { code: 'GUEST_FAILED', op: 'ready' },
    fields: { READY: '1' },
    units: ['emergency.target'],
  })
})

test('a guest that is not ready in time: status 3', async () => {
  const { status, stderr } = await upcall(['--timeout', '50ms', 'vsock', 'notify', address()])
  expect(status).toBe(3)
  expect(stderr.text).toMatch(
    /^upcall: not-sent: ready hvsock:.*: no READY=1 within 50 ms; no message came\. Check the credential/,
  )
})

test('--keep goes on, until SIGTERM says that it is enough', async () => {
  const running = start(['vsock', 'notify', address(), '--keep'])
  await running.stdout.has('listening')
  await tell('READY=1')
  await running.stdout.has('ready\n')
  await tell('STATUS=later')
  await running.stdout.has('STATUS=later')
  running.interrupt('SIGTERM')
  expect(await running.status).toBe(0)
  const waiting = await listening()
  waiting.interrupt()
  expect(await waiting.status).toBe(130)
})

test.each([
  [['tcp:1'], /<address>: no guest connects to tcp\. Write hvsock:/],
  [['hvsock:///x:1', '--privileged'], /--privileged: only vsock:\/\/ tells the port/],
  [['hvsock:///x:1', '--cid', '4294967295'], /--cid: must be below 4294967295/],
  [['vsock://any:1', '--mode', '600'], /--mode: vsock has no socket file/],
  [['nonsense'], /<address>/],
  [['vsock+seq://any:x'], /<address>: .*the port "x" is not allowed/],
])('wrong usage: notify %j', async (argv, message) => {
  const { status, stderr } = await upcall(['vsock', 'notify', ...argv])
  expect(status).toBe(2)
  expect(stderr.text).toMatch(message)
})

test('an address that cannot be listened on: status 3', async () => {
  const { status, stderr } = await upcall(['vsock', 'notify', 'hvsock:///nonexistent/vm:1'])
  expect(status).toBe(3)
  expect(stderr.text).toMatch(/^upcall: not-sent: listen hvsock:\/\/\/nonexistent\/vm:1: /)
})
