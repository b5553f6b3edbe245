import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { ManualClock } from '@upcall/foundation/testing/manual-clock'
import { describe, expect, test, vi } from 'vitest'
import { setFirstNews, world } from '../testing/ends.js'
import { numbered } from '../testing/guest-sockets.js'
import { guestAt, runUntil, socketPathOf } from '../testing/network-scene.js'
import { binding, cleanups, folder, path, running } from '../testing/scene.js'
import { Op } from './machine/packet.js'
import { createVsockNetwork } from './network.js'
import type { TappedPacket } from './packet-tap.js'

const CHANNEL = 'upcall:vhost-user:packet'

/** What is published from now on, until the test ends or `stop` is called. */
function tap() {
  const packets: TappedPacket[] = []
  const listener = (message: unknown) => void packets.push(message as TappedPacket)
  const stop = () => void unsubscribe(CHANNEL, listener)
  subscribe(CHANNEL, listener)
  cleanups.push(stop)
  return { packets, stop }
}

const opOf = ({ header }: TappedPacket) => Buffer.from(header).readUInt16LE(30)
const typeOf = ({ header }: TappedPacket) => Buffer.from(header).readUInt16LE(28)
const textOf = ({ payload }: TappedPacket) => Buffer.from(payload).toString()

describe.runIf(binding !== undefined)('the diagnostics channel upcall:vhost-user:packet', () => {
  test('publishes what passes the rings, with the device and the time', async () => {
    const { packets, stop } = tap()
    const before = performance.timeOrigin + performance.now()
    const { device, vmm } = await running({ clock: new ManualClock() })
    const connecting = device.connect(5000)
    await expect.poll(() => packets.length, { timeout: 10_000 }).toBe(1)
    const [request] = packets
    expect(request).toMatchObject({
      socketPath: path,
      guestCid: device.guestCid,
      direction: 'to-guest',
      payload: new Uint8Array(0),
    })
    expect([request!.header.length, opOf(request!)]).toEqual([44, Op.REQUEST])
    expect(request!.time).toBeGreaterThanOrEqual(before)
    expect(request!.time).toBeLessThanOrEqual(performance.timeOrigin + performance.now())
    stop()
    const hostPort = Buffer.from(request!.header).readUInt32LE(16)
    vmm.guest.send({ op: Op.RST, sourcePort: 5000, destinationPort: hostPort })
    vmm.kick(1)
    await expect(connecting).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(packets.length).toBe(1)
  })

  test('has the bytes that the kernel copies between a joined socket and the guest', async () => {
    setFirstNews(0)
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(join(folder, 'host.sock'), resolve))
    const accepted = once(server, 'connection')
    const host = createConnection({ path: join(folder, 'host.sock') })
    const [peer] = await accepted
    cleanups.push(() => new Promise((resolve) => server.close(resolve)))
    cleanups.push(() => void [peer, host].map((socket) => socket.on('error', () => {}).destroy()))
    const { packets } = tap()
    const { guest } = await world(() => host)
    const readInto = vi.spyOn(binding!, 'readInto')
    cleanups.push(() => readInto.mockRestore())
    const socket = guest.connect(80)
    await guest.until(() => socket.state === 'open')
    await guest.rest()
    let received = 0
    peer.on('data', (chunk: Buffer) => {
      received += chunk.length
    })
    socket.write(50_000)
    peer.write(numbered(50_000, 0))
    await guest.until(() => received === 50_000 && socket.received === 50_000)
    expect(readInto).toHaveBeenCalled()
    for (const direction of ['to-guest', 'from-guest'] as const) {
      const moved = packets.filter((packet) => packet.direction === direction && opOf(packet) === Op.RW)
      expect(Buffer.concat(moved.map(({ payload }) => payload))).toEqual(Buffer.from(numbered(50_000, 0)))
    }
  })

  test('shows each packet between two guests once at each ring, of streams and of messages', async () => {
    const { packets } = tap()
    const devices = [3, 4].map((guestCid) => ({ socketPath: socketPathOf(guestCid), guestCid }))
    const network = await createVsockNetwork({ devices })
    cleanups.push(() => network.close())
    const [a, b] = [await guestAt(3), await guestAt(4)]
    for (const kind of ['stream', 'seqpacket'] as const) {
      packets.length = 0
      b.kernel.listen(2000, kind, () => {})
      const socket = a.kernel.connect({ cid: 4, port: 2000 }, kind)
      await runUntil(() => socket.state === 'established', [a, b])
      socket.write(Buffer.from(`a ${kind}`))
      await runUntil(() => packets.filter((packet) => opOf(packet) === Op.RW).length === 2, [a, b])
      const shown = packets.map(
        (packet) => `${packet.socketPath === socketPathOf(3) ? 3 : 4} ${packet.direction} ${opOf(packet)}`,
      )
      expect(shown.slice(0, 4)).toEqual(['3 from-guest 1', '4 to-guest 1', '4 from-guest 2', '3 to-guest 2'])
      const [sent, arrived] = packets.filter((packet) => opOf(packet) === Op.RW)
      expect([textOf(sent!), textOf(arrived!)]).toEqual([`a ${kind}`, `a ${kind}`])
      expect(new Set(packets.map(typeOf))).toEqual(new Set([kind === 'stream' ? 1 : 2]))
    }
  })
})
