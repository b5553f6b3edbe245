// A guest in which another's program holds one end of each connection, and a socket of @upcall/vsock the other: in the same guest over
// loopback, or on the host through the vhost-user device.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, listen } from '@upcall/vsock'
import { takeSteps } from '../guest/peers/steps.mjs'
import { consoleLog } from '../guest-tests.mjs'
import { fillPayload } from '../payload.mjs'
import { serveDevice } from '../vhost-user/scene.mjs'
import { Vm } from '../vhost-user/vm.mjs'

const GUEST_CID = 43
const [LOCAL, HOST] = [1, 2]
const CASE_MS = 120_000

/** Who does what. `theirs` and `ours` are the steps of each end; each end sent what the other got, unless `expects` says otherwise. */
const cases = [
  {
    name: 'shutdown(SHUT_WR), and the answer still comes',
    halfClose: true,
    theirs: ['send:300000', 'shutdown:write', 'recv-end', 'close'],
    ours: ['recv-end', 'send:300000', 'shutdown:write'],
  },
  {
    name: 'our end(), and the answer still comes',
    halfClose: true,
    theirs: ['recv-end', 'send:300000', 'close'],
    ours: ['send:300000', 'shutdown:write', 'recv-end'],
  },
  {
    name: 'bytes both ways in turn, then close',
    theirs: ['send:100000', 'recv:100000', 'send:50000', 'close'],
    ours: ['recv:100000', 'send:100000', 'recv-end'],
  },
  {
    name: 'close with bytes waiting: all of them arrive',
    theirs: ['send:150000', 'close'],
    ours: ['pause:500', 'recv-end'],
  },
  {
    name: 'our close with bytes waiting: all of them arrive',
    theirs: ['pause:500', 'recv-end', 'close'],
    ours: ['send:150000', 'close'],
  },
  {
    name: 'shutdown(SHUT_RDWR): our end reads the end, and writing fails',
    theirs: ['send:1000', 'shutdown:both', 'pause:500', 'close'],
    ours: ['recv-end', 'send-error'],
    expects: { theirs: { received: 0, ended: false }, ours: { ended: true, sendError: /^(EPIPE|ECONNRESET)$/ } },
  },
  {
    name: 'shutdown(SHUT_RD): what they send still arrives',
    theirs: ['shutdown:read', 'send:100000', 'close'],
    ours: ['recv-end'],
  },
  {
    name: 'shutdown(SHUT_RD): our writing fails',
    places: ['loopback'],
    theirs: ['shutdown:read', 'pause:1000', 'close'],
    ours: ['send-error'],
    expects: { theirs: { received: 0, ended: false }, ours: { sendError: /^EPIPE$/ } },
  },
  {
    name: 'close with bytes that they did not read: our end learns of it',
    theirs: ['pause:500', 'close'],
    ours: ['send:50000', 'recv-end'],
    expects: { theirs: { received: 0, ended: false }, ours: {}, mayFail: /^(ECONNRESET|EPIPE)$/ },
  },
  {
    name: '4 MiB to a late reader',
    theirs: ['send:4194304', 'close'],
    ours: ['pause:1500', 'recv-end'],
  },
  {
    name: '4 MiB from our end to a late reader',
    theirs: ['pause:1500', 'recv-end', 'close'],
    ours: ['send:4194304', 'shutdown:write'],
  },
]

export class PeerGuest {
  #folder = mkdtempSync(join(tmpdir(), 'upcall-peer-'))
  #device
  #vm
  #port = 7000

