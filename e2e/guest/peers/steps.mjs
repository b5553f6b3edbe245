// The steps of a guest peer (peers/rust/guest-peer, peers/python/peer.py), taken by a socket of @upcall/vsock: the same on the host
// and in the guest.
import { setTimeout as delay } from 'node:timers/promises'

/** The bytes of each direction count on, so that a lost or doubled byte is seen. */
const PERIOD = 251
const BLOCK = 65_536
const pattern = Buffer.from(Array.from({ length: BLOCK + PERIOD }, (_, at) => at % PERIOD))

/**
 * Takes the steps, one after the other, and resolves with what came of them: `sent`, `received`, `wrong`, `ended`, and `sendError` or
 * `error` with the step that failed.
 *
 * @param steps - `send:<bytes>`, `recv:<bytes>`, `recv-end`, `send-error`, `shutdown:write`, `pause:<ms>`, `close`, and
 * `no-end:<ms>`, which fails if the peer ends within that time
 */
export async function takeSteps(socket, steps) {
  const outcome = { sent: 0, received: 0, wrong: 0, ended: false }
  const reader = new Reader(socket)
  for (const step of steps) {
    try {
      await take(socket, reader, step, outcome)
    } catch (error) {
      outcome.error = { step, code: error.code ?? error.message }
      break
    }
  }
  // The socket closes as soon as its peer does.
  socket.resume().end()
  return outcome
}

async function take(socket, reader, step, outcome) {
  const [name, argument] = step.split(':')
  if (name === 'send') await send(socket, Number(argument), outcome)
  else if (name === 'recv') await receive(reader, Number(argument), outcome)
  else if (name === 'recv-end') await receive(reader, undefined, outcome)
  else if (name === 'send-error') outcome.sendError = await failure(socket, outcome)
  else if (name === 'shutdown') await new Promise((resolve) => socket.end(resolve))
  else if (name === 'no-end') await reader.noEnd(Number(argument))
  else if (name === 'pause') await delay(Number(argument))
  else if (name === 'close') socket.destroy()
  else throw new Error(`unknown step: ${step}`)
}

async function send(socket, count, outcome) {
  for (let left = count; left > 0; ) {
    const start = outcome.sent % PERIOD
    const block = pattern.subarray(start, start + Math.min(BLOCK, left))
    await new Promise((resolve, reject) => socket.write(block, (error) => (error ? reject(error) : resolve())))
    left -= block.length
    outcome.sent += block.length
  }
}

/** Sends bytes one by one until that fails, and tells with what. */
async function failure(socket, outcome) {
  for (;;) {
    try {
      await send(socket, 1, outcome)
    } catch ({ code }) {
      return code
    }
    await delay(5)
  }
}

async function receive(reader, count, outcome) {
  for (let left = count ?? Number.POSITIVE_INFINITY; left > 0; ) {
    const chunk = await reader.next(left)
    if (chunk === undefined) {
      outcome.ended = true
      if (count === undefined) return
      throw new Error('end')
    }
    const start = outcome.received % PERIOD
    for (let at = 0; at < chunk.length; at += BLOCK) {
      const part = chunk.subarray(at, at + BLOCK)
      const from = (start + at) % PERIOD
      if (!part.equals(pattern.subarray(from, from + part.length))) outcome.wrong += 1
    }
    outcome.received += chunk.length
    left -= chunk.length
  }
}

/** Reads on demand: unread bytes stay in the kernel. */
class Reader {
  #socket
  #error
  #ended = false
  #wake = () => {}

  constructor(socket) {
    this.#socket = socket
    socket.on('error', (error) => this.#changed({ error }))
    socket.on('end', () => this.#changed({ ended: true }))
    socket.on('close', () => this.#changed({ ended: true }))
    socket.on('readable', () => this.#wake())
  }

  /** At most that many bytes; undefined at the end. */
  async next(most) {
    for (;;) {
      const available = this.#socket.readableLength
      const chunk = available > 0 ? this.#socket.read(Math.min(available, most)) : null
      if (chunk !== null) return chunk
      if (this.#error) throw this.#error
      if (this.#ended) return undefined
      // An end without bytes is only seen by those who read.
      this.#socket.read(0)
      await new Promise((resolve) => (this.#wake = resolve))
    }
  }

  async noEnd(ms) {
    const deadline = performance.now() + ms
    while (performance.now() < deadline) {
      this.#socket.read(0)
      if (this.#ended || this.#error) throw this.#error ?? new Error('end')
      await delay(20)
    }
  }

  #changed({ error, ended }) {
    this.#error ??= error
    this.#ended ||= ended === true
    this.#wake()
  }
}
