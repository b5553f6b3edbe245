import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { PassThrough, Readable } from 'node:stream'
import { expect, test } from 'vitest'
import { serveGuest, start, upcall } from '../testing/harness.js'
import { hostArchOf } from './options.js'

const otherArch = hostArchOf() === 'aarch64' ? 'x86_64' : 'aarch64'

function lines(...values: unknown[]): Readable {
  return Readable.from(values.map((value) => `${typeof value === 'string' ? value : JSON.stringify(value)}\n`))
}

const mmio = ['--base', '0xd0000000', '--size', '0x1000', '--irq', '5']

test.each(['unix', 'hvsock'] as const)('each operation over %s, as JSON and with its exit status', async (transport) => {
  await using guest = await serveGuest(transport, ['--max-cpus', '8'])
  const json = async (...argv: string[]) => {
    const { status, stdout, stderr } = await upcall(['--target', guest.target, '--arch', 'x86_64', '--json', ...argv])
    expect(stderr.text).toBe('')
    expect(stdout.lines).toHaveLength(1)
    return { status, ...stdout.json[0] }
  }
  const durationMs = expect.any(Number)
  expect(await json('cpu', 'add', '2', '1')).toEqual({
    status: 0,
    op: 'cpu.add',
    outcome: 'ok',
    result: 0,
    apicIdIndex: 2,
    durationMs,
  })
  expect(await json('cpu', 'remove', '1-2')).toEqual({
    status: 0,
    op: 'cpu.remove',
    outcome: 'ok',
    result: 0,
    apicIdIndex: 2,
    durationMs,
  })
  expect(await json('mmio', 'add', ...mmio)).toEqual({ status: 0, op: 'mmio.add', outcome: 'ok', result: 0, durationMs })
  expect(await json('mmio', 'add', ...mmio)).toEqual({
    status: 1,
    op: 'mmio.add',
    outcome: 'guest-error',
    result: -17,
    error: {
      ...{ code: 'GUEST_ERROR', errno: -17, errnoName: 'EEXIST', op: 'mmio.add 0xd0000000+0x1000 irq 5', subject: guest.target },
      what: 'the guest refused: the window or the irq is in use (EEXIST)',
      next: 'Choose a free window and a free irq.',
      message: expect.stringMatching(/^mmio\.add .*: the guest refused: .* \(EEXIST\)\. Choose a free/),
    },
    durationMs,
  })
  expect(await json('mmio', 'remove', ...mmio)).toMatchObject({ status: 0, op: 'mmio.remove', outcome: 'ok' })
  expect(await json('pci', 'add', '0000:00:05.0')).toEqual({ status: 0, op: 'pci.add', outcome: 'ok', result: 0, durationMs })
  expect(await json('pci', 'remove', '00:05.0')).toMatchObject({ status: 0, op: 'pci.remove', outcome: 'ok' })
  expect(await json('request', '--type', '3')).toMatchObject({ status: 1, op: 'request', outcome: 'guest-error', result: -1 })
  expect(await json('request', '--type', 'ADD_PCI', '--load', '00 30')).toMatchObject({
    status: 0,
    op: 'request',
    outcome: 'ok',
    result: 0,
  })
})

test('an aarch64 guest takes a count', async () => {
  await using guest = await serveGuest('unix', ['--arch', 'aarch64', '--cpus', '2'])
  const argv = ['--target', guest.target, '--arch', 'aarch64', '--json']
  expect((await upcall([...argv, 'cpu', 'add', '--count', '2'])).stdout.json).toMatchObject([{ outcome: 'ok', cpuId: 4 }])
  expect(await upcall([...argv, 'cpu', 'remove', '--count', '4', '--present', '4'])).toMatchObject({ status: 2 })
  const withIds = await upcall([...argv, 'cpu', 'add', '2'])
  expect(withIds.status).toBe(2)
  expect(withIds.stdout.json).toEqual([
    { outcome: 'not-sent', error: expect.objectContaining({ code: 'USAGE', message: expect.stringContaining('--count') }) },
  ])
})

