import { EventEmitter, once } from 'node:events'
import { existsSync, unlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type Duplex, duplexPair, Readable } from 'node:stream'
import type { VhostUserVsock, VhostUserVsockOptions } from '@upcall/vhost-user'
import type { Address } from '@upcall/vsock'
import { describe, expect, test } from 'vitest'
import { Sink } from '../../../../testing/harness.js'
import { closers, connect, dir, read } from '../../../../testing/peers.js'
import { Context } from '../../../context.js'
import { Interrupted } from '../../../errors.js'
import { ExitStatus } from '../../../exit.js'
import { wantedBy, wantedIn } from './options.js'
import { serveDevices } from './service.js'
import type { Surroundings } from './surroundings.js'

/** A device whose guest is this test. */
class FakeDevice extends EventEmitter {
  readonly calls: unknown[] = []
  closed = false
  constructor(readonly options: VhostUserVsockOptions) {
    super()
  }

  get guestCid(): number {
    return this.options.guestCid
  }

  async connect(port: number): Promise<Duplex> {
    if (port !== 1024 && port !== 2048) throw Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })
    const [host, guest] = duplexPair()
    if (port === 1024) guest.pipe(guest)
    // It never ends, whatever the other side does.
    else guest.resume().write('x')
    return host
  }

  setPolicy(policy: unknown): void {
    this.calls.push({ policy })
  }

  setGroups(groups: unknown): void {
    this.calls.push({ groups })
  }

  async close(): Promise<void> {
    this.closed = true
  }
}

class FakeNetwork extends EventEmitter {
  readonly devices: FakeDevice[] = []

  async add(options: VhostUserVsockOptions): Promise<VhostUserVsock> {
    if (options.socketPath.endsWith('busy')) throw Object.assign(new Error('in use'), { code: 'EADDRINUSE' })
    if (options.socketPath.startsWith('/nonexistent/')) throw Object.assign(new Error('stat'), { code: 'ENOENT' })
    const device = new FakeDevice(options)
    this.devices.push(device)
    return device as unknown as VhostUserVsock
  }

  async close(): Promise<void> {
    for (const device of this.devices) await device.close()
  }

  device(cid: number): FakeDevice {
    return this.devices.findLast(({ guestCid }) => guestCid === cid)!
  }
}

/** The command with devices that have no QEMU, on a machine without AF_VSOCK. */
async function serving(source: { vm?: string[]; config?: string }) {
  const network = new FakeNetwork()
  const dialled: Address[] = []
  const ports: { port: number; closed: boolean }[] = []
  const surroundings: Surroundings = {
    network: async () => network as never,
    dial: async (address) => {
      dialled.push(address)
      return duplexPair()[0]
    },
    forward: async (port) => {
      if (port === 13) throw Object.assign(new Error('taken'), { code: 'EADDRINUSE' })
      const listener = { port, closed: false }
      ports.push(listener)
      return {
        close: async () => {
          listener.closed = true
        },
      }
    },
  }
  const [stdout, stderr] = [new Sink(), new Sink()]
  const controller = new AbortController()
  let hangUp: (() => void) | undefined
  const io = {
    ...{ stdin: Readable.from([]), stdout, stderr, env: {}, signal: controller.signal },
    onHangUp(fn: () => void) {
      hangUp = fn
      return () => (hangUp = undefined)
    },
  }
  const exit = new ExitStatus()
  const { config } = source
  const wanted = await wantedBy(source)
  const reread = config === undefined ? undefined : () => wantedIn(config)
  const done = serveDevices(new Context(io, exit, { json: true }), wanted, reread, surroundings)
  closers.push(() => {
    controller.abort(new Interrupted('SIGTERM'))
    return done.catch(() => {})
  })
  const events = (event: string) => stdout.json.filter((line) => line.event === event)
  return {
    ...{ network, dialled, ports, stdout, done, exit, events },
    stop: () => controller.abort(new Interrupted('SIGTERM')),
    get hangUp() {
      return hangUp
    },
  }
}

const vm = (cid: number, more = '') => `guest-cid=${cid},socket=${dir}/${cid}.vhost,uds-path=${dir}/${cid}.vsock${more}`

