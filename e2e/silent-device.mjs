import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// vhost-user requests, and feature bits, as QEMU's docs/interop/vhost-user.rst numbers them.
const GET_FEATURES = 1
const GET_VRING_BASE = 11
const GET_PROTOCOL_FEATURES = 15
const GET_CONFIG = 24
const VERSION_1 = 1n << 32n
const PROTOCOL_FEATURES = 1n << 30n
const CONFIG = 1n << 9n
/** Version 1, and the reply bit. */
const REPLY = 1 | 4
const HEADER = 12

/**
 * A virtio-vsock device whose other side never looks at its rings: what a guest sees of a VMM that is stuck. It answers QEMU's questions
 * (vhost-user) and nothing else. Resolves with the options that `bootGuest` needs for it, and `close`.
 */
export async function silentDevice(cid) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-silent-'))
  const path = join(folder, 'vhost-user')
  const sockets = new Set()
  const server = createServer((socket) => {
    sockets.add(socket)
    // QEMU's end is its own affair.
    socket.on('error', () => {})
    answerQemu(socket, cid)
  }).listen(path)
  await once(server, 'listening')
  const boot = {
    sharedMemory: true,
    chardevs: [`socket,id=silent,path=${path}`],
    devices: ['vhost-user-vsock-pci,chardev=silent'],
  }
  const close = () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    rmSync(folder, { recursive: true, force: true })
  }
  return { boot, close }
}

function answerQemu(socket, cid) {
  let pending = Buffer.alloc(0)
  socket.on('data', (chunk) => {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= HEADER && pending.length >= HEADER + pending.readUInt32LE(8)) {
      const size = pending.readUInt32LE(8)
      const request = pending.readUInt32LE(0)
      const answer = payloadFor(request, pending.subarray(HEADER, HEADER + size), cid)
      if (answer) {
        const header = Buffer.alloc(HEADER)
        header.writeUInt32LE(request, 0)
        header.writeUInt32LE(REPLY, 4)
        header.writeUInt32LE(answer.length, 8)
        socket.write(Buffer.concat([header, answer]))
      }
      pending = pending.subarray(HEADER + size)
    }
  })
}

function payloadFor(request, asked, cid) {
  switch (request) {
    case GET_FEATURES:
      return u64(VERSION_1 | PROTOCOL_FEATURES)
    case GET_PROTOCOL_FEATURES:
      return u64(CONFIG)
    // Offset, size, flags; then the device's configuration, which is the guest's CID.
    case GET_CONFIG:
      return Buffer.concat([asked.subarray(0, 12), u64(BigInt(cid))])
    // The ring's index, and how far it has come: nowhere.
    case GET_VRING_BASE:
      return Buffer.concat([asked.subarray(0, 4), Buffer.alloc(4)])
    default:
      return undefined
  }
}

function u64(value) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}