test('without --json: results on stdout, failures on stderr with a next step', async () => {
  await using guest = await serveGuest('unix')
  const argv = ['--target', guest.target, '--arch', 'x86_64']
  const ok = await upcall([...argv, 'cpu', 'add', '1'])
  expect(ok.stdout.text).toMatch(/^ok cpu\.add 1, 1 CPU acted on \([\d.]+ ms\)\n$/)
  expect(ok.stderr.text).toBe('')
  const refused = await upcall([...argv, 'pci', 'remove', '00:09.0'])
  expect(refused.stdout.text).toBe('')
  expect(refused.stderr.text).toMatch(
    /^upcall: guest-error: pci\.remove 00:09\.0 unix:.*: the guest refused: no such device \(ENODEV\).+\n$/,
  )
  expect(refused.status).toBe(1)
})

test('what would harm the guest, or cannot be, is refused with status 2', async () => {
  await using guest = await serveGuest('unix', ['--cpus', '4'])
  const argv = ['--target', guest.target, '--arch', 'x86_64', '--json']
  for (const [wrong, message] of [
    [['cpu', 'remove', '0'], /boot CPU/],
    [['cpu', 'remove', '2', '2'], /already named/],
    [['cpu', 'remove', '5', '--present', '0-3'], /not present/],
    [['cpu', 'add', '2', '--present', '0-3'], /present already/],
    [['mmio', 'add', '--base', '0', '--size', '0', '--irq', '5'], /size: must be from 1 to 2\^64 − 1, got 0$/],
    [['mmio', 'add', '--base', '0xffffffffffffffff', '--size', '2', '--irq', '5'], /ends after 2\^64/],
    [
      ['mmio', 'add', '--base', '1', '--size', '1', '--irq', '0'],
      /irq: must be from 1 .*: an x86_64 kernel takes 0 for no interrupt/,
    ],
    [['pci', 'add', '00:20.0'], /slot/],
    [['pci', 'add', '0001:00:05.0'], /domain/],
    [['request', '--type', '3', '--load', 'zz'], /load: must be pairs of hexadecimal digits, got "zz"$/],
  ] as const) {
    const { status, stdout } = await upcall([...argv, ...wrong])
    expect(stdout.json).toEqual([
      {
        op: wrong
          .slice(0, 2)
          .join('.')
          .replace(/^request.*/, 'request'),
        outcome: 'not-sent',
        error: expect.objectContaining({ code: 'ARGUMENT', message: expect.stringMatching(message) }),
      },
    ])
    expect(status).toBe(2)
  }
  expect(guest.stdout.text).not.toContain('"request"')
})

