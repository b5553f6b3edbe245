import { channel } from 'node:diagnostics_channel'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { captureDevices } from './devices.js'
import { readCapture } from './read.js'
import { decodeVsockPacket } from './vsock-packet.js'

const packets = channel('upcall:vhost-user:packet')

function header(op: number): Uint8Array {
  const bytes = new Uint8Array(44)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, 3n, true)
  view.setBigUint64(8, 2n, true)
  view.setUint32(16, 1024, true)
  view.setUint32(20, 219, true)
  view.setUint16(28, 1, true)
  view.setUint16(30, op, true)
  return bytes
}

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
    packets.publish({ socketPath: '/a', time: 1000.5, header: header(op), payload: Buffer.from(`op ${op}`) })
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
    packets.publish({ socketPath, time: 0, header: header(5), payload: Buffer.from(socketPath) })
  await capture.close()
  expect(await read(path)).toEqual(['3:1024 > 2:219 payload 44 /b'])
})

test('a file that cannot be made is said before anything is captured', async () => {
  await expect(captureDevices('/nowhere/a.pcap')).rejects.toMatchObject({ code: 'OUTPUT' })
  expect(packets.hasSubscribers).toBe(false)
})
