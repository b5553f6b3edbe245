import { once } from 'node:events'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test, vi } from 'vitest'
import { openDescriptors } from '../testing/addon.js'
import { FakeFrontEnd } from '../testing/fake-front-end.js'
import { opName } from '../testing/fake-guest.js'
import { binding, cleanups, deviceAt, folder, frontEnd, heard, path, running, say } from '../testing/scene.js'
import type { ConnectionHandler } from './connections.js'
import { unixAddress } from './listener.js'
import { DEVICE_FEATURES } from './machine/features.js'
import { Op, SHUTDOWN_BOTH } from './machine/packet.js'
import type { Descriptor } from './native/binding.js'
import { VhostUserVsock } from './vhost-user-vsock.js'

describe.runIf(binding !== undefined)('VhostUserVsock', () => {
  describe('a VMM on the line', () => {
    test('from waiting to running and back', async () => {
      const device = await deviceAt()
      const states: string[] = []
      device.on('state', ({ state }) => states.push(state))
      const vmm = await frontEnd()
      await vmm.start()
      await device.ready()
      vmm.close()
      const [info] = await once(device, 'stopped')
      expect(info).toEqual({ reason: 'disconnected', error: undefined })
      expect(states).toEqual(['attached', 'running', 'waiting'])
    })

    test('ready() waits for the driver, and can be given up', async () => {
      const device = await deviceAt()
      const given = new AbortController()
      const waiting = expect(device.ready({ signal: given.signal })).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
      given.abort('enough')
      await waiting
      const ready = device.ready()
      await (await frontEnd()).start()
      await ready
    })

    test('connect() before the driver is there says so at once', async () => {
      const device = await deviceAt()
      await expect(device.connect(5000)).rejects.toMatchObject({
        code: 'ENETDOWN',
        retryable: true,
        message: expect.stringMatching(/guest 42 port 5000: the device is waiting/),
      })
    })

    test('a VMM that cannot be let in for now brings a warning, and is let in later', async () => {
      // The binding is the process's one, which the device loads, too.
      const accepting = vi.spyOn(binding!, 'accept').mockImplementation(() => {
        throw Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' })
      })
      cleanups.push(() => accepting.mockRestore())
      const device = new VhostUserVsock({ socketPath: path, guestCid: 42 })
      cleanups.push(() => device.close())
      const warned = once(device, 'warning')
      await device.listen()
      const attached = frontEnd()
      const [warning] = await warned
      expect(warning).toMatchObject({ code: 'EAGAIN', retryable: true, cause: { code: 'EMFILE' } })
      expect(warning.message).toContain(
        `listen ${path}: a VMM waits and cannot be let in: accept EMFILE. The next try is in 10 ms.`,
      )
      accepting.mockRestore()
      await attached
      expect(device.state).toBe('attached')
    })

    test('its guest may remember connections of before: no host port comes again', async () => {
      const device = await deviceAt()
      const ports: number[] = []
      for (let i = 0; i < 2; i++) {
        const vmm = await frontEnd()
        vmm.guest.supply(8)
        const running = once(device, 'running')
        await vmm.start()
        await running
        const connecting = device.connect(5000).catch(() => {})
        const [request] = await heard(vmm)
        ports.push(request!.header.sourcePort)
        const stopped = once(device, 'stopped')
        vmm.sendBytes(Buffer.alloc(12, 0xff))
        await stopped
        await connecting
      }
      expect(ports[1]).toBe(ports[0]! + 1)
    })

    test('a device of another process does not begin where this one did', async () => {
      const first: number[] = []
      for (const name of ['one', 'two']) {
        const device = await deviceAt({ socketPath: join(folder, name) })
        const vmm = await frontEnd(device.socketPath)
        vmm.guest.supply(8)
        await vmm.start()
        const connecting = device.connect(5000).catch(() => {})
        first.push((await heard(vmm))[0]!.header.sourcePort)
        await device.close()
        await connecting
      }
      expect(first[0]).not.toBe(first[1])
      for (const port of first) expect(port).toBeGreaterThanOrEqual(2 ** 30)
    })

    test('a second VMM is hung up on', async () => {
      await running()
      const second = new FakeFrontEnd(binding!, path)
      cleanups.push(() => second.close())
      await second.hungUp()
    })

    test.each([
      ['an unknown request', Buffer.from('630000000100000000000000', 'hex')],
      ['garbage', Buffer.alloc(64, 0xff)],
      ['a message that is too long', Buffer.from('0500000001000000ffffffff', 'hex')],
    ])('%s ends the conversation; the next VMM is welcome', async (_, bytes) => {
      const device = await deviceAt()
      const bad = await frontEnd()
      const stopped = once(device, 'stopped')
      bad.sendBytes(bytes)
      expect((await stopped)[0]).toMatchObject({ reason: 'protocol', error: { name: 'DeviceError', code: 'PROTOCOL' } })
      await bad.hungUp()
      await (await frontEnd()).start()
      expect(device.state).toBe('running')
    })

    test('messages in single bytes are messages all the same', async () => {
      const device = await deviceAt()
      const vmm = await frontEnd()
      for (const byte of Buffer.from('020000000100000008000000' + '0000007001000000', 'hex')) {
        vmm.sendBytes(Uint8Array.of(byte))
        await turn()
      }
      await vmm.sync()
      expect(device.state).toBe('attached')
    })

    test('a kick that was there before SET_VRING_KICK is not missed', async () => {
      const device = await deviceAt()
      const vmm = await frontEnd()
      vmm.guest.supply(4)
      vmm.guest.send({ op: Op.RW, sourcePort: 1, destinationPort: 2 })
      await vmm.start()
      expect((await heard(vmm)).map(opName)).toEqual(['RST'])
      expect(device.state).toBe('running')
    })

    test('nine descriptors beside one message are more than any has', async () => {
      const device = await deviceAt()
      const vmm = await frontEnd()
      const before = await openDescriptors()
      const stopped = once(device, 'stopped')
      vmm.send({ request: 'SET_OWNER' }, { descriptors: Array.from({ length: 9 }, () => vmm.memory.descriptor) })
      expect((await stopped)[0]).toMatchObject({ reason: 'protocol', error: { message: expect.stringMatching(/EMSGSIZE/) } })
      expect(await openDescriptors()).toBeLessThanOrEqual(before)
    })

    test('descriptors without end beside one message end the conversation, and are closed', async () => {
      const device = await deviceAt()
      const vmm = await frontEnd()
      const before = await openDescriptors()
      const stopped = once(device, 'stopped')
      const message = Buffer.from('020000000100000008000000' + '0000007001000000', 'hex')
      const eight = Array.from({ length: 8 }, () => vmm.memory.descriptor)
      for (const byte of message.subarray(0, -1)) vmm.sendBytes(Uint8Array.of(byte), eight)
      expect((await stopped)[0]).toMatchObject({
        reason: 'protocol',
        error: { code: 'PROTOCOL', message: expect.stringMatching(/descriptors/) },
      })
      expect(await openDescriptors()).toBeLessThanOrEqual(before)
    })

    test.each<[string, string, (vmm: FakeFrontEnd, descriptor: Descriptor) => void]>([
      [
        'kick',
        'SET_VRING_KICK',
        (vmm, descriptor) => vmm.send({ request: 'SET_VRING_KICK', ring: 1, descriptor: true }, { descriptors: [descriptor] }),
      ],
      [
        'call',
        'SET_VRING_CALL',
        (vmm, descriptor) => vmm.send({ request: 'SET_VRING_CALL', ring: 0, descriptor: true }, { descriptors: [descriptor] }),
      ],
    ])('a %s descriptor that is not an eventfd ends the conversation, and nothing else', async (_, request, spoil) => {
      const target = join(folder, 'other.sock')
      const server = createServer((socket) => socket.destroy())
      await new Promise<void>((resolve) => server.listen(target, resolve))
      cleanups.push(() => new Promise((resolve) => server.close(resolve)))
      const { device, vmm } = await running()
      const hungUp = binding!.connect(unixAddress(binding!, target))
      cleanups.push(() => binding!.close(hungUp))
      await once(server, 'connection')
      const stopped = once(device, 'stopped')
      spoil(vmm, hungUp)
      const [info] = await stopped
      expect(info).toMatchObject({ reason: 'protocol', error: { code: 'PROTOCOL', message: new RegExp(request) } })
      await (await frontEnd()).start()
      expect(device.state).toBe('running')
    })

    test('a listener that throws does not end the conversation with the VMM', async () => {
      const device = await deviceAt()
      device.on('running', () => {
        throw new Error('listener')
      })
      const uncaught = process.rawListeners('uncaughtException')
      process.removeAllListeners('uncaughtException')
      const thrown = once(process, 'uncaughtException')
      try {
        const vmm = await frontEnd()
        await vmm.start()
        expect((await thrown)[0]).toMatchObject({ message: 'listener' })
        expect(device.state).toBe('running')
      } finally {
        for (const listener of uncaught) process.on('uncaughtException', listener as () => void)
      }
    })

    test('a memory file that is too short is refused, not touched', async () => {
      const device = await deviceAt()
      const vmm = await frontEnd()
      const short = binding!.memfd(4096)
      const stopped = once(device, 'stopped')
      const regions = [{ guestAddress: 0, userAddress: 0x1000, size: 8192, fileOffset: 0 }]
      vmm.send({ request: 'SET_MEM_TABLE', regions }, { descriptors: [short] })
      expect((await stopped)[0]).toMatchObject({
        reason: 'protocol',
        error: { code: 'MEMORY_TABLE', message: expect.stringMatching(/EINVAL/) },
      })
      binding!.close(short)
    })
  })

  describe('connections that the guest begins', () => {
    const request = (vmm: FakeFrontEnd, port = 80) => {
      vmm.guest.send({ op: Op.REQUEST, sourcePort: 1025, destinationPort: port })
      vmm.kick(1)
    }

    test('are joined with what the handler gives', async () => {
      const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
      const target = join(folder, 'echo.sock')
      await new Promise<void>((resolve) => server.listen(target, resolve))
      cleanups.push(() => new Promise((resolve) => server.close(resolve)))
      const onConnection: ConnectionHandler = async (port) => {
        expect(port).toBe(80)
        const socket = createConnection({ path: target, allowHalfOpen: true })
        await once(socket, 'connect')
        return socket
      }
      const { device, vmm } = await running({ onConnection, clock: new ManualClock() })
      request(vmm)
      const [response] = await heard(vmm)
      expect(opName(response!)).toBe('RESPONSE')
      say(vmm, response!, Op.RW, {}, Buffer.from('echo'))
      const [echo] = await heard(vmm)
      expect(Buffer.from(echo!.payload).toString()).toBe('echo')
      say(vmm, response!, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
      expect((await heard(vmm)).at(-1)!.header.op).toBe(Op.RST)
      expect(device.connections).toBe(0)
    })

    test('can be taken as a stream', async () => {
      const { vmm } = await running({
        onConnection: (_port, { accept, guestPort, guestCid }) => {
          accept()
            .on('error', () => {})
            .end(`hello ${guestCid}:${guestPort}`)
          return undefined
        },
      })
      request(vmm)
      const packets = [...(await heard(vmm))]
      while (packets.length < 3) packets.push(...(await heard(vmm)))
      expect(packets.map(opName)).toEqual(['RESPONSE', 'RW', 'SHUTDOWN'])
      expect(Buffer.from(packets[1]!.payload).toString()).toBe('hello 42:1025')
    })

    test.each<[string, ConnectionHandler | undefined]>([
      ['no handler', undefined],
      ['undefined', () => undefined],
      [
        'a handler that throws',
        () => {
          throw new Error('no')
        },
      ],
    ])('%s refuses them', async (_, onConnection) => {
      const { device, vmm } = await running({ onConnection })
      request(vmm)
      expect((await heard(vmm)).map(opName)).toEqual(['RST'])
      expect(device.connections).toBe(0)
    })

    test('a guest that gives up aborts the signal; what the handler brings then is destroyed', async () => {
      let finish: (stream: PassThrough) => void = () => {}
      let signal: AbortSignal | undefined
      const { vmm } = await running({
        onConnection: (_port, incoming) => {
          signal = incoming.signal
          return new Promise<PassThrough>((resolve) => {
            finish = resolve
          })
        },
      })
      request(vmm)
      while (signal === undefined) await turn()
      vmm.guest.send({ op: Op.RST, sourcePort: 1025, destinationPort: 80 })
      vmm.kick(1)
      await once(signal, 'abort')
      const late = new PassThrough()
      finish(late)
      await new Promise((resolve) => late.once('close', resolve))
      expect(late.errored).toMatchObject({ code: 'ECONNRESET' })
    })
  })

  test('features that were not offered end the conversation', async () => {
    const device = await deviceAt()
    const vmm = await frontEnd()
    vmm.send({ request: 'SET_FEATURES', features: DEVICE_FEATURES | (1n << 26n) })
    await vmm.hungUp()
    expect(device.state).toBe('waiting')
  })
})