test.each([
  [['bogus'], /unknown command 'bogus'\. `upcall --help` lists/],
  [['stauts'], /^unknown command 'stauts'\. Did you mean "status"\?$/],
  [
    ['completion', 'bahs'],
    /'bahs' is invalid for argument 'shell'\. Did you mean "bash"\? Allowed choices are bash, zsh, fish\.$/,
  ],
  [['request', '--type', 'ADD_MEN'], /invalid\. Did you mean "ADD_MEM"\? Write a number, or one of CONNECT, /],
  [
    ['serve', '--listen', 'unix:/nowhere/s', '--quirks', 'no-tornRequest'],
    /"no-tornRequest" is not known\. Did you mean "no-tornRequests"\? /,
  ],
  [['vsock', 'device', '--vm', 'gest-cid=3'], /there is no key "gest-cid"\. Did you mean "guest-cid"\? The keys are /],
  [['cpu', 'ad'], /unknown command 'ad'\. Did you mean "add"\?$/],
  [['--target', 'hvsok:///x', 'status'], /address "hvsok:\/\/\/x": the form is unknown\. Did you mean "hvsock:\/\/\/x"\?$/],
  [['vsock', 'forward', 'tpc:80', 'unix:/x'], /address "tpc:80": .*\. Did you mean "tcp:80"\?$/],
  [
    ['--arch', 'x86-64', 'status'],
    /argument 'x86-64' is invalid\. Did you mean "x86_64"\? Allowed choices are x86_64, aarch64\.$/,
  ],
  [['cpu', 'bogus'], /unknown command 'bogus'\. `upcall cpu --help` lists/],
  [['--target', 'cpu', 'bogus'], /unknown command/],
  [[], /no command/],
  [['cpu'], /no command/],
  [['status'], /no target/],
  [['--target', 'x', 'status'], /--target/],
  [['--target', 'unix:/x', '--timeout', '5', 'status'], /500ms, 5s or 2m/],
  [['--target', 'unix:/x', '--arch', 'mips', 'status'], /x86_64, aarch64/],
  [['--target', 'unix:/x', 'mmio', 'add', '--base', '1'], /--size/],
  [
    ['--target', 'unix:/x', 'mmio', 'add', '--bse', '1', '--size', '1', '--irq', '5'],
    /unknown option '--bse'\. Did you mean "--base"\?/,
  ],
  [['serve', '--lisen', 'unix:/x'], /unknown option '--lisen'\. Did you mean "--listen"\?/],
  [['request', '--tpe', '3'], /unknown option '--tpe'\. Did you mean "--type"\?/],
  [['serve'], /required option '--listen <address>' not specified/],
  [
    ['--target', 'unix:/x', 'mmio', 'add', '--base', '1', '--size', '4Q', '--irq', '5'],
    /--size <bytes>' argument '4Q' is invalid. .*4K/,
  ],
  [['--target', 'unix:/x', 'pci', 'add'], /bdf/],
  [['--target', 'unix:/x', '--arch', 'x86_64', 'cpu', 'add'], /no vCPU ids/],
  [['--target', 'unix:/x', '--arch', 'x86_64', 'cpu', 'add', '--count', '1'], /--count/],
  [['--target', 'unix:/x', '--arch', 'x86_64', 'cpu', 'add', 'one'], /vCPU ids/],
  [['serve', '--listen', 'unix:/x', '--quirks', 'none,odd'], /"odd".*stalePciResult/],
  [['serve', '--listen', 'unix:/x', '--cpus', '9', '--max-cpus', '8'], /cpus/],
  [['serve', '--listen', 'unix:/x', '--pci', '5'], /--pci: bdf/],
  [['serve', '--listen', 'vsock://any:219'], /--listen: listen vsock:\/\/any:219: native AF_VSOCK is switched off/],
  [['serve', '--listen', 'unix:/x', '--no-roll-back'], /--no-roll-back: is only for --backend linux/],
  [['serve', '--listen', 'unix:/x', '--backend', 'linux', '--cpus', '2'], /--cpus: is only for --backend simulated/],
  [['serve', '--listen', 'unix:/x', '--backend', 'linux', '--quirks', 'none'], /--quirks: is only for --backend simulated/],
  [['serve', '--listen', 'unix:/x', '--backend', 'linux', '--arch', otherArch], /the Linux guest is this machine/],
  [['decode', '/nonexistent/file'], /ENOENT/],
])('wrong usage: %j', async (argv, message) => {
  const { status, stdout, stderr } = await upcall(argv)
  expect([status, stdout.text]).toEqual([2, ''])
  expect(stderr.text).not.toBe('')
  const json = await upcall([...argv, '--json'])
  expect(json.status).toBe(2)
  expect(json.stdout.json).toEqual([
    { outcome: 'not-sent', error: expect.objectContaining({ code: 'USAGE', message: expect.stringMatching(message) }) },
  ])
})

test('a target that cannot be reached is not-sent, status 3, and the message says what to look at', async () => {
  await using guest = await serveGuest('hvsock')
  for (const [target, message] of [
    ['unix:/nonexistent/socket', /the file does not exist \(ENOENT\)\. .*`upcall wait`/],
    [`hvsock://${guest.path}:1`, /no listener on port 1 in the guest.*\. Is the guest still booting/],
    ['vsock://3', /vsock:\/\/3:219: native AF_VSOCK is switched off by .*\. Unset it/],
  ] as const) {
    const { status, stdout } = await upcall(['--target', target, '--json', 'pci', 'add', '00:05.0'])
    expect(status).toBe(3)
    expect(stdout.json).toMatchObject([
      { op: 'pci.add', outcome: 'not-sent', error: { code: 'UNREACHABLE', message: expect.stringMatching(message) } },
    ])
    expect(await upcall(['--target', target, 'status'])).toMatchObject({ status: 3 })
  }
})

