import { existsSync } from 'node:fs'
import { connect as netConnect } from 'node:net'
import { connect } from '@upcall/vsock'
import { encodeRequest, FrameDecoder } from '@upcall/wire'
import { expect, test } from 'vitest'
import { serveGuest, start, upcall } from '../../testing/harness.js'
import { quirksOf } from './guest.js'

test.each(['unix', 'hvsock'] as const)('%s: each request is a line, and the end removes the socket', async (transport) => {
  await using guest = await serveGuest(transport, ['--cpus', '2', '--max-cpus', '4', '--pci', '00:05.0'])
  const argv = ['--target', guest.target, '--arch', 'x86_64']
  await upcall([...argv, 'pci', 'add', '00:05.0'])
  await upcall([...argv, 'pci', 'add', '00:06.0'])
  const hanging = start([...argv, 'cpu', 'remove', '9'])
  await guest.stdout.has('"cpu.remove"')
  hanging.interrupt()
  await hanging.status
  guest.interrupt('SIGTERM')
  expect(await guest.status).toBe(0)
  expect(existsSync(guest.path)).toBe(false)
  const [listening, ...events] = guest.stdout.json
  expect(listening).toMatchObject({
    event: 'listening',
    address: guest.target,
    arch: 'x86_64',
    kernel: '6.1',
    cpus: 2,
    maxCpus: 4,
  })
  const requests = events.filter(({ event }) => event === 'request')
  expect(requests).toMatchObject([
    { connection: 1, operation: { op: 'pci.add', bdf: '00:05.0' }, result: 0, durationMs: expect.any(Number) },
    { connection: 2, operation: { op: 'pci.add', bdf: '00:06.0' }, result: -19, errnoName: 'ENODEV' },
    { connection: 3, operation: { op: 'cpu.remove', apicIds: [9] } },
  ])
  expect(requests[2]).not.toHaveProperty('result')
  for (const event of ['connect', 'disconnect']) expect(events.filter((each) => each.event === event)).toHaveLength(3)
})

test('SIGINT ends it as well, with 130', async () => {
  await using guest = await serveGuest('unix')
  guest.interrupt('SIGINT')
  expect(await guest.status).toBe(130)
  expect(existsSync(guest.path)).toBe(false)
})

test.each([
  [[], 'OK '],
  [['--profile', 'dragonball'], ''],
])('hvsock: a command in pieces with %j: %j', async (profile, answer) => {
  await using guest = await serveGuest('hvsock', profile)
  const heard = await new Promise<string>((resolve) => {
    const socket = netConnect(guest.path).on('error', () => {})
    const done = (text: string) => {
      socket.destroy()
      resolve(text.slice(0, 3))
    }
    socket.once('data', (chunk) => done(String(chunk))).once('close', () => done(''))
    // A strict VMM closes at the first piece, so no second one is sent that it might read together with the first.
    socket.write('CONNECT ', () => answer !== '' && setTimeout(() => socket.write('219\n'), 5))
  })
  expect(heard).toBe(answer)
})

test('--profile is for hvsock', async () => {
  const { status, stderr } = await upcall(['serve', '--listen', 'unix:/tmp/x', '--profile', 'firecracker'])
  expect([status, stderr.text]).toEqual([2, expect.stringContaining('--profile: only an hvsock://')])
})

test('a path that is in use is refused', async () => {
  await using guest = await serveGuest('unix')
  const second = await upcall(['serve', '--listen', guest.target])
  expect(second.status).toBe(2)
  expect(second.stderr.text).toMatch(/^upcall: invalid: --listen: .*another server listens there/)
})

test('lines for people', async () => {
  await using other = await serveGuest('hvsock')
  const target = `hvsock://${other.path}.text:219`
  const running = start(['--arch', 'x86_64', 'serve', '--listen', target])
  await running.stdout.has('listening')
  await upcall(['--target', target, 'pci', 'remove', '00:05.0'])
  await upcall(['--target', `hvsock://${other.path}.text:7`, 'status'])
  running.interrupt('SIGTERM')
  expect(await running.status).toBe(0)
  expect(running.stdout.text).toMatch(/^listening on hvsock:.*:219: x86_64, Linux 6\.1, 1 of 256 CPUs\n/)
  expect(running.stdout.text).toMatch(/#1 pci\.remove 00:05\.0 → -19 ENODEV \([\d.]+ ms\)\n/)
  expect(running.stdout.text).toMatch(/a client was closed: port 7: that port is not served here\n/)
})

test('a torn request is told as the guest took it', async () => {
  const message = encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0x28 }, 'x86_64')
  for (const [quirks, pieces, expected] of [
    ['none,tornRequests', [message.subarray(0, 512)], { malformed: expect.stringContaining('512 bytes'), result: 0 }],
    ['none', [message.subarray(0, 512), message.subarray(512)], { operation: { op: 'pci.add', bdf: '00:05.0' }, result: 0 }],
  ] as const) {
    await using guest = await serveGuest('unix', ['--quirks', quirks])
    const socket = await connect(guest.target)
    const frames = new FrameDecoder()
    socket.write('d')
    for await (const chunk of socket) {
      const [frame] = frames.push(chunk as Buffer)
      if (frame === undefined) continue
      // The greeting is answered with the request, the reply with the end.
      if (socket.bytesWritten > 1) break
      for (const piece of pieces) socket.write(piece)
    }
    expect(guest.stdout.json.filter(({ event }) => event === 'request')).toMatchObject([expected])
  }
})

test('quirks are read left to right', () => {
  expect(quirksOf('all')).toMatchObject({ tornRequests: true, slowAbsentCpu: true })
  expect(Object.values(quirksOf('none')).every((on) => !on)).toBe(true)
  expect(quirksOf('none,stalePciResult')).toMatchObject({ stalePciResult: true, tornRequests: false })
  expect(quirksOf('no-slowAbsentCpu')).toEqual({ slowAbsentCpu: false })
  expect(() => quirksOf('slow')).toThrow(/"slow" is not known. Use all, none, or a list of .*slowAbsentCpu/)
})
