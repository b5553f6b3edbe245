// Two guests of one network: Go's tests have both ends of their connections in one of them, and `upcall vsock forward` in the other guest
// takes the one and dials the other. So each byte goes from guest to guest, twice.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createVsockNetwork } from '@upcall/vhost-user'
import { checkIntegration, passed, TEST_CONN } from '../../guest/go-tests.mjs'
import { consoleLog } from '../../guest-tests.mjs'
import { guestImage } from '../../image.mjs'
import { fillPayload } from '../../payload.mjs'
import { Vm } from '../../vhost-user/vm.mjs'

const CIDS = { tests: 42, relay: 43 }
const [RELAYED, ACCEPTED] = [7000, 7001]
const UPCALL = ['node', 'node_modules/upcall/dist/main.js']
const TESTS_MS = 240_000

export async function run(checks, { testConn, relayedTests }, { small = false } = {}) {
  for (const [tests, relay] of small
    ? [['6.12', '6.12']]
    : [
        ['6.12', '6.12'],
        ['6.1', '6.12'],
        ['6.12', '6.1'],
      ]) {
    const pair = await checks.check(`guests with kernels ${tests} and ${relay}: booted, and one of them relays`, () =>
      Pair.start({ tests, relay }, [testConn, relayedTests]),
    )
    if (pair === undefined) continue
    const ways = `mdlayher/vsock in a ${tests} guest, forward in a ${relay} guest`
    try {
      // The integration tests have the eleven among them.
      for (const [way, swap] of Object.entries(small ? {} : { 'the dialer first': '0', 'the listener first': '1' }))
        await checks.check(`nettest.TestConn, ${ways}, ${way}: all eleven`, () => pair.testConn(swap))
      await checks.check(`mdlayher/vsock's own integration tests, ${ways}`, () => pair.integration())
    } finally {
      await pair.close()
    }
  }
}

class Pair {
  #folder = mkdtempSync(join(tmpdir(), 'upcall-peers-'))
  #network
  #vms = {}

  static async start(kernels, programs) {
    const pair = new Pair()
    try {
      await pair.#start(kernels, programs)
      return pair
    } catch (error) {
      await pair.close()
      throw error
    }
  }

  async #start(kernels, programs) {
    const payloadDir = join(this.#folder, 'payload')
    fillPayload(payloadDir, { programs: ['guest/peers-between', 'guest/commands.mjs', ...programs], packages: ['upcall'] })
    this.#network = await createVsockNetwork()
    for (const [role, guestCid] of Object.entries(CIDS)) {
      const socketPath = join(this.#folder, role)
      await this.#network.add({ guestCid, socketPath })
      const image = await guestImage({ kernel: kernels[role] })
      this.#vms[role] = await Vm.start({ image, payloadDir, socketPath, log: consoleLog(`peers-go-${role}`) })
    }
    const forward = ['--json', 'vsock', 'forward', `vsock://any:${RELAYED}`, `vsock://${CIDS.tests}:${ACCEPTED}`]
    await this.#vms.relay.run('serve', { command: [...UPCALL, ...forward], ready: '"listening"' })
  }

  async testConn(swap) {
    const env = { UPCALL_DIAL: `vsock:${CIDS.relay}:${RELAYED}`, UPCALL_LISTEN: `vsock:${ACCEPTED}`, UPCALL_SWAP: swap }
    const output = await this.#test(['./testconn', '-test.v'], env)
    assert.deepEqual(passed(output.stdout, 'TestConn/'), TEST_CONN, JSON.stringify(output, undefined, 1))
  }

  async integration() {
    const ports = { UPCALL_LISTEN_PORT: `${ACCEPTED}`, UPCALL_DIAL_CID: `${CIDS.relay}`, UPCALL_DIAL_PORT: `${RELAYED}` }
    const { stdout, stderr } = await this.#test(['./relayed-tests', '-test.v', '-test.run=Integration'], ports)
    checkIntegration(stdout, stderr)
  }

  #test(command, env) {
    return this.#vms.tests.run('finish', { command, env, timeoutMs: TESTS_MS }, { timeoutMs: TESTS_MS + 30_000 })
  }

  async close() {
    for (const vm of Object.values(this.#vms)) await vm.close()
    await this.#network?.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
