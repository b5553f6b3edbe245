// The same services and exercises as the Go program peers/go/peer has, on our sockets: each connection begins with one line,
// `<service> <bytes>`, so that the dialer speaks first. (firecracker-go-sdk loses what comes in one piece with OK.)
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'

/** Answers one connection and resolves with what it was: the service, and the bytes that it carried. */
export async function serve(socket) {
  const [service, bytes] = (await readLine(socket)).split(' ')
  const done = await services[service](socket, Number(bytes))
  return { service, ...done }
}

const services = {
  async echo(socket) {
    let bytes = 0
    socket.on('data', (chunk) => (bytes += chunk.length)).pipe(socket)
    await gone(socket)
    return { bytes }
  },
  /** Reads to the end, then says how much it was. */
  async answer(socket) {
    const summary = summaryOf(await readAll(socket))
    socket.end(`${summary.bytes} ${summary.md5}`)
    await gone(socket)
    return summary
  },
  async source(socket, bytes) {
    const block = randomBytes(bytes)
    socket.resume().end(block)
    await gone(socket)
    return summaryOf(block)
  },
  /** Ends its direction, and reads what comes then. */
  async 'ends-first'(socket, bytes) {
    socket.end(randomBytes(bytes))
    return summaryOf(await readAll(socket))
  },
  /** Has enough after the first bytes. */
  async reset(socket) {
    await once(socket, 'data')
    socket.destroy()
    return {}
  },
}

/** What a dialer does; `dial` resolves with a connection that has half-close. */
export const exercises = {
  async echo(dial, bytes) {
    const socket = await begun(dial, 'echo', bytes)
    const block = randomBytes(bytes)
    const answer = readAll(socket)
    socket.end(block)
    assert.ok(block.equals(await answer), 'the same bytes come back')
    await gone(socket)
  },
  /** The server answers after our end. */
  async answer(dial, bytes) {
    const socket = await begun(dial, 'answer', bytes)
    const block = randomBytes(bytes)
    const answer = readAll(socket)
    socket.end(block)
    const { md5 } = summaryOf(block)
    assert.equal(String(await answer), `${bytes} ${md5}`)
    await gone(socket)
  },
  async source(dial, bytes) {
    const socket = await begun(dial, 'source', bytes)
    assert.equal((await readAll(socket)).length, bytes)
    socket.end()
    await gone(socket)
  },
  /** We send after the server's end. */
  async 'ends-first'(dial, bytes) {
    const socket = await begun(dial, 'ends-first', bytes)
    assert.equal((await readAll(socket)).length, bytes)
    socket.end(randomBytes(bytes))
    await gone(socket)
  },
  async connects(dial, count) {
    const one = async () => {
      while (count-- > 0) await exercises.echo(dial, 100)
    }
    await Promise.all(Array.from({ length: 8 }, one))
  },
}

async function begun(dial, service, bytes) {
  const socket = await dial()
  socket.on('error', () => {}).write(`${service} ${bytes}\n`)
  return socket
}

async function readLine(socket) {
  for (let line = ''; ; ) {
    const byte = socket.read(1)
    if (byte === null) {
      if (socket.readableEnded || socket.destroyed) throw new Error(`it ended after ${JSON.stringify(line)}`)
      await Promise.race(['readable', 'end', 'close'].map((event) => once(socket, event)))
    } else if (byte[0] === 10) return line
    else line += byte
  }
}

/** Everything to the end; rejects if the connection breaks first. */
export function readAll(socket) {
  const chunks = []
  return new Promise((resolve, reject) => {
    const over = () => reject(socket.errored ?? new Error(`closed after ${Buffer.concat(chunks).length} bytes, before its end`))
    socket.once('close', over).once('end', () => {
      socket.off('close', over)
      resolve(Buffer.concat(chunks))
    })
    socket.on('data', (chunk) => chunks.push(chunk))
  })
}

async function gone(socket) {
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
}

function summaryOf(bytes) {
  return { bytes: bytes.length, md5: createHash('md5').update(bytes).digest('hex') }
}
