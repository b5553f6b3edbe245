import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { addonIfBuilt, openDescriptors } from '../testing/addon.js'
import { FakeFrontEnd } from '../testing/fake-front-end.js'
import { type GuestPacket, opName } from '../testing/fake-guest.js'
import type { ConnectionHandler } from './attachment.js'
import { Op, SHUTDOWN_BOTH, SHUTDOWN_SEND } from './machine/packet.js'
import { DEVICE_FEATURES } from './machine/session.js'
import { createVsockDevice, VhostUserVsock, type VhostUserVsockOptions } from './vhost-user-vsock.js'

const binding = addonIfBuilt()

let folder: string
let path: string
const cleanups: (() => unknown)[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vhost-user-'))
  path = join(folder, 'vsock.sock')
})
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  rmSync(folder, { recursive: true })
})

async function deviceAt(options: Partial<VhostUserVsockOptions> = {}): Promise<VhostUserVsock> {
  const device = await createVsockDevice({ socketPath: path, guestCid: 42, ...options })
  cleanups.push(() => device.close())
  return device
}

async function frontEnd(): Promise<FakeFrontEnd> {
  const vmm = new FakeFrontEnd(binding!, path)
  cleanups.push(() => vmm.close())
  await vmm.negotiate()
  return vmm
}

/** A device with a guest whose driver runs and has given it receive buffers. */
async function running(options: Partial<VhostUserVsockOptions> = {}): Promise<{ device: VhostUserVsock; vmm: FakeFrontEnd }> {
  const device = await deviceAt(options)
  const vmm = await frontEnd()
  vmm.guest.supply(60)
  await vmm.start()
  expect(device.state).toBe('running')
  return { device, vmm }
}

/** The next packets from the device, at least one. */
async function heard(vmm: FakeFrontEnd): Promise<GuestPacket[]> {
  for (;;) {
    const packets = vmm.guest.received()
    vmm.guest.tx.takeUsed()
    vmm.guest.rx.usedEvent = vmm.guest.rx.usedIndex
    if (packets.length > 0) return packets
    await turn()
  }
}

function say(vmm: FakeFrontEnd, to: GuestPacket, op: number, fields = {}, payload?: Uint8Array): void {
  const { sourcePort, destinationPort } = to.header
  vmm.guest.send({ op, sourcePort: destinationPort, destinationPort: sourcePort, ...fields }, payload)
  vmm.kick(1)
}