describe('a device with uds-path', () => {
  test('CONNECT goes to the guest; what the guest connects to goes to <path>_<port>', async () => {
    const { network, dialled, stdout, stop, done, exit, events } = await serving({ vm: [vm(3, ',groups=a+b,linger=1s')] })
    await stdout.has('"listening"')
    expect(stdout.json).toEqual([
      expect.objectContaining({ event: 'listening', cid: 3, socket: `${dir}/3.vhost`, udsPath: `${dir}/3.vsock` }),
    ])
    const device = network.device(3)
    expect(device.options).toMatchObject({ guestCid: 3, socketPath: `${dir}/3.vhost`, groups: ['a', 'b'], hostCids: [2] })
    expect(device.options).toMatchObject({ lingerMs: 1000, handshakeTimeoutMs: 2000, bufferBytes: 262_144, maxConnections: 1023 })
    const socket = await connect(`hvsock://${dir}/3.vsock:1024`, { halfClose: true })
    socket.end('and back')
    expect(String(await read(socket))).toBe('and back')
    await expect(connect(`hvsock://${dir}/3.vsock:1025`)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await stdout.has('"refused"')
    expect(events('refused')).toEqual([
      expect.objectContaining({ cid: 3, client: `${dir}/3.vsock`, port: 1025, reason: 'route-failed' }),
    ])
    await device.options.onConnection!(514, { signal: new AbortController().signal } as never)
    expect(dialled).toEqual([{ transport: 'unix', path: `${dir}/3.vsock_514` }])
    stop()
    await done
    expect([exit.status, exit.servesUntilTold, device.closed, existsSync(`${dir}/3.vsock`)]).toEqual([0, true, true, false])
    expect(events('closed')).toHaveLength(1)
  })

  test('half-close=no: EOF of a client is the end of both directions', async () => {
    const { stdout } = await serving({ vm: [vm(3, ',half-close=no')] })
    await stdout.has('"listening"')
    const socket = await connect(`hvsock://${dir}/3.vsock:2048`, { halfClose: true })
    await once(socket, 'data')
    socket.resume().end()
    await once(socket, 'close')
  })

  test('what becomes of the device is one line each', async () => {
    const { network, stdout, events } = await serving({ vm: [vm(3)] })
    await stdout.has('"listening"')
    const device = network.device(3)
    device.emit('state', { state: 'running', previous: 'attached' })
    device.emit('stopped', { reason: 'fault', error: { code: 'AVAIL_INDEX', what: 'too many' } })
    device.emit('reset', { connections: 2 })
    device.emit('recovery', { ring: 'rx', by: 'interrupt', lost: true })
    device.emit('warning', { code: 'EAGAIN', what: 'a VMM waits' })
    network.emit('refused', { from: { cid: 3, port: 1 }, to: { cid: 4, port: 2 }, type: 'stream', reason: 'policy-port' })
    expect(stdout.json.slice(1)).toEqual([
      { time: expect.any(String), event: 'state', cid: 3, state: 'running', previous: 'attached' },
      { time: expect.any(String), event: 'stopped', cid: 3, reason: 'fault', error: { code: 'AVAIL_INDEX', what: 'too many' } },
      { time: expect.any(String), event: 'reset', cid: 3, connections: 2 },
      { time: expect.any(String), event: 'recovery', cid: 3, ring: 'rx', by: 'interrupt', lost: true },
      { time: expect.any(String), event: 'warning', cid: 3, error: { code: 'EAGAIN', what: 'a VMM waits' } },
      {
        ...{ time: expect.any(String), event: 'refused', cid: 3, from: { cid: 3, port: 1 }, to: { cid: 4, port: 2 } },
        ...{ type: 'stream', reason: 'policy-port' },
      },
    ])
    for (let n = 0; n < 1000; n++) device.emit('reset', { connections: n })
    expect(events('reset').length).toBeLessThan(100)
    // Refusals that the host brings about are lines of their own, and those of the guest are not lost among them.
    const host = { from: { cid: 2, port: 0 }, to: { cid: 3, port: 2 }, type: 'stream', reason: 'policy-rate' }
    for (let n = 0; n < 1000; n++) network.emit('refused', host)
    network.emit('refused', { ...host, from: { cid: 3, port: 7 }, to: { cid: 2, port: 2 } })
    expect(events('refused').slice(1, -1)).not.toHaveLength(0)
    expect(
      events('refused')
        .slice(1, -1)
        .every(({ cid, from }) => cid === 3 && from.cid === 2),
    ).toBe(true)
    expect(events('refused').length).toBeLessThan(100)
    expect(events('refused').at(-1)).toMatchObject({ cid: 3, from: { cid: 3, port: 7 } })
    device.emit('state', { state: 'attached', previous: 'running' })
    expect(events('state')).toHaveLength(2)
  })
})

test('a device with forward-cid: every connection of the guest goes to that CID, and the ports lead to the guest', async () => {
  const more = 'forward-cid=1,forward-listen=9001+9002'
  const { network, dialled, ports, stdout, stop, done } = await serving({ vm: [`socket=${dir}/s,${more}`] })
  await stdout.has('"listening"')
  expect(stdout.json[0]).toMatchObject({ event: 'listening', cid: 3, forwardCid: 1, forwardListen: [9001, 9002] })
  expect(network.device(3).options.hostCids).toBe('any')
  await network.device(3).options.onConnection!(9000, { hostCid: 3, signal: new AbortController().signal } as never)
  expect(dialled).toEqual([{ transport: 'vsock', cid: 1, port: 9000 }])
  expect(ports).toEqual([
    { port: 9001, closed: false },
    { port: 9002, closed: false },
  ])
  stop()
  await done
  expect(ports.every(({ closed }) => closed)).toBe(true)
})

describe('what cannot be opened', () => {
  test.each([
    ['the socket', [`socket=/busy,uds-path=/u`], /socket cannot be used: in use/],
    [
      'the directory',
      ['socket=/nonexistent/s,uds-path=/u'],
      /socket cannot be used: its directory does not exist \(ENOENT\)\. Create it first/,
    ],
    ['the port', [`socket=/s,forward-cid=1,forward-listen=12+13`], /forward-listen cannot be used: taken/],
    [
      'the path',
      [`socket=/s,uds-path=/nonexistent/u`],
      /uds-path cannot be used: listen unix:\/nonexistent\/u: .*Create it first/,
    ],
  ])('%s: nothing stays open', async (_, texts, message) => {
    const { network, ports, done } = await serving({ vm: texts })
    await expect(done).rejects.toThrow(message)
    expect(network.devices.every(({ closed }) => closed)).toBe(true)
    expect(ports.every(({ closed }) => closed)).toBe(true)
  })

  test("a live server's path stays its own", async () => {
    const server = createServer().listen(join(dir, '3.vsock'))
    await once(server, 'listening')
    const { done } = await serving({ vm: [vm(3)] })
    await expect(done).rejects.toThrow(/uds-path cannot be used: .*another server listens there/)
    expect(existsSync(join(dir, '3.vsock'))).toBe(true)
    server.close()
  })
})

describe('SIGHUP', () => {
  const device = (cid: number, more = '') => `
  - guest_cid: ${cid}
    socket: ${dir}/${cid}.vhost
    uds_path: ${dir}/${cid}.vsock${more === '' ? '' : `\n    ${more}`}`
  const write = (...devices: string[]) => writeFileSync(join(dir, 'vms.yaml'), `vms:${devices.join('')}\n`)

  async function rereading(...devices: string[]) {
    write(...devices)
    const command = await serving({ config: join(dir, 'vms.yaml') })
    await Promise.race([
      command.done,
      expect.poll(() => command.events('listening').length, { timeout: 10_000 }).toBe(devices.length),
    ])
    return {
      ...command,
      /** What the new file brings about. */
      async change(...next: string[]) {
        write(...next)
        return this.again()
      },
      async again() {
        command.hangUp!()
        const told = () => [...command.events('reloaded'), ...command.events('reload-failed')]
        await expect.poll(() => told().length, { timeout: 10_000 }).toBe(++this.asked)
        return told().at(-1)
      },
      asked: 0,
    }
  }

  const NOTHING = { added: [], removed: [], changed: [], replaced: [], failed: [], links: [] }

  test('devices are added and removed; those that are as before are not touched', async () => {
    const command = await rereading(device(3), device(4))
    const { network } = command
    const [three, four] = [network.device(3), network.device(4)]
    const open = await connect(`hvsock://${dir}/3.vsock:1024`)
    expect(await command.change(device(3), device(5))).toMatchObject({ ...NOTHING, added: [5], removed: [4] })
    expect([three.closed, four.closed, existsSync(`${dir}/4.vsock`), existsSync(`${dir}/5.vsock`)]).toEqual([
      false,
      true,
      false,
      true,
    ])
    expect(three.calls).toEqual([])
    open.write('x')
    expect(String((await once(open, 'data'))[0])).toBe('x')
    expect(await command.again()).toMatchObject(NOTHING)
    open.destroy()
  })

  test('limits and groups are changed under open connections', async () => {
    const command = await rereading(device(3, 'groups: a'))
    const open = await connect(`hvsock://${dir}/3.vsock:1024`)
    expect(await command.change(device(3, 'from_guest_allow: [host:1]\n    groups: [b]'))).toMatchObject({
      ...NOTHING,
      changed: [3],
    })
    const three = command.network.device(3)
    expect(three.calls).toEqual([
      { policy: expect.objectContaining({ fromGuest: expect.objectContaining({ allow: [{ peer: 'host', ports: [[1, 1]] }] }) }) },
      { groups: ['b'] },
    ])
    open.write('x')
    expect(String((await once(open, 'data'))[0])).toBe('x')
    open.destroy()
  })

  test('another path for programs leaves QEMU alone; another socket is another device', async () => {
    const command = await rereading(device(3))
    const three = command.network.device(3)
    const moved = device(3).replace('3.vsock', 'moved')
    expect(await command.change(moved)).toMatchObject({ ...NOTHING, changed: [3] })
    expect([three.closed, existsSync(`${dir}/3.vsock`), existsSync(`${dir}/moved`)]).toEqual([false, false, true])
    await three.options.onConnection!(7, { signal: new AbortController().signal } as never)
    expect(command.dialled).toEqual([{ transport: 'unix', path: `${dir}/moved_7` }])
    expect(await command.change(moved.replace('3.vhost', 'other'))).toMatchObject({ ...NOTHING, replaced: [3] })
    expect(three.closed).toBe(true)
    expect(command.network.device(3).options.socketPath).toBe(`${dir}/other`)
  })

  test('two devices exchange their paths', async () => {
    const command = await rereading(device(3), device(4))
    const exchanged = [device(3).replace('3.vsock', '4.vsock'), device(4).replace('4.vsock', '3.vsock')]
    expect(await command.change(...exchanged)).toMatchObject({ ...NOTHING, changed: [3, 4] })
    expect(existsSync(`${dir}/3.vsock`)).toBe(true)
  })

  test('a wrong file leaves everything as it is, and says where it is wrong', async () => {
    const command = await rereading(device(3))
    const told = await command.change(device(3, 'groups: a'), device(4, 'linger: soon'))
    expect(told).toMatchObject({
      event: 'reload-failed',
      error: {
        code: 'USAGE',
        subject: `${dir}/vms.yaml:9:13`,
        what: expect.stringMatching(/^vms\[1\]\.linger must be a number and its unit/),
      },
    })
    expect(command.network.devices).toHaveLength(1)
    expect(command.network.device(3).calls).toEqual([])
  })

  test('what does not open is told, and tried again with the next file', async () => {
    const command = await rereading(device(3))
    const server = createServer().listen(join(dir, '4.vsock'))
    await once(server, 'listening')
    expect(await command.change(device(3), device(4))).toMatchObject({ ...NOTHING, failed: [4] })
    expect(command.events('failed')).toEqual([
      expect.objectContaining({ cid: 4, error: expect.objectContaining({ subject: `${dir}/vms.yaml:7:15` }) }),
    ])
    expect(command.network.device(4).closed).toBe(true)
    // The device itself stays where only its path cannot be opened.
    expect(await command.change(device(3).replace('3.vsock', '4.vsock'))).toMatchObject({ ...NOTHING, failed: [3] })
    expect(command.network.device(3).closed).toBe(false)
    server.close()
    await once(server, 'close')
    expect(await command.again()).toMatchObject({ ...NOTHING, changed: [3] })
  })

  test('a file that cannot be read is a wrong file', async () => {
    const command = await rereading(device(3))
    unlinkSync(join(dir, 'vms.yaml'))
    expect(await command.again()).toMatchObject({ event: 'reload-failed', error: { code: 'USAGE', subject: '--config' } })
    expect(command.network.device(3).closed).toBe(false)
  })
})
