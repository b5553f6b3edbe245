// What --verbose names after an error: an entry of docs/errors.md that exists, and says most.

import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { serveGuest, start, upcall } from '../testing/harness.js'

const page = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8')
const anchors = new Set([...page.matchAll(/^#+ (.*)$/gm)].map(([, title]) => title!.toLowerCase()))

let folder: string
/** It closes each connection at once, so its clients see no greeting. */
let rude: Server
let guest: Awaited<ReturnType<typeof serveGuest>>
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'upcall-verbose-'))
  guest = await serveGuest('unix')
  rude = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve) => rude.listen(at('rude'), resolve))
  await writeFile(at('file'), 'no capture and no YAML: [')
})
afterAll(async () => {
  await guest[Symbol.asyncDispose]()
  await new Promise((resolve) => rude.close(resolve))
  await rm(folder, { recursive: true })
})

const at = (name: string) => join(folder, name)

/** What is typed, as words; `%` is a path in the folder, `@` the guest. */
const wrong: [typed: string, anchor: string, stdin?: string][] = [
  ['cpu add --nothing', 'usage'],
  ['cpu ad 1', 'usage'],
  ['--target hvsok:///x status', 'err_invalid_address'],
  ['--target nonsense status', 'err_invalid_address'],
  ['status', 'usage'],
  ['--target vsock://any:219 status', 'usage'],
  ['serve --listen nonsense', 'err_invalid_address'],
  ['serve --listen unix:%rude', 'eaddrinuse'],
  ['serve --listen unix:%g --pci nonsense', 'argument'],
  ['vsock listen nonsense', 'err_invalid_address'],
  ['vsock listen unix:%rude', 'eaddrinuse'],
  ['vsock connect hvsok:///x:1', 'err_invalid_address'],
  ['vsock connect unix:%none', 'econnrefused'],
  ['vsock connect unix:%none --retry --timeout 20ms', 'econnrefused'],
  ['vsock connect tcp:127.0.0.1:1', 'econnrefused'],
  ['vsock forward nonsense unix:%none', 'err_invalid_address'],
  ['vsock forward unix:%rude unix:%none', 'eaddrinuse'],
  ['vsock forward unix:%f nonsense', 'err_invalid_address'],
  ['vsock pass nonsense', 'err_invalid_address'],
  ['vsock notify nonsense', 'err_invalid_address'],
  ['vsock listen systemd', 'usage'],
  ['vsock connect unix:%rude --exec %no-such-program', 'errors'],
  ['vsock device --guest-cid 3', 'usage'],
  ['vsock device --config %none', 'usage'],
  ['vsock device --config %file', 'usage'],
  ['vsock device --guest-cid 3 --socket %s --uds-path %u --metrics nonsense', 'argument'],
  ['vsock device --guest-cid 3 --socket %s --uds-path %u --pcap %none/p', 'output'],
  ['trace --listen nonsense --target unix:%none', 'err_invalid_address'],
  ['trace --listen unix:%rude --target unix:%none', 'eaddrinuse'],
  ['trace --listen unix:%t --target unix:%none --pcap %none/p', 'output'],
  ['decode %none', 'usage'],
  ['decode --format pcap', 'capture', 'no capture'],
  ['explain NOTHING', 'usage'],
  ['--arch x86_64 --target unix:%none cpu add 1', 'econnrefused'],
  ['--arch x86_64 --target unix:%none wait --timeout 20ms', 'econnrefused'],
  ['--arch x86_64 --target unix:%rude cpu add 1', 'disconnected'],
  ['--arch x86_64 --target @ pci remove nonsense', 'argument'],
  ['--arch x86_64 --target @ pci remove 00:09.0', 'guest_error'],
  ['--arch x86_64 --target @ batch', 'argument', 'nonsense\n'],
  ['--arch x86_64 --target @ batch', 'argument', '{"op":"pci.remove","bdf":"nonsense"}\n'],
]

const words = (typed: string) => typed.split(' ').map((word) => word.replace('%', `${folder}/`).replace('@', guest.target))

test.each(wrong)('%s: %s', async (typed, anchor, input) => {
  expect(anchors).toContain(anchor)
  const stdin = () => Readable.from(input === undefined ? [] : [Buffer.from(input)])
  const said = await upcall(['-v', ...words(typed)], { stdin: stdin() })
  const text = `${said.stdout.text}${said.stderr.text}`
  expect(text).toMatch(new RegExp(`errors\\.md#${anchor}["\\n,]`))
  const json = await upcall(['-v', '--json', ...words(typed)], { stdin: stdin() })
  const lines = [...json.stdout.lines, ...json.stderr.lines].map((line) => JSON.parse(line))
  expect(lines.map(({ error }) => error?.docs).filter(Boolean)).toEqual([`errors.md#${anchor}`])
  expect(json.status).toBe(said.status)
})

test('an interruption names the interruption', async () => {
  const running = start(['-v', 'vsock', 'listen', `unix:${at('l')}`, '--timeout', '1m'])
  await running.stderr.has('listening')
  running.interrupt()
  expect(await running.status).toBe(130)
  const waiting = start(['-v', '--target', `unix:${at('none')}`, 'wait', '--timeout', '1m'], { terminal: true })
  await waiting.stderr.has('wait')
  waiting.interrupt()
  await waiting.status
  expect(waiting.stderr.text).toContain('errors.md#interrupted, or run: upcall explain INTERRUPTED')
})

test('without --verbose nothing is named', async () => {
  const { stderr } = await upcall(['serve', '--listen', 'nonsense'])
  expect(stderr.text).not.toContain('errors.md')
})
