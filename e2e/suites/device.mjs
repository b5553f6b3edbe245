// `upcall vsock device` in the place of vhost-device-vsock: the commands of its README, with the program's name replaced, between stock
// guests and programs of the host. socat stands in for nc --vsock, which is the same protocol.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectSeqpacket, listenSeqpacket } from '@upcall/vsock'
import { DeviceCommand } from '../device/command.mjs'
import { ShellGuest } from '../device/shell-guest.mjs'
import { until } from '../vhost-user/scene.mjs'

export async function run(checks, image) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-device-'))
  try {
    await commandLines(checks, folder)
    await siblings(checks, image, folder)
    await configFile(checks, image, folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Each way to say the same: the sockets are there, and gone after SIGTERM. */
async function commandLines(checks, folder) {
  const [socket, path] = [join(folder, 'vhost4.socket'), join(folder, 'vm4.vsock')]
  const file = join(folder, 'vms.yaml')
  const text = `vms:
    - guest_cid: 4
      socket: ${socket}
      uds_path: ${path}
      tx_buffer_size: 32768
      queue_size: 256
      groups: group2+groupB
`
  writeFileSync(file, text)
  for (const args of [
    ['--guest-cid=4', `--socket=${socket}`, `--uds-path=${path}`],
    ['--guest-cid=4', `--socket=${socket}`, `--uds-path=${path}`, '--tx-buffer-size=32768', '--queue-size=256', '--groups=a+b'],
    ['--vm', `guest-cid=4,uds-path=${path},socket=${socket}`],
    ['--vm', `guest_cid=4,uds-path=${path},socket=${socket},tx-buffer-size=65536,queue-size=1024`],
    [`--config=${file}`],
  ]) {
    await checks.check(`vsock device ${args.join(' ').replaceAll(folder, '/tmp')}`, async () => {
      const command = new DeviceCommand(args)
      try {
        const { cid } = await command.event('listening')
        assert.deepEqual([cid, existsSync(socket), existsSync(path)], [4, true, true])
        assert.equal(await command.stop(), 0)
        assert.deepEqual([existsSync(socket), existsSync(path)], [false, false])
      } finally {
        await command.kill()
      }
    })
  }
}

/** "Sibling VM communication", and the two netcat examples. Each guest has a process of its own, and the two are linked. */
async function siblings(checks, image, folder) {
  const at = (name) => join(folder, name)
  const device = (cid, more) => [
    '--vm',
    `guest-cid=${cid},uds-path=${at(`vm${cid}.vsock`)},socket=${at(`vhost${cid}.socket`)},${more}`,
  ]
  const pcap = at('linked.pcap')
  const hub = new DeviceCommand([...device(3, 'groups=group1+group2'), '--link-listen', at('hub.socket'), '--mode=600'])
  const linked = new DeviceCommand([...device(4, 'groups=group1,seqpacket=yes'), '--link', at('hub.socket'), '--pcap', pcap])
  const guests = []
  const boot = async (cid) => {
    const guest = await ShellGuest.start({ image, name: `device-${cid}`, socketPath: at(`vhost${cid}.socket`) })
    guests.push(guest)
    return guest
  }
  try {
    const booted = await checks.check('two linked commands are the devices of two guests that boot', async () => {
      await Promise.all([hub.listening(1), linked.listening(1)])
      await Promise.all([hub.event('reach', ({ cid }) => cid === 4), linked.event('reach', ({ cid }) => cid === 3)])
      return Promise.all([boot(3), boot(4)])
    })
    if (booted === undefined) return
    const [three, four] = booted
    await checks.check('guest listening: nc -U vm4.vsock, CONNECT 1234', () => guestListening(four, at('vm4.vsock')))
    await checks.check('host listening: nc -l -U vm4.vsock_1234, and the guest connects to CID 2', () =>
      hostListening(four, at('vm4.vsock_1234')),
    )
    await checks.check('messages (SOCK_SEQPACKET): to the host, from the host, and to another guest', () =>
      messages(four, at('vm4.vsock_1235'), three),
    )
    await checks.check('guest 4 connects to guest 3', () => sibling(three, 3, four))
    await checks.check('guest 3 connects to guest 4', () => sibling(four, 4, three))
    await checks.check('a CID that no guest has, and a port without a listener: refused at once', async () => {
      for (const address of ['VSOCK-CONNECT:99:1', 'VSOCK-CONNECT:2:4321', 'VSOCK-CONNECT:4:4321']) {
        const { status, text } = await three.sh(`timeout 20 socat -u ${address} -`)
        assert.equal(status, 1, `${address}: ${text}`)
        assert.match(text, /Connection reset|refused/)
      }
      const { from, to } = await hub.event('refused', ({ from }) => from !== undefined)
      assert.deepEqual([from.cid, to], [3, { cid: 99, port: 1 }])
    })
    await checks.check('SIGTERM: status 0, and the guests learn of it', async () => {
      const waiting = four.sh('timeout 30 socat -u VSOCK-LISTEN:77 -')
      const client = await dialWhenListening(at('vm4.vsock'), 77)
      assert.equal(await linked.stop(), 0)
      client.destroy()
      assert.equal((await waiting).status, 0)
      const { peer, reason } = await hub.event('link-over')
      assert.deepEqual([peer, reason], [1, 'lost'])
      const { status } = await three.sh('timeout 20 socat -u VSOCK-CONNECT:4:77 -')
      assert.equal(status, 1)
      assert.equal(await hub.stop(), 0)
      assert.equal(existsSync(at('hub.socket')), false)
    })
    await checks.check('--pcap: tshark reads the handshake and the payload of guest 4, in order', () => captured(pcap))
  } finally {
    for (const guest of guests) await guest.close()
    await Promise.all([hub.kill(), linked.kill()])
  }
}

/** The file, and SIGHUP with a guest that talks. */
async function configFile(checks, image, folder) {
  const at = (name) => join(folder, name)
  const device = (cid, more = '') => `
    - guest_cid: ${cid}
      socket: ${at(`file${cid}.socket`)}
      uds_path: ${at(`file${cid}.vsock`)}${more}`
  const write = (...devices) => writeFileSync(at('file.yaml'), `vms:${devices.join('')}\n`)
  write(device(3))
  const command = new DeviceCommand(['--config', at('file.yaml')])
  let guest
  try {
    guest = await checks.check('a guest boots, its device from --config', async () => {
      await command.listening(1)
      return ShellGuest.start({ image, name: 'device-config', socketPath: at('file3.socket') })
    })
    if (guest === undefined) return
    await checks.check('SIGHUP: a rule and a device are new, and the connection that is open stays', async () => {
      background(guest, 'socat -t 20 VSOCK-LISTEN:1000,fork EXEC:cat')
      const client = await dialWhenListening(at('file3.vsock'), 1000)
      write(device(3, '\n      to_guest_allow: host:2000\n      from_guest_allow: [host:1]'), device(4))
      command.hangUp()
      assert.deepEqual(pick(await command.event('reloaded')), { added: [4], removed: [], changed: [3], replaced: [], failed: [] })
      client.write('still there')
      assert.equal(String((await once(client, 'data'))[0]), 'still there')
      client.destroy()
      await assert.rejects(dial(at('file3.vsock'), 1000))
      const { status, text } = await guest.sh('timeout 20 socat -u VSOCK-CONNECT:2:514 -')
      assert.equal(status, 1)
      assert.match(text, /Connection reset/)
      const refusal = await command.event('refused', ({ to }) => to?.port === 514)
      assert.deepEqual([refusal.cid, refusal.reason], [3, 'policy-port'])
    })
    await checks.check('SIGHUP: a wrong file changes nothing, and is told with its line and column', async () => {
      write(device(3, '\n      guests: 1'))
      command.hangUp()
      const { error } = await command.event('reload-failed')
      assert.equal(error.subject, `${at('file.yaml')}:5:7`)
      assert.ok(existsSync(at('file4.vsock')))
    })
    await checks.check('SIGHUP: 256 KiB a second, both ways', () => slow(guest, command, { at, write, device }))
  } finally {
    await guest?.close()
    await command.kill()
  }
}

/** 1 MiB each way takes at least the time that its rate says. */
async function slow(guest, command, { at, write, device }) {
  const from = command.events.length
  write(device(3, '\n      from_guest_byte_rate: 256K:64K\n      to_guest_byte_rate: 256K:64K'))
  command.hangUp()
  await command.event('reloaded', () => true, from)
  const listening = guest.sh('socat -u VSOCK-LISTEN:1001 - | wc -c')
  const client = await dialWhenListening(at('file3.vsock'), 1001)
  let started = performance.now()
  client.end(Buffer.alloc(1 << 20))
  assert.equal((await listening).text.trim(), String(1 << 20))
  const there = performance.now() - started
  const server = createServer().listen(at('file3.vsock_1002'))
  await once(server, 'listening')
  started = performance.now()
  const sending = guest.sh('head -c 1048576 /dev/zero | socat -u - VSOCK-CONNECT:2:1002')
  const [socket] = await once(server, 'connection')
  server.close()
  let bytes = 0
  for await (const chunk of socket) bytes += chunk.length
  const back = performance.now() - started
  assert.equal(bytes, 1 << 20)
  assert.equal((await sending).status, 0)
  for (const ms of [there, back]) assert.ok(ms > 3_000 && ms < 40_000, `${Math.round(ms)} ms`)
}

const pick = ({ added, removed, changed, replaced, failed }) => ({ added, removed, changed, replaced, failed })

async function guestListening(guest, path) {
  background(guest, 'socat -t 20 VSOCK-LISTEN:1234 EXEC:"tr a-z A-Z"')
  const client = await dialWhenListening(path, 1234)
  client.end('from the host')
  let text = ''
  for await (const chunk of client) text += chunk
  assert.equal(text, 'FROM THE HOST')
}

async function hostListening(guest, path) {
  const server = createServer({ allowHalfOpen: true }).listen(path)
  await once(server, 'listening')
  try {
    const connecting = guest.sh('echo from the guest | socat -t 20 - VSOCK-CONNECT:2:1234')
    const [socket] = await once(server, 'connection')
    let text = ''
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) text += chunk
    socket.end('and back')
    assert.equal(text, 'from the guest\n')
    assert.deepEqual(await connecting, { status: 0, text: 'and back' })
  } finally {
    server.close()
  }
}

/** socat's type 5 is SOCK_SEQPACKET, and each of its reads one message. */
async function messages(guest, path, other) {
  const server = await listenSeqpacket(`unix+seq:${path}`)
  try {
    const sending = guest.sh('echo a message | socat -u - VSOCK-CONNECT:2:1235,type=5')
    const [socket] = await once(server, 'connection')
    assert.equal(String(Buffer.from((await socket.receive()).data)), 'a message\n')
    assert.equal(await socket.receive(), undefined)
    assert.equal((await sending).status, 0)
    socket.destroy()
  } finally {
    await server.close()
  }
  background(guest, 'socat VSOCK-LISTEN:1237,type=5 EXEC:cat')
  let back
  await until('port 1237 of the guest', async () => {
    back = await connectSeqpacket(`hvsock+seq://${path.replace(/_\d+$/, '')}:1237`).catch(() => undefined)
    return back !== undefined
  })
  await back.send(Buffer.from('from the host'))
  assert.equal(String(Buffer.from((await back.receive()).data)), 'from the host')
  back.destroy()
  const receiving = other.sh('timeout 30 socat -u VSOCK-LISTEN:1236,type=5 -')
  const line = 'echo and another | socat -u - VSOCK-CONNECT:3:1236,type=5 && break'
  await guest.sh(`for i in 1 2 3 4 5 6 7 8 9; do ${line}; sleep 0.3; done`)
  assert.equal((await receiving).text, 'and another')
}

/** What `guestListening` and `hostListening` did, as tshark has it: the operations and the payload of each connection. */
function captured(path) {
  const names = ['vsock.src_cid', 'vsock.src_port', 'vsock.dst_port', 'vsock.virtio.op', 'vsock.payload']
  const argv = ['-r', path, '-T', 'fields', '-E', 'separator=,', ...names.flatMap((name) => ['-e', name])]
  const { stdout, stderr, status, error } = spawnSync('tshark', argv, { encoding: 'utf8', timeout: 60_000, maxBuffer: 2 ** 28 })
  if (error?.code === 'ENOENT' && process.env.CI === undefined) {
    console.log('  not checked: apt-get install tshark')
    return
  }
  assert.equal(status, 0, stderr)
  const connections = new Map()
  for (const line of stdout.trimEnd().split('\n')) {
    const [cid, from, to, op, payload] = line.split(',')
    // Credit comes when it comes.
    if (op === '6' || op === '7') continue
    const ends = cid === '4' ? `${to} ${from}` : `${from} ${to}`
    const text = Buffer.from(payload, 'hex').toString('latin1')
    connections.set(ends, [...(connections.get(ends) ?? []), `${cid === '4' ? '<' : '>'}${op} ${text}`.trim()])
  }
  const opened = (first) => [...connections.values()].filter(([request, response]) => request === first && response !== undefined)
  const listening = opened('>1').find((packets) => packets.includes('>5 from the host'))
  assert.deepEqual(listening?.slice(0, 3), ['>1', '<2', '>5 from the host'])
  assert.ok(listening.indexOf('<5 FROM THE HOST') > 2, `${listening}`)
  const host = opened('<1').find((packets) => packets.includes('<5 from the guest'))
  assert.deepEqual(host?.slice(0, 3), ['<1', '>2', '<5 from the guest'])
  assert.ok(host.indexOf('>5 and back') > 2, `${host}`)
}

/** The answer comes after EOF, so each direction ends by itself. */
async function sibling(listener, cid, dialler) {
  background(listener, 'socat -t 20 VSOCK-LISTEN:1234 EXEC:"wc -c"')
  const line = `for i in 1 2 3 4 5 6 7 8 9; do head -c 300000 /dev/zero | socat -t 20 - VSOCK-CONNECT:${cid}:1234 && break; sleep 0.3; done 2>/dev/null`
  const { text } = await dialler.sh(line)
  assert.equal(text.trim(), '300000')
}

/** A line whose end is of no interest. */
function background(guest, line) {
  guest.sh(line).catch(() => {})
}

/** As `nc -U` and a line of a person. */
async function dial(path, port) {
  const socket = connect({ path, allowHalfOpen: true }).on('error', () => {})
  socket.write(`CONNECT ${port}\n`)
  // With half-close, an end is all that a client hears of a refusal.
  const refused = once(socket, 'end').then(() => Promise.reject(new Error('refused')))
  const reply = await Promise.race([once(socket, 'data'), refused]).catch((error) => {
    socket.destroy()
    throw error
  })
  refused.catch(() => {})
  assert.match(String(reply[0]), /^OK \d+\n$/)
  return socket
}

async function dialWhenListening(path, port) {
  let socket
  await until(`port ${port} of the guest`, async () => {
    socket = await dial(path, port).catch(() => undefined)
    return socket !== undefined
  })
  return socket
}
