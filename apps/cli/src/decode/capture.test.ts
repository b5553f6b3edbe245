import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { encodeVsockPacket, PcapWriter, type VsockPacket } from '@upcall/trace'
import { encodeConnect, encodeReply, encodeRequest } from '@upcall/wire'
import { expect, onTestFinished, test } from 'vitest'
import { serveGuest, start, upcall } from '../../testing/harness.js'

const TIME = 1_700_000_000_000
const noEditcap = spawnSync('editcap', ['--version']).error !== undefined
if (noEditcap) console.log('the test of pcapng needs editcap: apt-get install wireshark-common')

const host = { cid: 2n, port: 1024 }
const guest = { cid: 3n, port: 219 }
const request = encodeRequest({ type: 'DEL_PCI', bus: 0, devfn: 0x28 }, 'x86_64')
const reply = encodeReply({ type: 'DEL_PCI', result: -19 }, 'x86_64')

type Step = readonly [way: '>' | '<', payload: Uint8Array, about?: Partial<VsockPacket>]

function packetsOf(steps: readonly Step[], to = guest): Uint8Array[] {
  return steps.map(([way, payload, about]) => {
    const [source, destination] = way === '>' ? [host, to] : [to, host]
    return encodeVsockPacket({ source, destination, op: 'payload', payload, ...about })
  })
}

/** A packet each 2 ms. */
function captureOf(packets: readonly Uint8Array[], snapLength?: number): Buffer {
  const writer = new PcapWriter({ snapLength })
  return Buffer.concat([writer.header(), ...packets.map((packet, i) => writer.packet(TIME + 2 * i, packet))])
}

async function decode(capture: Buffer, args: readonly string[] = []) {
  const { status, stdout, stderr } = await upcall(['--json', 'decode', ...args], { stdin: Readable.from([capture]) })
  return { status, events: stdout.json, stderr: stderr.text }
}

const none = new Uint8Array(0)
const opening: Step[] = [
  ['>', none, { op: 'connect' }],
  ['<', none, { op: 'connect' }],
]
const talk: Step[] = [
  ['>', Uint8Array.of(0x64)],
  ['<', encodeConnect()],
  ['>', request],
  ['<', reply],
]
const kinds = (events: { event: string }[]) => events.map(({ event }) => event).filter((event) => event !== 'state')

