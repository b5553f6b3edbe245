// One process of the bench `forward`: `node forward-child.mjs <role> <paths or numbers>`. Says "ready" when it listens.
import { connect, createServer } from 'node:net'
import { pipeline } from 'node:stream'
import { forward } from '@upcall/vsock'

const BLOCK = 256 * 1024
const ready = () => process.stdout.write('ready\n')

const roles = {
  /** Reads and drops, then says how many bytes there were. */
  sink(path) {
    let bytes = 0
    createServer((socket) => {
      socket
        .on('data', (chunk) => {
          bytes += chunk.length
        })
        .on('end', () => process.stdout.write(`${bytes}\n`))
    }).listen(path, ready)
  },
  /** Writes so many bytes, and ends. */
  source(path, size) {
    const block = Buffer.alloc(BLOCK)
    let left = Number(size)
    const socket = connect(path)
    const go = () => {
      while (left > 0) {
        left -= block.length
        if (!socket.write(block)) return
      }
      socket.end()
    }
    socket.on('drain', go).on('connect', go)
    socket.resume()
  },
  async forward(near, far) {
    await forward(`unix:${near}`, `unix:${far}`)
    ready()
  },
  /** What Node's own streams reach. */
  pipeline(near, far) {
    createServer({ allowHalfOpen: true }, (from) => {
      const to = connect({ path: far, allowHalfOpen: true })
      pipeline(from, to, () => {})
      pipeline(to, from, () => {})
    }).listen(near, ready)
  },
}

const [role, ...words] = process.argv.slice(2)
await roles[role](...words)