test('unix: at a hybrid vsock socket, and the other architecture, are told by what comes of them', async () => {
  await using guest = await serveGuest('hvsock', ['--arch', 'x86_64'])
  const hint = `write hvsock://${guest.path}:219`
  for (const argv of [
    ['--json', 'status'],
    ['--json', 'pci', 'add', '00:05.0'],
  ]) {
    const { status, stdout } = await upcall(['--target', `unix:${guest.path}`, ...argv])
    expect(status).toBe(3)
    expect(stdout.json).toMatchObject([{ error: { message: expect.stringContaining(hint) } }])
  }
  for (const op of ['add', 'remove']) {
    const argv = ['--target', guest.target, '--arch', 'aarch64', '--json', 'cpu', op, '--count', '1']
    const { status, stdout } = await upcall(argv)
    expect(status).toBe(1)
    expect(stdout.json).toMatchObject([
      {
        error: {
          errnoName: 'EINVAL',
          message: expect.stringMatching(
            /an x86_64 guest reads a count as APIC ids\. If the guest is x86_64, pass --arch x86_64\.$/,
          ),
        },
      },
    ])
  }
})

test('--timeout bounds an operation: not-sent before the greeting, indeterminate after it', async () => {
  await using guest = await serveGuest('unix', ['--cpus', '4'])
  // Nothing accepts the connection of a plain socket: the service byte is not answered.
  const silent = createServer().listen(`${guest.path}.silent`)
  try {
    const waiting = await upcall([
      '--target',
      `unix:${guest.path}.silent`,
      '--timeout',
      '50ms',
      '--json',
      'pci',
      'add',
      '00:05.0',
    ])
    expect(waiting.status).toBe(3)
    expect(waiting.stdout.json).toMatchObject([
      { outcome: 'not-sent', error: { code: 'TIMEOUT', message: expect.stringContaining('--timeout') } },
    ])
  } finally {
    silent.close()
  }
  // A vCPU that is absent: the guest's thread dies and never answers.
  const dead = await upcall(['--target', guest.target, '--arch', 'x86_64', '--timeout', '4s', '--json', 'cpu', 'remove', '9'])
  expect(dead.status).toBe(4)
  expect(dead.stdout.json).toMatchObject([{ op: 'cpu.remove', outcome: 'indeterminate', error: { code: 'TIMEOUT' } }])
})

test('an interruption says how it stands and ends with 130', async () => {
  await using guest = await serveGuest('unix', ['--cpus', '4'])
  const running = start(['--target', guest.target, '--arch', 'x86_64', '--json', 'cpu', 'remove', '9'])
  await guest.stdout.has('"cpu.remove"')
  running.interrupt()
  expect(await running.status).toBe(130)
  expect(running.stdout.json).toMatchObject([{ op: 'cpu.remove', outcome: 'indeterminate', error: { code: 'ABORTED' } }])

  const early = start(['--target', guest.target, 'pci', 'add', '00:05.0'])
  early.interrupt()
  expect(await early.status).toBe(130)
  expect(early.stderr.text).toMatch(/not-sent: pci\.add 00:05\.0 unix:.*\. Nothing was sent\./)

  const target = `unix:${guest.path}.none`
  const waiting = start(['--target', target, 'wait'])
  waiting.interrupt()
  expect(await waiting.status).toBe(130)
  expect(waiting.stderr.text).toBe(`upcall: not-sent: wait ${target}: aborted before the session was ready. Nothing was sent.\n`)
})

