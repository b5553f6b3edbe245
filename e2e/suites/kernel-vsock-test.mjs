// The kernel's own vsock_test: its two ends run in guests whose vsock devices are this process's. Debian's sources of it are built here.
import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { vsockTools } from '../kernel-vsock-test/build.mjs'
import { Guests, LOOPBACK_CID } from '../kernel-vsock-test/guests.mjs'
import { lacking } from '../kernel-vsock-test/lacks.mjs'
import { measure } from '../kernel-vsock-test/perf.mjs'
import { runVsockTest } from '../kernel-vsock-test/vsock-test.mjs'

/** It may take 0.25 s more than it should, which is little for an emulated guest that gets no CPU time. */
const TIGHT = 'SOCK_SEQPACKET timeout'
const TRIES = 3
const CONSOLE_LINES = 20
const NEW = '6.12'
const OLD = '6.1'

const parts = {
  siblings: (suite) => suite.siblings([NEW, NEW]),
  threads: (suite) => suite.threads(NEW),
  mixed: (suite) => suite.siblings([OLD, NEW]),
  lacks: (suite) => suite.lacks(OLD),
  perf: (suite) => suite.perf(NEW),
}

export async function run(checks, _image, { part: only, small = false } = {}) {
  if (only !== undefined && !Object.hasOwn(parts, only))
    throw new Error(`--part is ${JSON.stringify(only)}; there are ${Object.keys(parts).join(', ')}`)
  const tools = await checks.check('vsock_test and vsock_perf are built, or found in the cache', vsockTools)
  if (tools === undefined) return
  const suite = new Suite(checks, tools)
  if (small) await suite.siblings([NEW, NEW], { small })
  else for (const [name, play] of Object.entries(parts)) if (only === undefined || only === name) await play(suite)
  suite.print()
}

class Suite {
  #checks
  #tools
  /** By test: way → outcome. */
  #table

  constructor(checks, tools) {
    this.#checks = checks
    this.#tools = tools
    this.#table = tools.tests.map((test) => ({ test }))
  }

  /** Two guests, each of which is client and server in turn; `small`: one way only. */
  async siblings(kernels, { small = false } = {}) {
    await this.#with({ kernels }, async ({ guests: [first, second], refused }) => {
      const back = first.kernel === second.kernel ? ' (back)' : ''
      await this.#way(`${first.kernel} → ${second.kernel}`, { client: first, server: second, refused })
      if (small) return
      await this.#way(`${second.kernel} → ${first.kernel}${back}`, { client: second, server: first, refused })
      for (const guest of back ? [first] : [first, second]) await this.#ownCid(guest)
    })
  }

  /** Two guests whose devices are in two threads, each in a network of its own. */
  async threads(kernel) {
    await this.#with({ kernels: [kernel, kernel], threads: true }, async ({ guests: [server, client], refused }) => {
      await this.#way(`${kernel} → ${kernel}, over two threads`, { client, server, refused })
    })
  }

  /** The driver sends nothing to its own CID: that is the kernel's loopback's, and without it nobody's. So one guest cannot be both ends. */
  async #ownCid(guest) {
    await this.#checks.check(
      `${guest.kernel}: a guest's own CID is ENODEV in the guest, without the kernel's loopback`,
      async () => {
        const { tests } = this.#tools
        const reset = tests.indexOf('SOCK_STREAM connection reset')
        const outcomes = await runVsockTest({ server: guest, client: guest, count: tests.length, skip: allBut(tests, [reset]) })
        assert.match(outcomes.get(reset).output, new RegExp(`unexpected connect\\(2\\) errno ${constants.errno.ENODEV}$`, 'm'))
      },
    )
  }

  /** What is left out with an older kernel fails over that kernel's own loopback, too. */
  async lacks(kernel) {
    const { tests } = this.#tools
    const skipped = lacking(tests, { client: kernel, server: kernel })
    await this.#with({ kernels: [kernel], loopback: true, device: false }, async ({ guests: [{ vm }] }) => {
      const end = { vm, cid: LOOPBACK_CID }
      const skip = allBut(tests, [...skipped.keys()])
      const outcomes = await runVsockTest({ server: end, client: end, count: tests.length, skip })
      for (const id of skipped.keys()) {
        const { passed, ms, output } = outcomes.get(id)
        const name = `${kernel}, over its own loopback: ${id} ${tests[id]} fails, and is left out above`
        if (passed) this.#checks.failed(name, ms, output)
        else this.#checks.passed(name, ms)
      }
    })
  }

  async perf(kernel) {
    await this.#with({ kernels: [kernel, kernel], loopback: true }, async ({ guests }) => {
      const rows = await this.#checks.check(`vsock_perf, ${kernel}: the bytes arrive`, () => measure(guests))
      if (rows) console.table(rows)
    })
  }

  async #with(options, use) {
    const booted = `${options.kernels.join(' and ')}: booted`
    const guests = await this.#checks.check(booted, () => Guests.start({ tools: this.#tools, ...options }))
    if (guests === undefined) return
    try {
      await use(guests)
    } finally {
      await guests.close()
    }
  }

  /** All tests with these ends: a check for each, and a column of the table. */
  async #way(way, { client, server, refused }) {
    const { tests } = this.#tools
    const skip = lacking(tests, { client: client.kernel, server: server.kernel })
    refused.length = 0
    const run = (skip) => runVsockTest({ server, client, count: tests.length, skip })
    const outcomes = await this.#checks.check(`${way}: vsock_test runs to its end`, () => run(skip))
    if (outcomes === undefined) return printConsoles(client, server)
    const tight = tests.indexOf(TIGHT)
    for (let i = 0; i < TRIES && outcomes.get(tight)?.passed === false; i++) {
      console.log(`# ${way}: ${TIGHT} failed and is run alone:\n${outcomes.get(tight).output}`)
      outcomes.set(tight, (await run(allBut(tests, [tight]))).get(tight))
    }
    for (const id of tests.keys()) this.#count(way, id, outcomes.get(id))
    if (![...outcomes.values()].some(({ passed }) => passed === false)) return
    console.log(`# ${way}: refused by the network: ${JSON.stringify(refused)}`)
    printConsoles(client, server)
  }

  #count(way, id, { skipped, passed, ms, output }) {
    const row = this.#table[id]
    const name = `${way}: ${id} ${this.#tools.tests[id]}`
    if (skipped) {
      row[way] = 'skipped'
      console.log(`# ${name} is skipped: ${skipped}`)
    } else if (passed) {
      row[way] = 'ok'
      this.#checks.passed(name, ms)
    } else {
      row[way] = 'FAILED'
      this.#checks.failed(name, ms, output)
    }
  }

  print() {
    if (Object.keys(this.#table[0]).length > 1) console.table(this.#table)
  }
}

/** What to skip so that only these tests run. */
function allBut(tests, ids) {
  return new Map(tests.flatMap((_, id) => (ids.includes(id) ? [] : [[id, 'it is not asked for']])))
}

function printConsoles(...ends) {
  for (const { vm, cid } of ends) {
    console.log(`# the end of the console of guest ${cid}:`)
    for (const line of vm.console.tail(CONSOLE_LINES)) console.log(`  | ${line}`)
  }
}
