// What each end of a connection does and sees, in the order in which that end does and sees it. There is no order between two logs:
// where one end has to act after the other has seen something, its scene waits for that.
import { createHash } from 'node:crypto'

/** Longer texts are logged as their length and their hash. */
const SHORT = 60

export class Log {
  /** @type {string[]} */
  lines = []
  /** Bytes in all 'data' lines. */
  bytes = 0
  #frozen = false
  /** @type {{ length: number, hash: import('node:crypto').Hash, text: string } | undefined} */
  #run
  /** @type {Set<() => void>} */
  #waiting = new Set()

  /** @param {string} line */
  note(line) {
    if (this.#frozen) return
    this.#run = undefined
    this.lines.push(line)
    this.#wake()
  }

  /** Bytes that follow each other are one line, whatever pieces they came in. @param {Uint8Array | string} chunk */
  data(chunk) {
    if (this.#frozen) return
    const bytes = Buffer.from(chunk)
    this.#run ??= { length: 0, hash: createHash('sha256'), text: '' }
    const run = this.#run
    if (run.length === 0) this.lines.push('')
    run.length += bytes.length
    run.hash.update(bytes)
    if (run.length <= SHORT) run.text += bytes.toString('latin1')
    const shown =
      run.length <= SHORT ? JSON.stringify(run.text) : `${run.length} bytes, ${run.hash.copy().digest('hex').slice(0, 8)}`
    this.lines[this.lines.length - 1] = `data ${shown}`
    this.bytes += bytes.length
    this.#wake()
  }

  /** @param {string} event the beginning of a line, up to a space @param {number} [times] */
  saw(event, times = 1) {
    return this.until(() => this.count(event) >= times)
  }

  /** The same, or the end of the connection, after which it cannot come. @param {string} event */
  sawOrClosed(event) {
    return this.until(() => this.count(event) + this.count('close') > 0)
  }

  /** @param {string} event */
  count(event) {
    return this.lines.filter((line) => line === event || line.startsWith(`${event} `)).length
  }

  /** Or sees the end of the connection. @param {number} bytes */
  heard(bytes) {
    return this.until(() => this.bytes >= bytes || this.count('close') > 0)
  }

  /** @param {() => boolean} holds @returns {Promise<void>} */
  until(holds) {
    return new Promise((resolve) => {
      const look = () => {
        if (!holds()) return
        this.#waiting.delete(look)
        resolve()
      }
      this.#waiting.add(look)
      look()
    })
  }

  /** What comes later belongs to no scene. */
  freeze() {
    this.#frozen = true
  }

  #wake() {
    for (const look of [...this.#waiting]) look()
  }
}

/** @param {unknown} error */
export function codeOf(error) {
  if (error === undefined || error === null) return String(error)
  const { code, name, message } = /** @type {NodeJS.ErrnoException} */ (error)
  return code ?? (message === '' ? name : message)
}

/** A callback that logs its error. @param {Log} log @param {string} what @returns {(error?: unknown) => void} */
export function noting(log, what) {
  return (error) => log.note(`${what} ${codeOf(error)}`)
}

/** What a program can ask a socket. @param {import('node:net').Socket} socket */
export function stateOf(socket) {
  const { readyState, connecting, pending, destroyed, readable, writable, bytesRead, bytesWritten, timeout } = socket
  const flags = [
    readyState,
    connecting ? 'connecting' : '',
    pending ? 'pending' : '',
    destroyed ? 'destroyed' : '',
    `${readable ? 'r' : '-'}${writable ? 'w' : '-'}`,
    `in ${bytesRead}`,
    `out ${bytesWritten}`,
    timeout ? `timeout ${timeout}` : '',
  ]
  return flags.filter((flag) => flag !== '').join(' ')
}

/**
 * Logs what a socket emits, and its state then.
 *
 * @param {Log} log
 * @param {import('node:net').Socket} socket
 * @param {{ data?: boolean, state?: boolean, errors?: boolean }} [how] `data`: makes the socket flow
 */
export function watch(log, socket, { data = true, state = true, errors = true } = {}) {
  /** @param {string} event */
  const note = (event) => log.note(state ? `${event} | ${stateOf(socket)}` : event)
  for (const event of ['connect', 'ready', 'end', 'finish', 'timeout', 'drain']) socket.on(event, () => note(event))
  socket.on('close', (hadError) => note(`close ${hadError}`))
  if (errors) socket.on('error', (error) => note(`error ${codeOf(error)}`))
  if (data) socket.on('data', (chunk) => log.data(chunk))
  return log
}
