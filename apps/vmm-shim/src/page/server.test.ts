import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { makeRig, type RigOptions, temporaryDirectory } from '../../../../packages/vmm/testing/rig.js'
import { type Log, silentLog } from '../log.js'
import type { PageEvents } from './events.js'
import { PageServer } from './server.js'

const MIB = 2 ** 20
const DISK = { path_on_host: '/srv/data.img', is_read_only: true }

/** A VM with its page, and what a browser would do. */
async function makePage(options: RigOptions & { log?: Log } = {}) {
  const rig = await makeRig(options)
  const directory = join(rig.directory, 'page')
  mkdirSync(join(directory, 'assets'), { recursive: true })
  writeFileSync(join(directory, 'index.html'), '<!doctype html><title>page</title>')
  writeFileSync(join(directory, 'assets', 'a-1.js'), 'export {}')
  const page = await PageServer.open({
    at: { host: '127.0.0.1', port: 0 },
    about: { guest: 'simulated', arch: 'x86_64', address: 'hvsock:///vm.sock:219', memory: { boot: MIB, max: MIB, block: 1 } },
    log: options.log ?? silentLog,
    directory,
  })
  page.manages(rig.manager)
  // The page follows a session from its beginning.
  await rig.machine.cut()
  await vi.waitUntil(() => rig.manager.state !== 'ServiceConnected', { interval: 1 })
  await rig.manager.ready()
  page.serves(rig.vm)
  return {
    ...rig,
    page,
    ask: (path: string, init: Ask = {}) => ask(new URL(path, page.url), init),
    change: (method: string, path: string, body?: object) =>
      ask(new URL(`api/${path}`, page.url), { method, ...(body && { body: JSON.stringify(body) }) }),
    async [Symbol.asyncDispose]() {
      await page.close()
      await rig[Symbol.asyncDispose]()
    },
  }
}

interface Ask {
  method?: string
  headers?: Record<string, string>
  body?: string
}

/** fetch sets Host and Origin by itself. */
async function ask(url: URL, { method = 'GET', headers = {}, body = '' }: Ask) {
  const sent = request(url, { method, headers, agent: false })
  sent.end(body)
  const [answer] = await once(sent, 'response')
  let text = ''
  for await (const chunk of answer.setEncoding('utf8')) text += chunk
  return { status: answer.statusCode as number, headers: answer.headers as Record<string, string>, text }
}

type Event = { [Name in keyof PageEvents]: { name: Name; data: PageEvents[Name] } }[keyof PageEvents]

/** Reads events until one fits. */
async function* eventsOf(url: string, signal: AbortSignal): AsyncGenerator<Event> {
  const { body } = await fetch(new URL('events', url), { signal })
  let text = ''
  for await (const chunk of body!.pipeThrough(new TextDecoderStream())) {
    text += chunk
    const blocks = text.split('\n\n')
    text = blocks.pop()!
    for (const block of blocks) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/.exec(block) ?? []
      if (name !== undefined) yield { name, data: JSON.parse(data!) } as Event
    }
  }
}

async function next<Name extends keyof PageEvents>(events: AsyncGenerator<Event>, name: Name): Promise<PageEvents[Name]> {
  for (;;) {
    const { value, done } = await events.next()
    if (done) throw new Error(`the events end before ${name}`)
    if (value.name === name) return value.data as PageEvents[Name]
  }
}