  /**
   * @param options - `programs`: files of the payload, besides the harness. `device(paths)` serves another device; default: ours.
   * `halfClose`: whether that device passes the end of one direction on. `refusal`: what the guest's connecting fails with where
   * nothing listens on the host.
   */
  static async start({ image, programs, name, device = ours, halfClose = true, refusal = 'ECONNRESET' }) {
    const guest = new PeerGuest()
    guest.halfClose = halfClose
    guest.refusal = refusal
    const payloadDir = join(guest.#folder, 'payload')
    const socketPath = join(guest.#folder, 'vhost')
    try {
      fillPayload(payloadDir, { programs: ['guest/peers', ...programs], packages: ['@upcall/vsock'] })
      guest.#device = await device({ socketPath, hybridPath: guest.hybridPath, guestCid: GUEST_CID })
      guest.#vm = await Vm.start({ image, payloadDir, socketPath, log: consoleLog(name), timeoutMs: 1_200_000 })
      return guest
    } catch (error) {
      await guest.close()
      throw error
    }
  }

  get hybridPath() {
    return join(this.#folder, 'vsock')
  }

  async close() {
    await this.#vm?.close()
    await this.#device?.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** A port that was not used before. */
  nextPort() {
    return ++this.#port
  }

  /** Starts a program in the guest; the promise that resolves tells what came of it. */
  async start(argv, { listens = false } = {}) {
    const { id } = await this.#vm.run('program', { argv: argv.map(String), listens }, { timeoutMs: CASE_MS })
    const outcome = this.#vm.run('outcome', { of: id }, { timeoutMs: CASE_MS })
    outcome.catch(() => {})
    return { outcome }
  }

  /** Both ends of one connection, each with its steps; resolves with what came of them. */
  async play({ command, place, connector, theirs, ours, halfClose = this.halfClose }) {
    const port = this.nextPort()
    const local = place === 'loopback'
    if (connector === 'theirs') {
      const ourEnd = local ? await this.#serve(port, ours) : await this.#hostServe(port, ours, halfClose)
      const program = await this.start([...command, 'connect', local ? LOCAL : HOST, port, ...theirs])
      return both(program.outcome, ourEnd.outcome)
    }
    const program = await this.start([...command, 'listen', port, ...theirs], { listens: true })
    const dial = { cid: LOCAL, port, steps: ours }
    return both(
      program.outcome,
      local ? this.#vm.run('dial', dial, { timeoutMs: CASE_MS }) : this.hostDial(port, ours, halfClose),
    )
  }

  async #serve(port, steps) {
    const { id } = await this.#vm.run('serve', { port, steps })
    const outcome = this.#vm.run('outcome', { of: id }, { timeoutMs: CASE_MS })
    outcome.catch(() => {})
    return { outcome }
  }

  async #hostServe(port, steps, halfClose) {
    const server = await listen(`hvsock://${this.hybridPath}:${port}`, { allowHalfOpen: true, halfClose })
    const outcome = new Promise((resolve, reject) => {
      server.once('connection', (socket) => {
        void server.close()
        takeSteps(socket, steps).then(resolve, reject)
      })
    })
    outcome.catch(() => {})
    return { outcome }
  }

  async hostDial(port, steps, halfClose = this.halfClose) {
    try {
      const options = { allowHalfOpen: true, halfClose, timeoutMs: 20_000 }
      return await takeSteps(await connect(`hvsock://${this.hybridPath}:${port}`, options), steps)
    } catch ({ code }) {
      return { error: { step: 'connect', code } }
    }
  }
}

/** Each case from either end, and what is refused. `places`: `loopback`, `host`. */
export async function playAll(checks, guest, { name, command, places, small = false }) {
  for (const place of places) {
    for (const each of cases) {
      if (each.places && !each.places.includes(place)) continue
      if (each.halfClose && place === 'host' && !guest.halfClose) continue
      for (const connector of small ? ['theirs'] : ['theirs', 'ours']) {
        const who = connector === 'theirs' ? 'it connects' : 'it listens'
        await checks.check(`${name}, ${place}, ${who}: ${each.name}`, async () => {
          judge(each, await guest.play({ command, place, connector, ...each }))
        })
      }
    }
    await checks.check(`${name}, ${place}: without a listener, connecting fails`, async () => {
      const cid = place === 'loopback' ? LOCAL : HOST
      const { outcome } = await guest.start([...command, 'connect', cid, guest.nextPort(), 'send:1'])
      assert.deepEqual((await outcome).error, { step: 'connect', code: place === 'host' ? guest.refusal : 'ECONNRESET' })
    })
  }
}

function judge({ ours, theirs, expects = {} }, outcome) {
  const told = JSON.stringify(outcome)
  for (const [end, steps, other] of [
    ['ours', ours, outcome.theirs],
    ['theirs', theirs, outcome.ours],
  ]) {
    const { error, sendError, wrong, ...rest } = outcome[end]
    if (error && !expects.mayFail?.test(error.code)) assert.fail(told)
    assert.equal(wrong, 0, told)
    const { sendError: expectedError, ...expected } = expects[end] ?? { received: other.sent, ended: steps.includes('recv-end') }
    for (const [key, value] of Object.entries(expected)) assert.equal(rest[key], value, `${end}.${key}: ${told}`)
    if (expectedError) assert.match(sendError, expectedError, told)
  }
}

async function both(theirs, ours) {
  const [a, b] = await Promise.all([theirs, ours])
  return { theirs: a, ours: b }
}

function ours({ socketPath, hybridPath, guestCid }) {
  return serveDevice({ socketPath, hybridPath, guestCid })
}