async function traced(): Promise<{ pcap: string; titles: string[] }> {
  await using simulated = await serveGuest('hvsock')
  const folder = mkdtempSync(join(tmpdir(), 'decode-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const pcap = join(folder, 'a.pcap')
  const listen = `hvsock://${simulated.path}t`
  const tracing = start(['--json', '--target', simulated.target, 'trace', '--listen', listen, '--pcap', pcap])
  await tracing.stdout.has('"listening"')
  expect((await upcall(['--target', listen, 'pci', 'remove', '00:1f.0'])).status).toBe(1)
  await tracing.stdout.has('"disconnect"')
  tracing.interrupt()
  await tracing.status
  return { pcap, titles: titlesOf(tracing.stdout.json) }
}

function titlesOf(events: { event: string; title: string }[]): string[] {
  return events.filter(({ event }) => event === 'message').map(({ title }) => title)
}

test('decode: a capture of upcall trace tells what trace told', async () => {
  const { pcap, titles } = await traced()
  expect(titles).toContain('DEL_PCI  -19 ENODEV')
  const { status, stdout } = await upcall(['--json', 'decode', pcap])
  expect([status, titlesOf(stdout.json)]).toEqual([0, titles])
  expect(stdout.json.filter(({ connection }) => connection !== 1)).toEqual([])
  expect((await upcall(['decode', '--format', 'pcap', pcap])).stdout.text).toMatch(/#1 ← DEL_PCI {2}-19 ENODEV \(\d+\.\d\d ms\)/)
})

test.skipIf(noEditcap && process.env.CI === undefined)('decode: the same capture as pcapng tells the same', async () => {
  const { pcap } = await traced()
  const { status, stderr } = spawnSync('editcap', ['-F', 'pcapng', pcap, `${pcap}ng`], { encoding: 'utf8', timeout: 60_000 })
  expect([status, stderr]).toEqual([0, ''])
  expect(readFileSync(`${pcap}ng`).subarray(0, 4).toString('hex')).toBe('0a0d0d0a')
  const [one, other] = [await upcall(['--json', 'decode', pcap]), await upcall(['--json', 'decode', `${pcap}ng`])]
  expect(other.status).toBe(0)
  expect(other.stdout.json).toEqual(one.stdout.json)
})

test('decode: packets have their times, connections, directions and round trips', async () => {
  const { status, events } = await decode(captureOf(packetsOf([...opening, ...talk])))
  expect(status).toBe(0)
  expect(kinds(events)).toEqual(['connect', 'connect', 'service', 'message', 'message', 'message'])
  expect(events[0]).toEqual({
    ...{ time: '2023-11-14T22:13:20.000Z', event: 'connect', connection: 1, direction: 'to-guest' },
    ...{ host: '2:1024', guest: '3:219' },
  })
  expect(events.find(({ title }) => title === 'DEL_PCI  -19 ENODEV')).toMatchObject({ direction: 'to-host', rttMs: 2 })
})

test('decode: a capture that begins inside of a connection, and ends inside of a message', async () => {
  const { status, events } = await decode(captureOf(packetsOf([...talk.slice(2), ['>', request.subarray(0, 100)]])))
  expect([status, kinds(events)]).toEqual([2, ['midway', 'message', 'message', 'cut']])
  const whole = captureOf(packetsOf([...opening, ...talk]))
  const cut = await decode(whole.subarray(0, -10))
  expect([cut.status, kinds(cut.events).at(-1), cut.events.at(-1).error.what]).toEqual([
    ...[2, 'unreadable', 'the file ends after 1046 of its 1056 bytes'],
  ])
  expect(await decode(whole.subarray(0, -1072))).toMatchObject({ status: 0 })
})

test('decode: another service is data, which --port leaves out; the same ports again are another connection', async () => {
  const data: Step[] = [...opening, ['>', Buffer.from('GET / HTTP/1.1\r\n')]]
  const packets = [...packetsOf(data, { cid: 3n, port: 80 }), ...packetsOf(opening), ...packetsOf(talk), ...packetsOf(opening)]
  const { status, events } = await decode(captureOf(packets))
  expect(status).toBe(0)
  expect(events.filter(({ event }) => event === 'data').map(({ connection, hex }) => [connection, hex.slice(0, 6)])).toEqual([
    [1, '474554'],
  ])
  expect([...new Set(events.map(({ connection }) => connection))]).toEqual([1, 2, 3])
  const filtered = await decode(captureOf(packets), ['--port', '219'])
  expect(filtered.events.some(({ event }) => event === 'data')).toBe(false)
  expect(titlesOf(filtered.events)).toHaveLength(3)
})

test('decode: the header of virtio in few words, and a reset ends both directions', async () => {
  const virtio = (op: number) => {
    const bytes = new Uint8Array(44)
    const view = new DataView(bytes.buffer)
    view.setUint16(30, op, true)
    view.setUint32(36, 65536, true)
    return bytes
  }
  const steps: Step[] = [
    ...opening,
    ['<', none, { op: 'control', virtio: virtio(6) }],
    ['<', none, { op: 'disconnect', virtio: virtio(3) }],
  ]
  const capture = captureOf(packetsOf(steps))
  expect(kinds((await decode(capture)).events)).toEqual(['connect', 'connect', 'control', 'disconnect', 'end', 'end'])
  const { stdout } = await upcall(['decode'], { stdin: Readable.from([capture]) })
  expect(stdout.text).toContain('22:13:20.004 #1 ← control  CREDIT_UPDATE, credit 65536 after 0\n')
})

test('decode: packets that cannot be read are told in their place, with status 2', async () => {
  const [first, ...rest] = packetsOf([...opening, ...talk])
  const { status, events } = await decode(captureOf([first!, new Uint8Array(5), ...rest]))
  expect(status).toBe(2)
  expect(kinds(events).slice(0, 3)).toEqual(['connect', 'unreadable', 'connect'])
  expect(events.find(({ event }) => event === 'unreadable')).toMatchObject({ packet: 2, error: { code: 'PACKET' } })
  expect(titlesOf(events)).toHaveLength(3)

  const ethernet = captureOf([new Uint8Array(60)])
  ethernet.writeUInt32LE(1, 20)
  const other = await decode(ethernet)
  expect([other.status, other.events[0].error.what]).toEqual([2, 'link type 1 is not vsock, 271'])

  const snapped = await decode(captureOf(packetsOf([...opening, ...talk, ...talk.slice(2)]), 500))
  expect(snapped.status).toBe(2)
  expect(titlesOf(snapped.events)).toEqual([])
  expect(snapped.events.filter(({ event }) => event === 'unreadable')).toHaveLength(5)
})

test('decode: hostile captures', async () => {
  const good = captureOf(packetsOf([...opening, ...talk]))
  const long = Buffer.from(good)
  long.writeUInt32LE(0xffffffff, 24 + 8)
  for (const bytes of [long, Buffer.from('0a0d0d0a00000000', 'hex'), good.subarray(0, 10)]) {
    const { status, stderr, events } = await decode(bytes)
    expect([status, stderr, events.at(-1)?.error?.code]).toEqual([2, '', 'USAGE'])
  }
  // A handshake with an order to the terminal.
  const hostile = captureOf(packetsOf([...opening, ['>', Buffer.from('CONNECT 219\x1b[2J\n')]]))
  expect((await upcall(['decode'], { stdin: Readable.from([hostile]) })).stdout.text).not.toContain('\x1b')
  // More connections than are remembered: the last is still the one it was.
  const many = Array.from({ length: 5000 }, (_, i) =>
    encodeVsockPacket({ source: { cid: 2n, port: i + 1 }, destination: guest, op: 'connect', payload: none }),
  )
  const { status, events } = await decode(captureOf([...many, many[4999]!, many[0]!]))
  expect([status, events.at(-2).connection, events.at(-1).connection]).toEqual([0, 5000, 5001])
})

test('decode: options that do not fit the input', async () => {
  expect(await decode(captureOf([]), ['--direction', 'reply'])).toMatchObject({ status: 2 })
  expect(await decode(Buffer.from('64'), ['--port', '219'])).toMatchObject({ status: 2 })
  expect(await decode(captureOf([]))).toEqual({ status: 0, events: [], stderr: '' })
})
