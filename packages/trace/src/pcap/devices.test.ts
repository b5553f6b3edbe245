import { channel } from 'node:diagnostics_channel'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { captureDevices } from './devices.js'
import { readCapture } from './read.js'
import { RingPackets } from './ring-packets.js'
import { decodeVsockPacket } from './vsock-packet.js'

const packets = channel('upcall:vhost-user:packet')

function header(op: number, source = 3n, destination = 2n): Uint8Array {
  const bytes = new Uint8Array(44)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, source, true)
  view.setBigUint64(8, destination, true)
  view.setUint32(16, 1024, true)
  view.setUint32(20, 219, true)
  view.setUint16(28, 1, true)
  view.setUint16(30, op, true)
  return bytes
}

const A = { socketPath: '/a', guestCid: 3 }
const B = { socketPath: '/b', guestCid: 4 }

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'devices-'))
  onTestFinished(() => rmSync(path, { recursive: true }))
  return path
}

async function read(path: string): Promise<string[]> {
  const found: string[] = []
  const input = async function* () {
    yield readFileSync(path)
  }
  for await (const { bytes } of readCapture(input())) {
    const { source, destination, op, virtio, payload } = decodeVsockPacket(bytes)
    const ends = `${source.cid}:${source.port} > ${destination.cid}:${destination.port}`
    found.push(`${ends} ${op} ${virtio?.length} ${Buffer.from(payload)}`)
  }
  return found
}

test('each operation of virtio is one of vsockmon, with its header and payload', async () => {
  const path = join(folder(), 'a.pcap')
  const capture = await captureDevices(path)
  for (const op of [1, 2, 3, 4, 5, 6, 7, 99])
    packets.publish({ ...A, time: 1000.5, direction: 'from-guest', header: header(op), payload: Buffer.from(`op ${op}`) })
  expect(capture.packets).toBe(8)
  await capture.close()
  expect(packets.hasSubscribers).toBe(false)
  const ends = '3:1024 > 2:219'
  expect(await read(path)).toEqual(
    ['connect', 'connect', 'disconnect', 'disconnect', 'payload', 'control', 'control', 'control'].map(
      (op, at) => `${ends} ${op} 44 op ${[1, 2, 3, 4, 5, 6, 7, 99][at]}`,
    ),
  )
})

test('only the devices that were named', async () => {
  const path = join(folder(), 'a.pcap')
  await using capture = await captureDevices(path, { socketPaths: ['/b'] })
  for (const socketPath of ['/a', '/b'])
    packets.publish({ ...A, socketPath, time: 0, direction: 'from-guest', header: header(5), payload: Buffer.from(socketPath) })
  await capture.close()
  expect(await read(path)).toEqual(['3:1024 > 2:219 payload 44 /b'])
})

/** What passes the rings when one guest connects to another, writes to it and is refused by the switch. */
function betweenGuests(): void {
  const send = (device: object, direction: string, op: number, source: bigint, destination: bigint, text = '') =>
    packets.publish({ ...device, time: 0, direction, header: header(op, source, destination), payload: Buffer.from(text) })
  for (const [op, text] of [
    [1, ''],
    [5, 'bytes'],
    [6, ''],
    [3, ''],
  ] as const) {
    send(A, 'from-guest', op, 3n, 4n, text)
    send(B, 'to-guest', op, 3n, 4n, text)
  }
  // The switch resets in the name of a guest that has sent no reset.
  send(A, 'to-guest', 3, 4n, 3n)
  // The host is not a guest.
  send(A, 'to-guest', 5, 2n, 3n, 'of the host')
}

test('a packet between two guests is captured once, as its sender had it', async () => {
  const path = join(folder(), 'a.pcap')
  await using capture = await captureDevices(path)
  betweenGuests()
  await capture.close()
  expect(await read(path)).toEqual([
    '3:1024 > 4:219 connect 44 ',
    '3:1024 > 4:219 payload 44 bytes',
    '3:1024 > 4:219 control 44 ',
    '3:1024 > 4:219 disconnect 44 ',
    '4:1024 > 3:219 disconnect 44 ',
    '2:1024 > 3:219 payload 44 of the host',
  ])
})

test('what comes to the one guest that is captured is all there', async () => {
  const path = join(folder(), 'a.pcap')
  await using capture = await captureDevices(path, { socketPaths: ['/b'] })
  betweenGuests()
  await capture.close()
  expect(await read(path)).toEqual([
    '3:1024 > 4:219 connect 44 ',
    '3:1024 > 4:219 payload 44 bytes',
    '3:1024 > 4:219 control 44 ',
    '3:1024 > 4:219 disconnect 44 ',
  ])
})

const ringPacket = (port: number, direction: 'from-guest' | 'to-guest', op: number) => ({
  ...{ guestCid: direction === 'from-guest' ? 3 : 4, direction, op },
  ...{ source: { cid: 3n, port }, destination: { cid: 4n, port: 219 } },
})

test('flows that never end fill no memory', () => {
  const rings = new RingPackets()
  for (let port = 0; port < 20_000; port++) expect(rings.isNew(ringPacket(port, 'from-guest', 3))).toBe(true)
  expect([0, 19_999].map((port) => rings.isNew(ringPacket(port, 'to-guest', 3)))).toEqual([true, false])
})

test('a guest whose device was captured once, and that is elsewhere now, is heard at the other', () => {
  const rings = new RingPackets()
  const isNew = (port: number, direction: 'from-guest' | 'to-guest', op: number) => rings.isNew(ringPacket(port, direction, op))
  expect([isNew(1024, 'from-guest', 5), isNew(1024, 'to-guest', 5)]).toEqual([true, false])
  // Its device has gone, and another process has it.
  expect([isNew(1025, 'to-guest', 1), isNew(1025, 'to-guest', 5)]).toEqual([true, true])
})

test('a file that cannot be made is said before anything is captured', async () => {
  await expect(captureDevices('/nowhere/a.pcap')).rejects.toMatchObject({ code: 'OUTPUT' })
  expect(packets.hasSubscribers).toBe(false)
})
