import { channel } from 'node:diagnostics_channel'
import { createReadStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { UpcallClient } from '@upcall/client'
import { decodeVsockPacket, readCapture } from '@upcall/trace'
import { encodeConnect, encodeRequest } from '@upcall/wire'
import { expect, onTestFinished, test } from 'vitest'
import { stderrLog } from '../log.js'
import { captureTo } from './capture.js'

test("a simulated guest's connections are captured, and each begins and ends once", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'capture-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'a.pcap')
  const client = {} as UpcallClient<never, unknown>
  const tell = (message: object) => channel('upcall:client').publish({ client, remote: 'guest', ...message })
  const request = encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0x29 }, 'x86_64')
  {
    await using capture = await captureTo(path, false, stderrLog('silent'))
    capture.follow(client)
    for (const conn of [1, 2]) {
      tell({ effect: { type: 'write', conn, bytes: Uint8Array.of(0x64) } })
      tell({ event: { type: 'bytes', conn, chunk: encodeConnect() } })
      tell({ effect: { type: 'write', conn, bytes: request } })
      tell({ event: { type: 'ended', conn } })
    }
  }
  const seen: string[] = []
  for await (const { bytes } of readCapture(createReadStream(path))) {
    const { source, destination, op, payload } = decodeVsockPacket(bytes)
    const port = source.cid === 2n ? source.port : destination.port
    seen.push(`${port - 2 ** 30} ${source.cid === 2n ? '>' : '<'} ${op} ${payload.length}`)
  }
  const each = [
    '> connect 0',
    '< connect 0',
    '> payload 1',
    '< payload 1024',
    '> payload 1024',
    '< disconnect 0',
    '> disconnect 0',
  ]
  expect(seen).toEqual([1, 2].flatMap((conn) => each.map((line) => `${conn} ${line}`)))
})
