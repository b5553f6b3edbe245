// A transfer that proves itself, the same code on both ends. The side that connects says in one JSON line how it is to go. Then each end sends
// its bytes and their MD5, and ends. (MD5, because in an emulated guest it is the fastest there is.)
import { createHash } from 'node:crypto'
import { once } from 'node:events'

const DIGEST = 16
const BLOCK = 64 * 1024

/** Of the guest's sockets, besides the kernel's default of 256 KiB. */
export const BUFFER_SIZES = [4096, 8192, 16_384, 65_536, 100_000, 1 << 20, 4 << 20]

/**
 * `send`, `want`: bytes there and back. `hold`: the accepting end reads nothing before it is told to. `first`: who ends before the
 * other begins (`connector` or `acceptor`), which takes half-close; default: both at once. `block`: bytes of each write. `onSent`,
 * `onBytes` are told of bytes written and read here.
 */
export async function exchange(socket, { send = 0, want = 0, hold = false, first, block, onBytes, onSent } = {}) {
  socket.write(`${JSON.stringify({ send, want, hold, first, block })}\n`)
  const sending = () => sendBytes(socket, send, { block, onSent })
  const receiving = () => receiveBytes(socket, want, onBytes)
  await inTurn(first === 'acceptor' ? [receiving, sending] : [sending, receiving], first)
  return { sent: send, received: want }
}

/** The accepting end. `released` is awaited before a held transfer is read. */
export async function answer(socket, { released, onBytes, onSent } = {}) {
  const { send, want, hold, first, block } = JSON.parse(await readLine(socket))
  const sending = () => sendBytes(socket, want, { block, onSent })
  const receiving = async () => {
    if (hold) await released()
    await receiveBytes(socket, send, onBytes)
  }
  await inTurn(first === 'acceptor' ? [sending, receiving] : [receiving, sending], first)
  return { sent: want, received: send }
}

async function inTurn([one, other], ordered) {
  if (!ordered) return Promise.all([one(), other()])
  await one()
  await other()
}

/** Sends `count` bytes that never repeat at the size of a packet or a page, then their digest, then EOF. */
async function sendBytes(socket, count, { block = BLOCK, onSent = () => {} }) {
  const hash = createHash('md5')
  if (noise === undefined) makeNoise()
  // No two transfers are alike.
  const from = Math.floor(Math.random() * noise.length)
  for (let at = 0; at < count; ) {
    const start = (from + at) % noise.length
    const chunk = noise.subarray(start, Math.min(start + block, noise.length, start + count - at))
    hash.update(chunk)
    at += chunk.length
    onSent(chunk.length)
    if (!socket.write(chunk)) await drained(socket)
  }
  socket.end(hash.digest())
}

/** In an emulated guest it takes a second or more, in which nothing else runs: a guest makes it before it serves anybody. */
let noise

export function makeNoise() {
  const bytes = Buffer.alloc(1_000_003)
  let x = (Math.random() * 0x7fff_ffff) | 1
  for (let i = 0; i < bytes.length; i++) {
    x = Math.imul(x, 1103515245) + 12345
    bytes[i] = x >>> 16
  }
  noise = bytes
}

async function drained(socket) {
  const gone = new AbortController()
  const onClose = () => gone.abort(new Error('closed before everything was sent'))
  socket.once('close', onClose)
  try {
    if (socket.destroyed) throw new Error('closed before everything was sent')
    await once(socket, 'drain', { signal: gone.signal })
  } finally {
    socket.off('close', onClose)
  }
}

/** Reads `count` bytes and their digest, then EOF; anything else is an error. */
async function receiveBytes(socket, count, onBytes = () => {}) {
  const hash = createHash('md5')
  const tail = []
  let received = 0
  for await (const chunk of chunks(socket)) {
    const body = Math.max(0, Math.min(chunk.length, count - received))
    if (body > 0) hash.update(body === chunk.length ? chunk : chunk.subarray(0, body))
    if (body < chunk.length) tail.push(chunk.subarray(body))
    received += chunk.length
    onBytes(chunk.length)
  }
  if (received !== count + DIGEST) throw new Error(`${received} bytes came, ${count + DIGEST} were expected`)
  if (!Buffer.concat(tail).equals(hash.digest())) throw new Error(`the checksum of ${count} bytes is wrong`)
}

/** Until EOF; unlike the socket's own iterator it leaves the other half open. */
async function* chunks(socket) {
  let failure
  let ended = socket.readableEnded
  let wake = () => {}
  const onEnd = () => {
    ended = true
    wake()
  }
  const onClose = () => {
    if (!ended) failure ??= new Error('closed before its end')
    wake()
  }
  const onError = (error) => {
    failure = error
    wake()
  }
  const onReadable = () => wake()
  socket.on('readable', onReadable).on('end', onEnd).on('close', onClose).on('error', onError)
  try {
    if (socket.destroyed && !ended) throw socket.errored ?? new Error('closed before its end')
    for (;;) {
      const chunk = socket.read()
      if (chunk !== null) yield chunk
      else if (ended) return
      else if (failure !== undefined) throw failure
      else await new Promise((resolve) => (wake = resolve))
    }
  } finally {
    socket.off('readable', onReadable).off('end', onEnd).off('close', onClose).off('error', onError)
  }
}

async function readLine(socket) {
  let text = Buffer.alloc(0)
  for (;;) {
    const chunk = socket.read()
    if (chunk === null) {
      if (socket.readableEnded || socket.destroyed) throw new Error('ended before a line')
      await Promise.race([once(socket, 'readable'), once(socket, 'end'), once(socket, 'close')])
      continue
    }
    text = Buffer.concat([text, chunk])
    const end = text.indexOf(10)
    if (end < 0) continue
    if (end + 1 < text.length) socket.unshift(text.subarray(end + 1))
    return text.toString('latin1', 0, end)
  }
}

/** `count` times, at most `width` at once: connect, a few bytes there and back, close. */
export async function connectMany(count, width, dial) {
  let left = count
  const worker = async () => {
    while (left-- > 0) {
      const socket = await dial()
      const failed = new Promise((_, reject) => socket.once('error', reject))
      failed.catch(() => {})
      socket.end('ping')
      let echo = ''
      const reading = (async () => {
        for await (const chunk of chunks(socket)) echo += chunk
      })()
      await Promise.race([reading, failed])
      if (echo !== 'ping') throw new Error(`echo is ${JSON.stringify(echo)}`)
      if (!socket.destroyed) await Promise.race([once(socket, 'close'), failed])
    }
  }
  await Promise.all(Array.from({ length: width }, worker))
}
