// A hybrid socket with the services that `peers.mjs` measures, in a process of its own: the same as the Go program `peer vmm` has.
//
//   node hybrid-server.mjs net|listenHybrid <socket>
import { once } from 'node:events'
import { createServer } from 'node:net'
import { Duplex, PassThrough } from 'node:stream'
import { listenHybrid } from '@upcall/vsock'
import { PORTS } from './hybrid-clients.mjs'

const BLOCK = Buffer.alloc(64 * 1024)
const MESSAGE = 1024
const MAGIC = 0x444d_0100
const TYPE_AT = 8

const [kind, path] = process.argv.slice(2)
await (kind === 'net' ? serveNet() : serveHybrid())
process.once('disconnect', () => process.exit())
process.send('listening')

/** Bare sockets: one look at the command, in one piece, and the socket is the service's. */
async function serveNet() {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    socket.once('data', (line) => {
      socket.write('OK 1073741824\n')
      const port = Number(String(line).slice('CONNECT '.length))
      if (port === PORTS.discard) socket.resume().once('end', () => socket.end())
      else socket.pipe(guestEnd(port)).pipe(socket)
    })
  })
  await once(server.listen(path), 'listening')
}

async function serveHybrid() {
  await listenHybrid({ path, route: (port) => guestEnd(port) })
}

/** What the guest would be. */
function guestEnd(port) {
  if (port === PORTS.echo) return new PassThrough()
  if (port === PORTS.upcall) return deviceManager()
  const write = (_chunk, _encoding, done) => done()
  if (port === PORTS.source)
    return new Duplex({
      write,
      read() {
        this.push(BLOCK)
      },
    })
  return new Duplex({
    write,
    read() {},
    final(done) {
      this.push(null)
      done()
    },
  })
}

/** Answers every request with its own type and the result 0. */
function deviceManager() {
  let greeted = false
  let waiting = Buffer.alloc(0)
  const reply = Buffer.alloc(MESSAGE)
  reply.writeUInt32LE(MAGIC)
  return new Duplex({
    read() {},
    write(chunk, _encoding, done) {
      waiting = waiting.length === 0 ? chunk : Buffer.concat([waiting, chunk])
      if (!greeted) {
        greeted = true
        waiting = waiting.subarray(1)
        this.push(Buffer.from(reply))
      }
      for (; waiting.length >= MESSAGE; waiting = waiting.subarray(MESSAGE)) {
        waiting.copy(reply, TYPE_AT, TYPE_AT, TYPE_AT + 4)
        this.push(Buffer.from(reply))
      }
      done()
    },
  })
}