async function connected(device: VhostUserVsock, vmm: FakeFrontEnd, port = 5000) {
  const connecting = device.connect(port)
  const [request] = await heard(vmm)
  expect(opName(request!)).toBe('REQUEST')
  say(vmm, request!, Op.RESPONSE)
  const stream = await connecting
  // Every test's end cuts what is still open.
  stream.on('error', () => {})
  return { stream, request: request! }
}

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
      const waiting = expect(device.ready({ signal: given.signal })).rejects.toBe('enough')
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
        message: /guest 42 port 5000: the device is waiting/,
      })
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

    test('a memory file that is too short is refused, not touched', async () => {
      const device = await deviceAt()
      const vmm = await frontEnd()
      const short = binding!.memfd(4096)
      const stopped = once(device, 'stopped')
      const regions = [{ guestAddress: 0, userAddress: 0x1000, size: 8192, fileOffset: 0 }]
      vmm.send({ request: 'SET_MEM_TABLE', regions }, { descriptors: [short] })
      expect((await stopped)[0]).toMatchObject({ reason: 'protocol', error: { code: 'MEMORY_TABLE', message: /EINVAL/ } })
      binding!.close(short)
    })
  })

  describe('streams', () => {
    test('bytes both ways, and the guest is interrupted for them', async () => {
      const { device, vmm } = await running()
      const { stream, request } = await connected(device, vmm)
      expect([stream.guestPort, stream.hostPort]).toEqual([5000, 2 ** 30])
      const interrupted = vmm.interrupt(0)
      stream.write('ping')
      await interrupted
      const [packet] = await heard(vmm)
      expect(Buffer.from(packet!.payload).toString()).toBe('ping')
      say(vmm, request, Op.RW, {}, Buffer.from('pong'))
      expect(String((await once(stream, 'data'))[0])).toBe('pong')
    })

    test('nobody listens', async () => {
      const { device, vmm } = await running()
      const connecting = device.connect(5000)
      const refused = expect(connecting).rejects.toMatchObject({ code: 'ECONNREFUSED', retryable: true })
      const [request] = await heard(vmm)
      say(vmm, request!, Op.RST)
      await refused
      expect(device.connections).toBe(0)
    })

    test('a signal ends a connect, with its reason as the cause', async () => {
      const { device, vmm } = await running()
      const given = new AbortController()
      const connecting = device.connect(5000, { signal: given.signal })
      const aborted = expect(connecting).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' })
      await heard(vmm)
      given.abort('enough')
      await aborted
      expect((await heard(vmm)).map(opName)).toEqual(['RST'])
    })

    test('half-close: end() leaves the way back open', async () => {
      const { device, vmm } = await running()
      const { stream, request } = await connected(device, vmm)
      stream.end('question')
      const packets = [...(await heard(vmm))]
      while (packets.length < 2) packets.push(...(await heard(vmm)))
      expect(packets.map(opName)).toEqual(['RW', 'SHUTDOWN'])
      expect(packets[1]!.header.flags).toBe(SHUTDOWN_SEND)
      say(vmm, request, Op.RW, {}, Buffer.from('answer'))
      say(vmm, request, Op.SHUTDOWN, { flags: SHUTDOWN_BOTH })
      const chunks = await stream.toArray()
      expect(Buffer.concat(chunks).toString()).toBe('answer')
      expect((await heard(vmm)).map(opName)).toEqual(['RST'])
      expect(device.connections).toBe(0)
    })

    test('a reader that does not read holds the guest back, and gets all in the end', async () => {
      const { device, vmm } = await running({ bufferBytes: 65536 })
      const { stream, request } = await connected(device, vmm)
      const chunk = Buffer.alloc(4096, 'x')
      for (let i = 0; i < 16; i++) {
        say(vmm, request, Op.RW, {}, chunk)
        await vmm.sync()
        vmm.guest.tx.takeUsed()
      }
      expect(vmm.guest.received()).toEqual([])
      let taken = 0
      stream.on('data', (bytes: Buffer) => {
        taken += bytes.length
      })
      const packets = await heard(vmm)
      expect(packets.at(-1)!.header).toMatchObject({ op: Op.CREDIT_UPDATE, bufferAllocation: 65536 })
      expect(taken).toBe(65536)
    })

    test('what the guest sent before a reset comes before the error', async () => {
      const { device, vmm } = await running()
      const { stream, request } = await connected(device, vmm)
      say(vmm, request, Op.RW, {}, Buffer.from('last words'))
      say(vmm, request, Op.RST)
      await vmm.sync()
      const chunks: Buffer[] = []
      await expect(
        (async () => {
          for await (const chunk of stream) chunks.push(chunk)
        })(),
      ).rejects.toMatchObject({ code: 'ECONNRESET' })
      expect(Buffer.concat(chunks).toString()).toBe('last words')
    })

    test('destroy() is an orderly end, destroy(error) a reset', async () => {
      const { device, vmm } = await running()
      const one = await connected(device, vmm)
      one.stream.destroy()
      expect((await heard(vmm)).map(opName)).toEqual(['SHUTDOWN'])
      const two = await connected(device, vmm)
      two.stream.on('error', () => {}).destroy(new Error('no'))
      expect((await heard(vmm)).map(opName)).toEqual(['RST'])
    })

    test('a listener that throws does not hold up the others', async () => {
      const { device, vmm } = await running()
      const bad = await connected(device, vmm)
      const good = await connected(device, vmm)
      bad.stream.on('data', () => {
        throw new Error('listener')
      })
      const data = once(good.stream, 'data')
      const uncaught = process.rawListeners('uncaughtException')
      process.removeAllListeners('uncaughtException')
      const thrown = once(process, 'uncaughtException')
      vmm.guest.send({ op: Op.RW, sourcePort: 5000, destinationPort: bad.stream.hostPort }, Buffer.from('x'))
      say(vmm, good.request, Op.RW, {}, Buffer.from('y'))
      expect(String((await data)[0])).toBe('y')
      expect((await thrown)[0]).toMatchObject({ message: 'listener' })
      for (const listener of uncaught) process.on('uncaughtException', listener as () => void)
      expect(device.state).toBe('running')
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
      const { device, vmm } = await running({ onConnection })
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
      await once(late, 'close')
    })
  })

  describe('stop, cont, reset', () => {
    test('a paused VM keeps its connections', async () => {
      const { device, vmm } = await running()
      const { stream, request } = await connected(device, vmm)
      const stopped = once(device, 'stopped')
      const bases = await vmm.stop()
      expect((await stopped)[0]).toMatchObject({ reason: 'paused' })
      stream.write('while paused')
      await vmm.sync()
      expect(vmm.guest.received()).toEqual([])
      await vmm.start(bases)
      expect(device.state).toBe('running')
      const [packet] = await heard(vmm)
      expect(Buffer.from(packet!.payload).toString()).toBe('while paused')
      say(vmm, request, Op.RW, {}, Buffer.from('back'))
      expect(String((await once(stream, 'data'))[0])).toBe('back')
    })

    test('a guest that is reset loses them', async () => {
      const { device, vmm } = await running()
      const { stream } = await connected(device, vmm)
      const failed = once(stream, 'error')
      const reset = once(device, 'reset')
      await vmm.stop()
      vmm.guest.memoryBytes.fill(0)
      await vmm.start()
      expect((await reset)[0]).toEqual({ connections: 1 })
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      expect(device.state).toBe('running')
    })

    test('SET_MEM_TABLE and SET_VRING_CALL under running rings lose nothing', async () => {
      const { device, vmm } = await running()
      const { stream, request } = await connected(device, vmm)
      for (let i = 0; i < 20; i++) {
        await vmm.setMemory({ needReply: i % 2 === 0 })
        vmm.calls[0] = binding!.eventfd()
        vmm.send({ request: 'SET_VRING_CALL', ring: 0, descriptor: true }, { descriptors: [vmm.calls[0]] })
        await vmm.sync()
        vmm.guest.rx.usedEvent = vmm.guest.rx.usedIndex
        const interrupted = vmm.interrupt(0)
        stream.write(`${i}`)
        await interrupted
        expect(Buffer.from((await heard(vmm))[0]!.payload).toString()).toBe(`${i}`)
        say(vmm, request, Op.RW, {}, Buffer.from(`${i}`))
        expect(String((await once(stream, 'data'))[0])).toBe(`${i}`)
      }
    })
  })

  describe('a hostile guest', () => {
    test('stops its own device and no other; the VMM is told; a new driver starts it again', async () => {
      const { device, vmm } = await running()
      const { stream } = await connected(device, vmm)
      path = join(folder, 'other.sock')
      const other = await running()
      const failed = once(stream, 'error')
      const stopped = once(device, 'stopped')
      const told = vmm.interrupt(1, vmm.errors[1])
      vmm.guest.tx.setDescriptor(0, { address: 0, length: 0xffff_ffff, flags: 0, next: 0 })
      vmm.guest.tx.offer(0)
      vmm.kick(1)
      expect((await stopped)[0]).toMatchObject({ reason: 'fault', error: { code: 'OUT_OF_BOUNDS' } })
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      await told
      expect(device.fault).toMatchObject({ name: 'DeviceError' })
      await expect(device.connect(1)).rejects.toMatchObject({ code: 'ENETDOWN' })
      await connected(other.device, other.vmm)

      // Its rings are as bad as before: restart() finds that out, and nothing worse.
      device.restart()
      await vmm.sync()
      expect(device.state).toBe('faulted')

      await vmm.stop()
      vmm.guest.memoryBytes.fill(0)
      await vmm.start()
      expect([device.state, device.fault]).toEqual(['running', undefined])
    })

    test('kicks without end do not keep others from their turn', async () => {
      const { vmm } = await running()
      let turns = 0
      for (let i = 0; i < 200; i++) {
        for (let n = 0; n < 10; n++) vmm.guest.send({ op: Op.RW, sourcePort: n, destinationPort: 2 })
        vmm.kick(1)
        await turn()
        turns++
        vmm.guest.tx.takeUsed()
        vmm.guest.received()
        vmm.guest.supply(20)
      }
      expect(turns).toBe(200)
    })
  })

  describe('ends', () => {
    test('close() cuts connections, removes the socket file, and is twice once', async () => {
      const { device, vmm } = await running()
      const { stream } = await connected(device, vmm)
      const failed = once(stream, 'error')
      await Promise.all([device.close(), device.close()])
      expect((await failed)[0]).toMatchObject({ code: 'ECONNRESET' })
      expect([device.state, existsSync(path)]).toEqual(['closed', false])
      await vmm.hungUp()
      await expect(device.listen()).rejects.toMatchObject({ code: 'ABORTED' })
    })

    test('nothing is left behind', async () => {
      const turnOver = async () => {
        const { device, vmm } = await running()
        await connected(device, vmm)
        await vmm.setMemory()
        for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
        await device.close()
      }
      await turnOver()
      const before = await openDescriptors()
      for (let i = 0; i < 20; i++) await turnOver()
      expect(await openDescriptors()).toBe(before)
    })

    test('a path in use is refused, a dead process’s is taken over, something else is left alone', async () => {
      await deviceAt()
      await expect(createVsockDevice({ socketPath: path, guestCid: 3 })).rejects.toMatchObject({ code: 'EADDRINUSE' })
      const dead = join(folder, 'dead.sock')
      const descriptor = binding!.socket(binding!.AF_UNIX)
      binding!.bind(descriptor, Buffer.concat([Buffer.from([1, 0]), Buffer.from(`${dead}\0`)]))
      binding!.close(descriptor)
      const taken = await createVsockDevice({ socketPath: dead, guestCid: 3 })
      await taken.close()
      const file = join(folder, 'file')
      writeFileSync(file, '')
      await expect(createVsockDevice({ socketPath: file, guestCid: 3 })).rejects.toMatchObject({ code: 'EADDRINUSE' })
    })

    test('bad options are refused', () => {
      const good = { socketPath: path, guestCid: 3 }
      for (const bad of [
        { guestCid: 2 },
        { guestCid: 2 ** 32 - 1 },
        { maxConnections: 1024 },
        { bufferBytes: 1 },
        { lingerMs: 0 },
      ]) {
        expect(() => new VhostUserVsock({ ...good, ...bad })).toThrow(RangeError)
      }
    })

    test('a path that is too long says so, in bytes', async () => {
      await expect(createVsockDevice({ socketPath: `/${'ü'.repeat(60)}`, guestCid: 3 })).rejects.toThrow(/121 bytes; 1 to 107/)
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