test('the page and its files, with a strict policy on every answer', async () => {
  await using rig = await makePage()
  const index = await rig.ask('')
  expect(index).toMatchObject({ status: 200, text: expect.stringContaining('<title>page') })
  expect(index.headers).toMatchObject({ 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' })
  const script = await rig.ask('assets/a-1.js')
  expect(script.headers).toMatchObject({
    'content-type': 'text/javascript; charset=utf-8',
    'cache-control': expect.stringContaining('immutable'),
  })
  const answers = [index, script, await rig.ask('/'), await rig.ask('nothing'), await rig.ask('/%zz'), await rig.ask('api/vm')]
  for (const { headers } of answers) {
    expect(headers['content-security-policy']).toMatch(/default-src 'none'; script-src 'self'/)
    expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' })
  }
  const bare = await rig.ask(rig.page.url.slice(0, -1))
  expect([bare.status, bare.headers.location]).toEqual([308, new URL(rig.page.url).pathname])
})

test('without the token there is nothing, and no answer and no log tells it', async () => {
  const lines: string[] = []
  const write = (fields: object, message: string) => void lines.push(JSON.stringify([fields, message]))
  await using rig = await makePage({ log: { debug: write, info: write, warn: write, error: write } })
  const token = new URL(rig.page.url).pathname.split('/')[1]!
  const wrong = `${token.startsWith('A') ? 'B' : 'A'}${token.slice(1)}`
  for (const path of ['/', '/index.html', '/events', '/api/vm', `/${wrong}/`, `/${wrong}/api/vm`, '/%zz', `/x/../${wrong}`]) {
    const { status, text } = await rig.ask(path)
    expect([path, status]).toEqual([path, 404])
    expect(text).not.toContain(token)
  }
  for (const path of ['../../package.json', 'assets/../../../package.json']) expect((await rig.ask(path)).status, path).toBe(404)
  await rig.change('PUT', 'vm/resize', { desired_vcpus: 2 })
  expect(lines.length).toBeGreaterThan(5)
  expect(lines.join('\n')).not.toContain(token)
})

test('another Host and another Origin are refused', async () => {
  await using rig = await makePage()
  expect((await rig.ask('', { headers: { host: 'evil.example' } })).status).toBe(421)
  const refused = await rig.ask('api/vm/resize', {
    method: 'PUT',
    headers: { origin: 'http://evil.example' },
    body: '{"desired_vcpus":2}',
  })
  expect(refused.status).toBe(403)
  expect((await rig.vm.view()).believed.cpus.present).toEqual([0])
})

test('events: everything first, then each change with its messages, states and outcome', async () => {
  await using rig = await makePage()
  const end = new AbortController()
  const events = eventsOf(rig.page.url, end.signal)
  const first = await next(events, 'snapshot')
  expect(first.about).toMatchObject({ guest: 'simulated', arch: 'x86_64' })
  const answer = await rig.change('PUT', 'drives/vdb', DISK)
  expect(answer.status).toBe(200)
  expect(await next(events, 'busy')).toEqual(['drive.add vdb'])
  let message = await next(events, 'message')
  while (message.direction === 'to-host') message = await next(events, 'message')
  expect(message).toMatchObject({ title: 'ADD_MMIO 0xd0000000+0x2000 irq 6', length: 1024 })
  expect(message.fields.map(({ name }) => name)).toContain('msg_type')
  expect(await next(events, 'message')).toMatchObject({ title: 'ADD_MMIO 0', rttMs: expect.any(Number) })
  expect((await next(events, 'console')).text).toMatch(/upcall: ADD_MMIO 0xd0000000\+0x2000 irq 6 -> ADD_MMIO 0\n$/)
  expect(await next(events, 'outcome')).toMatchObject({ op: 'drive.add vdb', status: 200 })
  const { vm, outcomes, session } = await next(eventsOf(rig.page.url, end.signal), 'snapshot')
  expect(outcomes).toMatchObject([{ op: 'drive.add vdb' }])
  expect(session.kind).toBe('Ready')
  expect(vm?.believed.mmio).toMatchObject([{ id: 'vdb', status: 'present' }])
  end.abort()
})

test.each([
  ['a request that is wrong', 'vm/resize', { desired_vcpus: 99 }, { status: 400, fault: { code: 'INVALID', reconcile: false } }],
  ['an id that is not there', 'DELETE drives/vdx', undefined, { status: 404, fault: { code: 'NOT_FOUND' } }],
] as const)('outcome: %s', async (_name, what, body, outcome) => {
  await using rig = await makePage()
  const [method, path] = what.includes(' ') ? what.split(' ') : ['PUT', what]
  await rig.change(method!, path!, body)
  const end = new AbortController()
  const { outcomes } = await next(eventsOf(rig.page.url, end.signal), 'snapshot')
  expect(outcomes).toMatchObject([outcome])
  end.abort()
})

test('outcome: a guest that refuses, with its errno and what to do', async () => {
  await using rig = await makePage()
  await rig.vm.addDrive('vdb', { pathOnHost: '/x', isReadOnly: true })
  rig.machine.faults.fault = 'refuse'
  const answer = await rig.change('PUT', 'drives/vdc', DISK)
  expect(answer.status).toBe(502)
  const end = new AbortController()
  const { outcomes } = await next(eventsOf(rig.page.url, end.signal), 'snapshot')
  expect(outcomes[0]?.fault).toMatchObject({
    code: 'GUEST_ERROR',
    errno: -5,
    errnoName: 'EIO',
    outcome: 'guest-error',
    what: expect.stringContaining('the guest refused'),
    next: expect.stringMatching(/./),
    reconcile: false,
  })
  // The form that asked says the same.
  expect(JSON.parse(answer.text)).toEqual(outcomes[0]?.fault)
  end.abort()
})

test('outcome: unknown, and a reconcile settles it', async () => {
  await using rig = await makePage()
  rig.machine.faults.fault = 'silence'
  const adding = rig.change('PUT', 'drives/vdb', DISK)
  await rig.loseReply()
  expect((await adding).status).toBe(504)
  rig.machine.faults.fault = undefined
  const end = new AbortController()
  const events = eventsOf(rig.page.url, end.signal)
  const { outcomes } = await next(events, 'snapshot')
  expect(outcomes[0]).toMatchObject({ status: 504, fault: { reconcile: true, next: expect.stringContaining('Reconcile') } })
  expect((await rig.change('POST', 'vm/reconcile')).status).toBe(200)
  // Each page that is open tells what was found, whichever of them asked, and whenever its own answer comes.
  const { op, reconciled } = await next(events, 'outcome')
  expect({ op, reconciled }).toEqual({
    op: 'reconcile',
    reconciled: { restarted: false, settled: [{ kind: 'mmio', id: 'vdb', now: 'absent' }], differences: [] },
  })
  end.abort()
})

test('the 17th page is told so, and close() ends the others', async () => {
  const rig = await makePage()
  const end = new AbortController()
  const all = Array.from({ length: 16 }, () => eventsOf(rig.page.url, end.signal))
  await Promise.all(all.map((events) => next(events, 'snapshot')))
  expect(await rig.ask('events')).toMatchObject({ status: 503, text: expect.stringContaining('16 pages are open already') })
  await rig[Symbol.asyncDispose]()
  await Promise.all(all.map((events) => expect(next(events, 'outcome')).rejects.toThrow()))
})

test('a stream that is asked for while another answer is under way takes no place', async () => {
  await using rig = await makePage()
  const { hostname, port, host, pathname } = new URL('events', rig.page.url)
  const socket = connect(Number(port), hostname)
  const asked = `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n\r\n`
  socket.write(asked.repeat(17))
  await once(socket, 'data')
  socket.destroy()
  const end = new AbortController()
  const all = Array.from({ length: 15 }, () => eventsOf(rig.page.url, end.signal))
  await Promise.all(all.map((events) => next(events, 'snapshot')))
  end.abort()
})

test('methods, hosts and paths that no page asks for', async () => {
  await using rig = await makePage()
  for (const method of ['HEAD', 'OPTIONS', 'POST', 'PROPFIND'])
    for (const path of ['', 'events']) expect((await rig.ask(path, { method })).status, `${method} ${path}`).toBe(405)
  expect((await rig.ask('assets/%2e%2e%2findex.html')).status).toBe(404)
  expect((await rig.ask('', { headers: { x: 'a'.repeat(20_000) } })).status).toBe(431)
  expect((await rig.change('PUT', 'vm/resize', { text: 'a'.repeat(70_000) })).status).toBe(413)
})

test('a port in use and a page that is not built leave nothing open', async () => {
  using directory = temporaryDirectory()
  const about = { guest: 'simulated', arch: 'x86_64', address: '', memory: { boot: 1, max: 1, block: 1 } } as const
  const open = (port: number, path: string) =>
    PageServer.open({ at: { host: '127.0.0.1', port }, about, log: silentLog, directory: path })
  await expect(open(0, directory.path)).rejects.toMatchObject({ code: 'PAGE', next: 'Run "npm run build".' })
  writeFileSync(join(directory.path, 'index.html'), '')
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  await expect(open((other.address() as AddressInfo).port, directory.path)).rejects.toMatchObject({ code: 'EADDRINUSE' })
  other.close()
})
