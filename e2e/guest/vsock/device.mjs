// `upcall vsock device --forward-cid`: the AF_VSOCK of the machine that runs it is the host of its guest. That machine is this guest, which
// is connected over loopback, and its guest is a VMM without a VM.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { connect } from '@upcall/vsock'
import { echoServer, start, TIMEOUT } from './support.mjs'

const { resolve } = createRequire(import.meta.url)
const upcall = join(dirname(resolve('upcall/package.json')), 'dist/main.js')
process.env.UPCALL_VHOST_USER_ADDON = addonOf(dirname(resolve('@upcall/vhost-user/package.json')))
const { FakeFrontEnd } = await import(bundled('fake-front-end'))
const { addonIfBuilt } = await import(bundled('addon'))

const SOCKET = '/tmp/vhost4.socket'
const [REQUEST, RESPONSE, RST, RW] = [1, 2, 3, 5]
const GUEST_CID = 4

/** The README of vhost-device-vsock: a guest that expects a VM with CID 3, whose programs run on this machine instead. */
async function deviceAndGuest(t) {
  const args = ['--vm', `guest-cid=${GUEST_CID},forward-cid=1,forward-listen=9001+9002,socket=${SOCKET}`]
  const command = [process.execPath, upcall, '--json', 'vsock', 'device', ...args]
  const { child, exited } = await start(t, command, { ready: /"listening"/ })
  const vmm = new FakeFrontEnd(addonIfBuilt(), SOCKET, GUEST_CID)
  t.after(() => vmm.close())
  await vmm.negotiate()
  vmm.guest.supply(60)
  await vmm.start()
  return { vmm, child, exited }
}

test('what the guest connects to, at whatever CID, is a port of CID 1', TIMEOUT, async (t) => {
  await echoServer(t, 'vsock://any:9000')
  const { vmm } = await deviceAndGuest(t)
  for (const cid of [3, 2, 77]) {
    const ports = { sourcePort: 1000 + cid, destinationPort: 9000, destinationCid: cid }
    send(vmm, { op: REQUEST, ...ports })
    const { header } = await heard(vmm, RESPONSE)
    assert.deepEqual([header.sourceCid, header.sourcePort, header.destinationPort], [cid, 9000, ports.sourcePort])
    send(vmm, { op: RW, ...ports }, Buffer.from(`hello, ${cid}`))
    assert.equal(String(Buffer.from((await heard(vmm, RW)).payload)), `hello, ${cid}`)
  }
  send(vmm, { op: REQUEST, sourcePort: 1, destinationPort: 9999, destinationCid: 3 })
  assert.equal((await heard(vmm, RST)).header.sourcePort, 9999)
})

test('connections to the ports of --forward-listen go to the guest, until SIGTERM', TIMEOUT, async (t) => {
  const { vmm, child, exited } = await deviceAndGuest(t)
  for (const port of [9001, 9002]) {
    const socket = await connect(`vsock://local:${port}`, { allowHalfOpen: true })
    t.after(() => socket.destroy())
    const { header } = await heard(vmm, REQUEST)
    assert.deepEqual([header.sourceCid, header.destinationPort], [2, port])
    const ports = { sourcePort: port, destinationPort: header.sourcePort, destinationCid: 2 }
    send(vmm, { op: RESPONSE, ...ports })
    send(vmm, { op: RW, ...ports }, Buffer.from('from the guest'))
    assert.equal(String((await once(socket, 'data'))[0]), 'from the guest')
    socket.write('to the guest')
    assert.equal(String(Buffer.from((await heard(vmm, RW)).payload)), 'to the guest')
  }
  child.kill('SIGTERM')
  assert.deepEqual(await exited, [0, null])
  await assert.rejects(connect('vsock://local:9001'), { code: 'ECONNREFUSED' })
})

function send(vmm, header, payload) {
  vmm.guest.send(header, payload)
  vmm.kick(1)
}

/** The next packet with that operation. */
async function heard(vmm, op) {
  for (let tries = 0; tries < 2000; tries++) {
    const packets = vmm.guest.received()
    vmm.guest.tx.takeUsed()
    vmm.guest.rx.usedEvent = vmm.guest.rx.usedIndex
    const found = packets.find(({ header }) => header.op === op)
    if (found !== undefined) return found
    await delay(10)
  }
  throw new Error(`no packet with operation ${op}`)
}

/** What e2e/device/front-end.mjs has put beside this file. */
function bundled(name) {
  return new URL(`${name}.js`, import.meta.url)
}

/** As built for this machine, or as published. */
function addonOf(folder) {
  const machine = { x64: 'linux-x64', arm64: 'linux-arm64' }[process.arch]
  const files = ['build/Release', `prebuilds/${machine}`].map((place) => join(folder, place, 'upcall_vhost_user.node'))
  return files.find((file) => existsSync(file))
}
