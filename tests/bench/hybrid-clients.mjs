// The work of `peers.mjs` as Node's clients of a hybrid socket do it; e2e/peers/go/peer/bench.go does the same.
import { once } from 'node:events'
import { connect as netConnect } from 'node:net'
import { DeviceManager } from '@upcall/device-manager'
import { connect } from '@upcall/vsock'
import { encodeRequest } from '@upcall/wire'
import { pingPong } from './measure.mjs'

export const PORTS = { echo: 5000, discard: 5001, source: 5002, upcall: 219 }
const BLOCK = Buffer.alloc(64 * 1024)
const MESSAGE = 1024
export const WINDOW = { base: 0xd000_0000n, size: 0x1000n, irq: 6 }

export const dials = {
  async 'net.Socket'(path, port) {
    const socket = netConnect({ path, allowHalfOpen: true })
    socket.write(`CONNECT ${port}\n`)
    await once(socket, 'readable')
    socket.read()
    return socket
  },
  '@upcall/vsock': (path, port) => connect(`hvsock://${path}:${port}`, { halfClose: true, allowHalfOpen: true }),
}

/** `dial(port)`, and how much: connections, round trips, or bytes. */
export const works = {
  async connect(dial, count) {
    for (let i = 0; i < count; i++) (await dial(PORTS.echo)).destroy()
  },
  async 'ping-pong'(dial, rounds) {
    const socket = await dial(PORTS.echo)
    await pingPong(socket, rounds)
    socket.destroy()
  },
  async send(dial, bytes) {
    const socket = await dial(PORTS.discard)
    for (let sent = 0; sent < bytes; sent += BLOCK.length) if (!socket.write(BLOCK)) await once(socket, 'drain')
    // The server has read everything when it closes.
    socket.end().resume()
    await once(socket, 'end')
    socket.destroy()
  },
  async receive(dial, bytes) {
    const socket = await dial(PORTS.source)
    let received = 0
    await new Promise((resolve) => {
      socket.on('data', (chunk) => {
        received += chunk.length
        if (received >= bytes) resolve()
      })
    })
    socket.destroy()
  },
}

/** Requests of ADD_MMIO, one after the other; the server answers all of them with success. */
export const requesters = {
  async 'net.Socket'(path, count) {
    const socket = await dials['net.Socket'](path, PORTS.upcall)
    socket.write('d')
    await reply(socket)
    const request = encodeRequest({ type: 'ADD_MMIO', ...WINDOW }, 'x86_64')
    return timed(count, async () => {
      socket.write(request)
      await reply(socket)
    }).finally(() => socket.destroy())
  },
  async DeviceManager(path, count) {
    const manager = new DeviceManager({
      arch: 'x86_64',
      dial: ({ signal }) => connect(`hvsock://${path}:${PORTS.upcall}`, { signal }),
    })
    await manager.ready({ timeoutMs: 5_000 })
    return timed(count, () => manager.addMmio(WINDOW)).finally(() => manager.close())
  },
}

async function reply(socket) {
  for (let got = 0; got < MESSAGE; ) {
    const chunk = socket.read()
    if (chunk === null) await once(socket, 'readable')
    else got += chunk.length
  }
}

async function timed(count, run) {
  for (let i = 0; i < count / 10; i++) await run()
  const [start, cpu] = [performance.now(), process.cpuUsage()]
  for (let i = 0; i < count; i++) await run()
  return { seconds: (performance.now() - start) / 1000, cpu: cpuSeconds(cpu) }
}

export function cpuSeconds(since) {
  const { user, system } = process.cpuUsage(since)
  return (user + system) / 1e6
}