test('status and wait tell how far it got, how long it took, and to whom', async () => {
  await using guest = await serveGuest('hvsock')
  const json = ['--target', `hvsock://${guest.path}`, '--json']
  const times = { dialMs: expect.any(Number), greetingMs: expect.any(Number), durationMs: expect.any(Number) }
  const ready = { outcome: 'ok', state: 'ServiceConnected', peer: guest.target, ...times }
  expect((await upcall([...json, 'status'])).stdout.json).toEqual([{ op: 'status', ...ready }])
  expect((await upcall([...json, 'wait'])).stdout.json).toEqual([{ op: 'wait', ...ready, attempts: 1 }])
  expect((await upcall(['status'], { env: { UPCALL_TARGET: guest.target } })).stdout.text).toMatch(
    /^ServiceConnected hvsock:.*:219 \(dial [\d.]+ ms, greeting [\d.]+ ms, total [\d.]+ ms\)\n$/,
  )
  const none = await upcall(['--target', 'unix:/nonexistent/socket', '--json', 'status'])
  expect(none.stdout.json).toMatchObject([
    { op: 'status', outcome: 'not-sent', state: 'WaitingServer', error: { code: 'UNREACHABLE' } },
  ])
})

test('status takes a booting guest for what it is; wait outlasts whatever is not there yet, and runs out with status 3', async () => {
  await using guest = await serveGuest('hvsock', ['--boot', '2m'])
  const early = await upcall(['--target', guest.target, '--json', 'status'])
  expect(early.status).toBe(3)
  expect(early.stdout.json).toMatchObject([{ state: 'WaitingService', error: { code: 'UNREACHABLE' } }])
  expect(early.stdout.json[0].error.message.match(/booting|`upcall wait`/g)).toEqual(['booting', '`upcall wait`'])

  const target = `unix:${guest.path}.late`
  const waiting = start(['--target', target, '--json', 'wait'])
  const late = start(['serve', '--listen', target])
  expect(await waiting.status).toBe(0)
  expect(waiting.stdout.json[0]).toMatchObject({ op: 'wait', outcome: 'ok', state: 'ServiceConnected' })
  expect(waiting.stdout.json[0].attempts).toBeGreaterThan(1)
  late.interrupt()
  await late.status

  const out = await upcall(['--target', 'unix:/nonexistent/socket', '--timeout', '2s', '--json', 'wait'])
  expect(out.status).toBe(3)
  expect(out.stdout.json).toMatchObject([
    { op: 'wait', outcome: 'not-sent', error: { message: expect.stringContaining('attempts') } },
  ])
  // It says what to look at, and not to do what was just done.
  expect(out.stdout.json[0].error.message).toContain('is the VMM running?')
  expect(out.stdout.json[0].error.message).not.toContain('upcall wait')
  // What no waiting mends ends at once.
  const wrong = await upcall(['--target', `unix:${tmpdir()}`, '--json', 'wait'])
  expect(wrong.status).toBe(3)
  expect(wrong.stdout.json).toMatchObject([
    {
      attempts: 1,
      error: {
        message: expect.stringMatching(/^wait: connect unix:.*: the path is a directory, not a socket\. Check the path[^(]*$/),
      },
    },
  ])
  expect((await upcall(['--target', 'vsock://3', '--json', 'wait'])).stdout.json).toMatchObject([
    { attempts: 1, outcome: 'not-sent' },
  ])
})

test('batch: a PCI success after a failure is ok, although the guest repeats the failure on that connection', async () => {
  await using guest = await serveGuest('hvsock', ['--quirks', 'none,stalePciResult'])
  const stdin = lines({ op: 'pci.remove', bdf: '00:09.0' }, { op: 'pci.add', bdf: '00:05.0' })
  const { status, stdout } = await upcall(['--target', guest.target, 'batch'], { stdin })
  expect(stdout.json).toMatchObject([
    { line: 1, op: 'pci.remove', outcome: 'guest-error', result: -19, error: { errno: -19, errnoName: 'ENODEV' } },
    { line: 2, op: 'pci.add', outcome: 'ok', result: 0 },
  ])
  expect(status).toBe(1)
})

test('batch: a bad line is answered in its place, and the lines after it run', async () => {
  await using guest = await serveGuest('unix')
  const input = [
    { op: 'pci.add', bdf: '00:05.0' },
    '{"op":"pci.add"',
    '',
    { op: 'disk.add' },
    { op: 'mmio.add', base: '0x1000', size: '0x1000', irq: 0 },
    { op: 'pci.add', bdf: '00:06.0', extra: 1 },
    'x'.repeat(70_000),
    { op: 'request', type: 3 },
    { op: 'pci.remove', bdf: '00:05.0' },
  ]
  const argv = ['--target', guest.target, '--arch', 'x86_64', 'batch']
  const { status, stdout } = await upcall(argv, { stdin: lines(...input) })
  const bad = { outcome: 'not-sent', error: { code: 'ARGUMENT' } }
  expect(stdout.json).toMatchObject([
    { line: 1, outcome: 'ok' },
    { line: 2, ...bad },
    { line: 4, op: 'disk.add', ...bad },
    { line: 5, op: 'mmio.add', ...bad },
    { line: 6, op: 'pci.add', ...bad },
    { line: 7, outcome: 'not-sent', error: { code: 'USAGE' } },
    { line: 8, op: 'request', outcome: 'guest-error', result: -1 },
    { line: 9, outcome: 'ok' },
  ])
  expect(status).toBe(2)

  const stopped = await upcall([...argv, '--stop-on-error'], { stdin: lines(...input) })
  expect(stopped.stdout.json.map(({ line }) => line)).toEqual([1, 2])
  expect(stopped.status).toBe(2)
})

test('batch: answers while its input is still open, and goes on after a guest hung up', async () => {
  await using guest = await serveGuest('unix', ['--cpus', '4'])
  const stdin = new PassThrough()
  const running = start(['--target', guest.target, '--arch', 'x86_64', '--timeout', '4s', 'batch'], { stdin })
  stdin.write('{"op":"pci.add","bdf":"00:05.0"}\n')
  await running.stdout.has('"line":1')
  // The thread that serves this connection dies; the next line has a new one.
  stdin.write('{"op":"cpu.remove","apicIds":[9]}\n{"op":"pci.add","bdf":"00:06.0"}\n')
  await running.stdout.has('"line":3')
  stdin.write('{"op":"pci.add","bdf":"00:07.0"}')
  stdin.end()
  expect(await running.status).toBe(4)
  expect(running.stdout.json.map(({ outcome }) => outcome)).toEqual(['ok', 'indeterminate', 'ok', 'ok'])
})

test('batch: a guest that is gone costs each line one attempt, and an interruption ends the waiting for more', async () => {
  const gone = await upcall(['--target', 'unix:/nonexistent/socket', 'batch'], {
    stdin: lines({ op: 'pci.add', bdf: '00:05.0' }, { op: 'pci.add', bdf: '00:06.0' }),
  })
  expect(gone.stdout.json).toMatchObject([
    { line: 1, outcome: 'not-sent' },
    { line: 2, outcome: 'not-sent' },
  ])
  expect(gone.status).toBe(3)

  await using guest = await serveGuest('unix')
  const stdin = new PassThrough()
  const running = start(['--target', guest.target, 'batch'], { stdin })
  stdin.write('{"op":"pci.add","bdf":"00:05.0"}\n')
  await running.stdout.has('"line":1')
  running.interrupt()
  expect(await running.status).toBe(130)
  expect(stdin.destroyed).toBe(true)
})

test('decode: from stdin, status 2 if something was not understood, and its requests are what batch takes', async () => {
  const stdin = () => Readable.from([Buffer.from('6400014d44 02000000 07000000\n00000000 0028\n')])
  const text = await upcall(['decode'], { stdin: stdin() })
  expect(text.stdout.lines).toEqual(["       0  → service 'd', the device manager", '       1  → ADD_PCI  00:05.0'])
  expect(text.status).toBe(0)
  const json = await upcall(['--json', 'decode'], { stdin: stdin() })
  expect(json.stdout.json).toEqual([
    { offset: 0, direction: 'request', service: 'd' },
    { offset: 1, direction: 'request', type: 'ADD_PCI', operation: { op: 'pci.add', bdf: '00:05.0' }, given: 18 },
  ])
  await using guest = await serveGuest('unix')
  const again = await upcall(['--target', guest.target, 'batch'], { stdin: lines(json.stdout.json[1].operation) })
  expect(again.stdout.json).toMatchObject([{ op: 'pci.add', outcome: 'ok' }])

  const raw = await upcall(['--json', 'decode'], {
    stdin: Readable.from([Buffer.concat([Buffer.from('OK 1\n\0\u0001MD'), Buffer.alloc(10)])]),
  })
  expect(raw.stdout.json).toEqual([
    { offset: 0, direction: 'reply', handshake: 'OK 1' },
    { offset: 5, error: expect.objectContaining({ code: 'LENGTH', what: expect.stringContaining('14 of the 1024') }) },
  ])
  expect(raw.status).toBe(2)
  expect((await upcall(['decode', '--format', 'hex'], { stdin: Readable.from([Buffer.from('d\0')]) })).status).toBe(2)
})

test("every command has help with examples, and the version is the package's", async () => {
  const commands = [
    '',
    'status',
    'wait',
    'cpu',
    'cpu add',
    'cpu remove',
    'mmio',
    'mmio add',
    'mmio remove',
    'pci',
    'pci add',
    'pci remove',
    'vsock',
    'vsock connect',
    'vsock listen',
    'vsock forward',
    'vsock pass',
    'vsock notify',
    'vsock cid',
  ]
  for (const command of [...commands, 'request', 'batch', 'serve', 'decode']) {
    const { status, stdout } = await upcall([...command.split(' ').filter(Boolean), '--help'])
    expect(status).toBe(0)
    const ofStreams = command.startsWith('vsock')
    expect(stdout.text.includes('--target <address>')).toBe(!ofStreams)
    expect(stdout.text.includes('--arch <arch>')).toBe(!ofStreams)
    expect(stdout.text).toContain('--timeout <duration>')
    expect(stdout.text).not.toMatch(/[\u2018\u2019]/)
    expect(stdout.text).toMatch(/Examples:\n( {2}\$ .*upcall .*\n)+$/)
  }
  const { stdout } = await upcall(['--version'])
  expect(stdout.text).toMatch(/^\d+\.\d+\.\d+\n$/)
})

test('--verbose names the entry of docs/errors.md, and explain prints it', async () => {
  await using guest = await serveGuest('unix')
  const argv = ['--verbose', '--target', guest.target, '--arch', 'x86_64']
  const refused = await upcall([...argv, 'pci', 'remove', '00:09.0'])
  expect(refused.stderr.text).toMatch(/\n +see docs\/errors\.md#guest_error, or run: upcall explain GUEST_ERROR\n$/)
  const docs = 'errors.md#guest_error'
  expect((await upcall([...argv, '--json', 'pci', 'remove', '00:09.0'])).stdout.json).toMatchObject([{ error: { docs } }])
  const batch = await upcall([...argv, 'batch'], { stdin: Readable.from(['{"op":"pci.remove","bdf":"00:09.0"}\n']) })
  expect(batch.stdout.json).toMatchObject([{ error: { docs } }])
  expect((await upcall(['-v', 'cpu', 'add', '--nothing'])).stderr.text).toContain('errors.md#usage')
  const explained = await upcall(['explain', 'guest_error'])
  expect(explained.stdout.text).toMatch(/^GUEST_ERROR\n@upcall\/client.*\n {2}The guest received the request and refused it/)
  expect(explained.status).toBe(0)
})

test('explain knows what it does not know', async () => {
  const errno = await upcall(['explain', 'ENOENT'])
  expect(errno.stderr.text).toContain("ENOENT: is the kernel's own errno and has no entry. The manual page errno(3)")
  const nothing = await upcall(['explain', 'GEUST_ERROR'])
  expect(nothing.stderr.text).toContain(
    'GEUST_ERROR: is not the code of an error. Did you mean "GUEST_ERROR"? The codes are ABORTED, ',
  )
  const typo = await upcall(['explain', 'econrefused'])
  expect(typo.stderr.text).toContain('is not the code of an error. Did you mean "ECONNREFUSED"? The codes')
  expect([errno.status, nothing.status]).toEqual([2, 2])
})
