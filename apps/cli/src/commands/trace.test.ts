import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeVsockPacket, readCapture } from '@upcall/trace'
import { expect, inject, onTestFinished, test } from 'vitest'
import { serveGuest, start, upcall } from '../../testing/harness.js'

async function* bytesOf(path: string) {
  yield await readFile(path)
}

test.each(['unix', 'hvsock'] as const)(
  'trace: the real client and the simulated guest over %s, shown and captured',
  async (transport) => {
    await using guest = await serveGuest(transport)
    const listen = transport === 'unix' ? `unix:${guest.path}t` : `hvsock://${guest.path}t`
    const pcap = `${guest.path}.pcap`
    const tracing = start(['--json', '--target', guest.target, 'trace', '--listen', listen, '--pcap', pcap])
    await tracing.stdout.has('"listening"')
    const own = await upcall(['--target', listen, 'pci', 'remove', '00:1f.0'])
    expect(own.status).toBe(1)
    await tracing.stdout.has('"disconnect"')
    tracing.interrupt('SIGTERM')
    expect(await tracing.status).toBe(0)
    const events = tracing.stdout.json
    expect(events.find(({ title }) => title === 'DEL_PCI  00:1f.0')).toMatchObject({
      event: 'message',
      connection: 1,
      direction: 'to-guest',
    })
    expect(events.find(({ title }) => title === 'DEL_PCI  -19 ENODEV')).toMatchObject({ rttMs: expect.any(Number) })
    expect(events.filter(({ event }) => event === 'handshake').map(({ text }) => text.slice(0, 7))).toEqual(
      transport === 'unix' ? [] : ['CONNECT', expect.stringMatching(/^OK /)],
    )
    const packets: string[] = []
    for await (const { bytes } of readCapture(bytesOf(pcap))) {
      const { op, destination, payload } = decodeVsockPacket(bytes)
      packets.push(`${op} ${destination.cid} ${payload.length}`)
    }
    expect(packets.slice(0, 6)).toEqual([
      'connect 3 0',
      'connect 2 0',
      'payload 3 1',
      'payload 2 1024',
      'payload 3 1024',
      'payload 2 1024',
    ])
  },
)

test('trace: a frame that is wrong is shown with the byte that is wrong', async () => {
  await using guest = await serveGuest('unix')
  const tracing = start(['--target', guest.target, 'trace', '--listen', `unix:${guest.path}t`])
  await tracing.stdout.has('listening')
  const client = connect(`${guest.path}t`)
  await once(client, 'connect')
  const wrong = Buffer.alloc(1024)
  wrong.set([0, 1, 0x4e, 0x44])
  client.write('d')
  await once(client, 'data')
  client.write(wrong)
  await tracing.stdout.has('^^')
  client.destroy()
  tracing.interrupt()
  await tracing.status
  expect(tracing.stdout.text).toContain('magic_version: byte 2 is 0x4e and not 0x4d')
  expect(tracing.stdout.text).toMatch(/\n {4}0000 {2}00 01 4e 44 .*\n {4} {12}\^\^/)
})

test('trace: SIGINT of the program closes both sides and leaves a whole capture, with status 130', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'trace-'))
  const guest = createServer().listen(join(folder, 'g'))
  await once(guest, 'listening')
  const arriving = once(guest, 'connection')
  const pcap = join(folder, 'a.pcap')
  const args = ['--json', '--target', `unix:${folder}/g`, 'trace', '--raw', '--listen', `unix:${folder}/t`, '--pcap', pcap]
  const child = spawn(process.execPath, [inject('program'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
    guest.close()
    await rm(folder, { recursive: true })
  })
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  await expect.poll(() => said, { timeout: 20_000 }).toContain('"listening"')
  const client = connect(join(folder, 't')).on('error', () => {})
  const [server] = (await arriving) as [Socket]
  server.on('error', () => {})
  const gone = Promise.all([client, server].map((socket) => new Promise((resolve) => socket.once('close', resolve))))
  client.write('to the guest')
  await once(server, 'data')
  server.write('to the host')
  await once(client, 'data')
  client.resume()
  server.resume()
  child.kill('SIGINT')
  expect(await ended).toEqual([130, null])
  await gone
  expect(existsSync(join(folder, 't'))).toBe(false)
  const payloads: string[] = []
  for await (const { bytes, problem } of readCapture(bytesOf(pcap))) {
    expect(problem).toBeUndefined()
    const { op, payload } = decodeVsockPacket(bytes)
    payloads.push(`${op} ${Buffer.from(payload)}`.trim())
  }
  expect(payloads).toEqual(['connect', 'connect', 'payload to the guest', 'payload to the host', 'disconnect', 'disconnect'])
})

test('trace: a socket in use, a target that is missing, and a file that cannot be written are told', async () => {
  await using guest = await serveGuest('unix')
  for (const [args, subject] of [
    [['--target', guest.target, 'trace', '--listen', guest.target], '--listen'],
    [['trace', '--listen', `unix:${guest.path}t`], '--target'],
    [['--target', guest.target, 'trace', '--listen', `unix:${guest.path}t`, '--pcap', '/nonexistent/x'], '--pcap'],
  ] as const) {
    const { status, stderr } = await upcall(args)
    expect([status, stderr.text]).toEqual([2, expect.stringContaining(subject)])
  }
})
