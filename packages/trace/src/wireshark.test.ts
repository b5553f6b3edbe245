// The dissector that ships with this package, run by Debian's tshark.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { encodeConnect, encodeReply, encodeRequest } from '@upcall/wire'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { encodeVsockPacket, PcapWriter, type VsockOp } from './index.js'

const LUA = fileURLToPath(new URL('../wireshark/upcall.lua', import.meta.url))
const DEADLINE_MS = 60_000

const found = spawnSync('tshark', ['--version']).error === undefined
// In CI it has to be there.
const tshark = test.skipIf(!found && process.env.CI === undefined)
if (!found) console.log('the tests of the dissector need tshark: apt-get install tshark')

type Packet = [way: '>' | '<', bytes: Uint8Array, op?: VsockOp]

/** A capture: a packet each millisecond. */
function captureOf(packets: readonly Packet[], guestPort = 219): Buffer {
  const [host, guest] = [
    { cid: 2n, port: 1024 },
    { cid: 3n, port: guestPort },
  ]
  const writer = new PcapWriter()
  const records = packets.map(([way, payload, op = 'payload'], at) => {
    const [source, destination] = way === '>' ? [host, guest] : [guest, host]
    return writer.packet(1_000_000 + at, encodeVsockPacket({ source, destination, op, payload }))
  })
  return Buffer.concat([writer.header(), ...records])
}

function run(program: string, argv: string[]): string {
  const { stdout, stderr, status } = spawnSync(program, argv, { encoding: 'utf8', timeout: DEADLINE_MS })
  expect({ program, status, stderr: status === 0 ? '' : stderr }).toEqual({ program, status: 0, stderr: '' })
  // What Lua cannot do is said on stderr, and in the tree.
  expect(stderr + stdout).not.toMatch(/Lua Error|lua_script|Lua:/i)
  return stdout
}

