// Both ends of the kernel's vsock_test: in two guests, or in one.

const RUN_MS = 240_000
/** Most of its waits end after 10 s; some have no limit. Both ends are ended when neither says anything for so long. */
const SILENCE_MS = 30_000

/**
 * Runs the tests between two ends and resolves with an outcome for each id: `{ passed, ms, output }`, or `{ skipped: why }`.
 * vsock_test ends with the first test that fails, at either end. It is started again for the rest.
 *
 * @param options - `server` and `client`: `{ vm, cid }`. `count`: how many tests there are. `skip`: id → why.
 */
export async function runVsockTest({ server, client, count, skip }) {
  const outcomes = new Map([...skip].map(([id, why]) => [id, { skipped: why }]))
  while (outcomes.size < count) {
    const ends = await runOnce({ server, client, skip: [...outcomes.keys()] })
    const results = ends.map((end) => end.results())
    const open = Array.from({ length: count }, (_, id) => id).filter((id) => !outcomes.has(id))
    if (results.every((result) => !result.has(open[0]))) throw new Error(ends.map((end) => end.report()).join('\n'))
    for (const id of open) {
      const both = results.map((result) => result.get(id))
      const passed = both.every((result) => result?.passed)
      outcomes.set(id, {
        ...{ passed, ms: Math.max(...both.map((result) => result?.ms ?? 0)) },
        output: both.map((result, i) => ends[i].report(result?.text ?? 'not begun')).join('\n'),
      })
      if (!passed) break
    }
  }
  return outcomes
}

/** One run of vsock_test: the server's end, and the client's. */
async function runOnce({ server, client, skip }) {
  const ends = [new End('server', server), new End('client', client)]
  const [first, second] = ends
  let silence
  const onWord = () => {
    clearTimeout(silence)
    silence = setTimeout(() => {
      for (const end of ends) end.stop()
    }, SILENCE_MS)
  }
  onWord()
  first.join(second, onWord)
  second.join(first, onWord)
  try {
    await Promise.all([first.run(client.cid, skip), second.run(server.cid, skip)])
  } finally {
    clearTimeout(silence)
    for (const end of ends) end.leave()
  }
  return ends
}

/** What one end prints, and when; and its half of the control connection. */
class End {
  #mode
  #vm
  #listeners = []
  #printed = []
  #endedAt = 0
  #status

  constructor(mode, { vm }) {
    this.#mode = mode
    this.#vm = vm
    this.#on('output', ({ text }) => this.#printed.push({ text, at: performance.now() }))
  }

  /** Each word of this end goes to the other. */
  join(other, onWord) {
    this.#on('control', ({ text }) => {
      onWord()
      other.#tell('control', { text })
    })
    this.#on('control ended', () => other.#tell('controlEnded'))
  }

  async run(peerCid, skip) {
    const args = [`--peer-cid=${peerCid}`, ...skip.map((id) => `--skip=${id}`)]
    const how = { mode: this.#mode, args, timeoutMs: RUN_MS }
    const { status } = await this.#vm.run('vsockTest', how, { timeoutMs: RUN_MS + 30_000 })
    this.#status = status
    this.#endedAt = performance.now()
  }

  stop() {
    this.#tell('stop')
  }

  leave() {
    for (const [name, listener] of this.#listeners) this.#vm.off(name, listener)
  }

  /** By id: whether this end says ok, what it printed of the test, and how long it took. */
  results() {
    const output = this.#output()
    const begins = [...output.matchAll(/^(\d+) - .+?\.\.\./gm)]
    return new Map(
      begins.map(({ 1: id, index }, i) => {
        const next = begins[i + 1]?.index ?? output.length
        const text = output.slice(index, next).trimEnd()
        // A test that finds its kernel without what it tests says so, and ok.
        const passed = /ok$/m.test(text) && !/skipped/i.test(text)
        return [Number(id), { passed, text, ms: this.#timeOf(next) - this.#timeOf(index) }]
      }),
    )
  }

  report(text = this.#output()) {
    return `${this.#mode}, which ended with ${this.#status}: ${text.trimEnd()}`
  }

  #output() {
    return this.#printed.map(({ text }) => text).join('')
  }

  /** When the text from there on was printed. */
  #timeOf(index) {
    let end = 0
    for (const { text, at } of this.#printed) {
      end += text.length
      if (end > index) return at
    }
    return this.#endedAt
  }

  #on(name, accept) {
    const listener = (event) => {
      if (event.mode === this.#mode) accept(event)
    }
    this.#listeners.push([name, listener])
    this.#vm.on(name, listener)
  }

  #tell(command, options) {
    // The end may be over by now.
    this.#vm.run(command, { mode: this.#mode, ...options }).catch(() => {})
  }
}
