import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MessageChannel, Worker } from 'node:worker_threads'
import { createVsockNetwork } from '@upcall/vhost-user'
import { consoleLog } from '../guest-tests.mjs'
import { guestImage } from '../image.mjs'
import { fillPayload } from '../payload.mjs'
import { Vm } from '../vhost-user/vm.mjs'

const FIRST_CID = 42
const VIRTIO = 'vmw_vsock_virtio_transport'
const LOOPBACK = 'vsock_loopback'
export const LOOPBACK_CID = 1

/**
 * Guests with the kernel's programs in them. Their vsock devices are those of one network. `loopback`: each guest has its kernel's own
 * loopback, too. `device: false`: that alone.
 * `threads`: each of two guests has its device in a network and a worker thread of its own, and the two are linked.
 */
export class Guests {
  #folder = mkdtempSync(join(tmpdir(), 'upcall-vsock-test-'))
  #network
  #threads = []
  /** `{ vm, cid, kernel }` each. */
  guests = []
  /** What the network refused, in order. */
  refused = []

  static async start({ tools, kernels, loopback = false, device = true, threads = false }) {
    const guests = new Guests()
    try {
      await guests.#start(tools, kernels, { device, threads, modules: [...(loopback ? [LOOPBACK] : []), VIRTIO] })
      return guests
    } catch (error) {
      await guests.close()
      throw error
    }
  }

  async #start({ vsockTest, vsockPerf }, kernels, { device, threads, modules }) {
    const payloadDir = join(this.#folder, 'payload')
    fillPayload(payloadDir, { programs: ['guest/kernel-vsock-test', 'guest/commands.mjs', vsockTest, vsockPerf], packages: [] })
    const ends = kernels.map((kernel, i) => ({ kernel, cid: FIRST_CID + i, socketPath: join(this.#folder, `vhost-${i}`) }))
    if (device) {
      const devices = ends.map(({ cid, socketPath }) => ({ guestCid: cid, socketPath }))
      if (threads) await this.#startThreads(devices)
      else {
        this.#network = await createVsockNetwork({ devices })
        this.#network.on('refused', (refusal) => this.refused.push(refusal))
      }
    }
    // One boot at a time.
    for (const { kernel, cid, socketPath } of ends) {
      const image = await guestImage({ kernel })
      const log = consoleLog(`kernel-vsock-test-${cid}`)
      const vm = await Vm.start({ image, payloadDir, modules, log, ...(device && { socketPath }) })
      this.guests.push({ vm, cid, kernel })
    }
  }

  async #startThreads(devices) {
    const { port1, port2 } = new MessageChannel()
    for (const [i, link] of [port1, port2].entries()) {
      const workerData = { devices: [devices[i]], link }
      const thread = new Worker(new URL('network-thread.mjs', import.meta.url), { workerData, transferList: [link] })
      this.#threads.push(thread)
      thread.on('message', ({ refused }) => refused && this.refused.push(refused))
      await once(thread, 'message')
    }
  }

  async close() {
    for (const { vm } of this.guests) await vm.close()
    await this.#network?.close()
    for (const thread of this.#threads) {
      const ended = once(thread, 'exit')
      thread.postMessage('close')
      await ended
    }
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