function fileOf(capture: Buffer): string {
  const folder = mkdtempSync(join(tmpdir(), 'wireshark-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'a.pcap')
  writeFileSync(path, capture)
  return path
}

/** The Info column of each packet. */
function infos(capture: Buffer, ...more: string[]): string[] {
  const argv = ['-X', `lua_script:${LUA}`, ...more, '-r', fileOf(capture), '-T', 'fields', '-e', '_ws.col.Info']
  return run('tshark', argv).trimEnd().split('\n')
}

function fields(capture: Buffer, ...names: string[]): string[] {
  const argv = ['-2', '-X', `lua_script:${LUA}`, '-r', fileOf(capture), '-Y', 'upcall', '-T', 'fields', '-E', 'separator=/s']
  return run('tshark', [...argv, ...names.flatMap((name) => ['-e', name])])
    .trimEnd()
    .split('\n')
}

const none = new Uint8Array(0)
const service = Uint8Array.of(0x64)
const addMmio = encodeRequest({ type: 'ADD_MMIO', base: 0xd000_0000n, size: 0x1000n, irq: 5 }, 'x86_64')
const addPci = encodeRequest({ type: 'ADD_PCI', bus: 0, devfn: 0x29 }, 'x86_64')
const addCpus = encodeRequest({ type: 'ADD_CPU', apicIds: [1, 2] }, 'x86_64')
const addCount = encodeRequest({ type: 'ADD_CPU', count: 2 }, 'aarch64')
const session: Packet[] = [
  ['>', none, 'connect'],
  ['<', none, 'connect'],
  ['>', service],
  ['<', encodeConnect()],
  ['>', addMmio],
  ['<', encodeReply({ type: 'ADD_MMIO', result: -17 }, 'x86_64')],
  ['>', addPci],
  ['<', encodeReply({ type: 'ADD_PCI', result: 0 }, 'x86_64')],
  ['>', addCpus],
  ['<', encodeReply({ type: 'ADD_CPU', result: 0, apicIdIndex: 2 }, 'x86_64')],
  ['>', addCount],
  ['<', encodeReply({ type: 'ADD_CPU', result: 0, cpuId: 4 }, 'aarch64')],
  ['>', none, 'disconnect'],
]
const words = [
  '→ service byte',
  '← CONNECT 0',
  '→ ADD_MMIO 0xd0000000+0x1000 irq 5',
  '← ADD_MMIO -17 EEXIST',
  '→ ADD_PCI 00:05.1',
  '← ADD_PCI 0',
  '→ ADD_CPU 2 vCPUs',
  '← ADD_CPU 0',
  '→ ADD_CPU 2 vCPUs',
  '← ADD_CPU 0',
]

tshark('each message of a session, in one pass and in two', () => {
  for (const passes of [[], ['-2']]) expect(infos(captureOf(session), ...passes).slice(2, 12)).toEqual(words)
})

tshark('the fields, for filters, and which reply belongs to which request', () => {
  const capture = captureOf(session)
  expect(fields(capture, 'frame.number', 'upcall.request_in', 'upcall.reply_in', 'upcall.errno')).toEqual([
    '3   ',
    '4   ',
    '5  6 ',
    '6 5  EEXIST',
    '7  8 ',
    '8 7  ',
    '9  10 ',
    '10 9  ',
    '11  12 ',
    '12 11',
  ])
  const loads = [
    'upcall.mmio.base',
    'upcall.mmio.size',
    'upcall.mmio.irq',
    'upcall.pci.devfn',
    'upcall.cpu.apic_id',
    'upcall.cpu.index',
  ]
  expect(fields(capture, ...loads).map((line) => line.trim())).toEqual([
    '',
    '',
    '0x00000000d0000000 0x0000000000001000 5',
    '',
    '0x29',
    '',
    '1,2',
    '2',
    '',
    '4',
  ])
  expect(Number(fields(capture, 'upcall.time')[3])).toBeCloseTo(0.001, 5)
})

tshark('messages in pieces, and several in one packet', () => {
  const all = Buffer.concat([service, addMmio, addPci])
  const pieces: Packet[] = [0, 1, 500, 1025, 1026, 2049].map((from, at, cuts) => ['>', all.subarray(from, cuts[at + 1])])
  const capture = captureOf([...session.slice(0, 2), ...pieces])
  expect(infos(capture).slice(2)).toEqual([
    '→ service byte',
    '→ 499 bytes of a message',
    '→ ADD_MMIO 0xd0000000+0x1000 irq 5',
    '→ 1 bytes of a message',
    '→ ADD_PCI 00:05.1',
    '[Payload] No info',
  ])
  expect(infos(captureOf([...session.slice(0, 2), ['>', all]]))[2]).toBe(
    '→ service byte; ADD_MMIO 0xd0000000+0x1000 irq 5; ADD_PCI 00:05.1',
  )
})

tshark('the lines of a hybrid handshake, also in pieces', () => {
  const line = (text: string) => Buffer.from(text)
  const capture = captureOf([
    ['>', line('CONN')],
    ['>', line('ECT 219\n')],
    ['<', line('O')],
    ['<', line('K 1024\n')],
    ['>', service],
    ['<', encodeConnect()],
    ['>', addPci],
  ])
  expect(infos(capture)).toEqual([
    '→ 4 bytes of a line',
    '→ CONNECT 219',
    '← 1 bytes of a line',
    '← OK 1024',
    '→ service byte',
    '← CONNECT 0',
    '→ ADD_PCI 00:05.1',
  ])
})

tshark('a service byte that a line could begin with is one as soon as it cannot be a line', () => {
  const capture = captureOf([
    ['>', Buffer.from('C')],
    ['>', addPci],
  ])
  expect(infos(capture)).toEqual(['→ 1 bytes of a line', '→ service byte; ADD_PCI 00:05.1'])
})

tshark('what is wrong is marked', () => {
  const wrong = (at: number, byte: number) => {
    const bytes = Uint8Array.from(addMmio)
    bytes[at] = byte
    return bytes
  }
  const capture = captureOf([...session.slice(0, 4), ['>', wrong(2, 0x4e)], ['>', wrong(4, 23)], ['>', wrong(12, 1)]])
  const marks = ['upcall.wrong_magic', 'upcall.wrong_size', 'upcall.wrong_flags']
  for (const [at, mark] of marks.entries()) {
    const argv = ['-2', '-X', `lua_script:${LUA}`, '-r', fileOf(capture), '-Y', mark, '-T', 'fields', '-e', 'frame.number']
    expect(run('tshark', argv).trim(), mark).toBe(String(5 + at))
  }
})

tshark('another port is left alone, unless it is the preference', () => {
  const capture = captureOf(session, 1000)
  expect(infos(capture)[4]).not.toContain('ADD_MMIO')
  expect(infos(capture, '-o', 'upcall.port:1000')[4]).toBe(words[2])
})

tshark('bytes of any kind never break it', () => {
  const chunk = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 1100 }),
    fc.uint8Array({ minLength: 12, maxLength: 1020 }).map((bytes) => Buffer.concat([Buffer.from([0, 1, 0x4d, 0x44]), bytes])),
    fc.constantFrom(addMmio, addCpus, service, Buffer.from('CONNECT 219\n'), Buffer.from('OK 1'), Buffer.from([0])),
  )
  const packets = fc.array(fc.tuple(fc.constantFrom<'>' | '<'>('>', '<'), chunk), { minLength: 300, maxLength: 300 })
  for (const sample of fc.sample(packets, { seed: 13, numRuns: 2 }))
    expect(run('tshark', ['-2', '-V', '-X', `lua_script:${LUA}`, '-r', fileOf(captureOf(sample))])).toContain(
      'Bytes that a later packet completes',
    )
})

tshark("Wireshark's own tools read the file, and what they rewrite", () => {
  const path = fileOf(captureOf(session))
  expect(run('capinfos', ['-c', '-E', path])).toMatch(/vsock[\s\S]*\b13\b/i)
  run('editcap', ['-F', 'pcapng', path, `${path}ng`])
  const argv = ['-X', `lua_script:${LUA}`, '-r', `${path}ng`, '-T', 'fields', '-e', '_ws.col.Info']
  expect(run('tshark', argv).trimEnd().split('\n').slice(2, 12)).toEqual(words)
})
