// SEQPACKET sockets of Unix joined with a guest's: what two programs see that use them through a vhost-user device.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connectSeqpacket, listenHybrid, listenSeqpacket, type SeqpacketSocket } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { world } from '../packages/vhost-user/testing/ends.js'
import { binding, cleanups, folder } from '../packages/vhost-user/testing/scene.js'

// The build of this checkout, for Unix sockets alone: nothing here connects over AF_VSOCK.
const addon = fileURLToPath(new URL('../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))
const built = existsSync(addon) && binding !== undefined
if (built) process.env.UPCALL_VSOCK_ADDON = addon

const TYPE_SEQPACKET = 2
const bytes = (text: string) => new TextEncoder().encode(text)

/** A guest that has connected to port 80, and the program on the host that it is joined with. */
async function joined() {
  const programs: SeqpacketSocket[] = []
  const path = (port: number) => join(folder, `vm_${port}`)
  const server = await listenSeqpacket(`unix+seq:${path(80)}`)
  cleanups.push(() => server.close())
  server.on('connection', (socket) => programs.push(socket))
  const refused: string[] = []
  const scene = await world(async (port, { type, signal }) => {
    if (type === 'seqpacket') return connectSeqpacket(`unix+seq:${path(port)}`, { signal, timeoutMs: 20_000 })
    refused.push(type)
    return undefined
  })
  const socket = scene.guest.connect(80, TYPE_SEQPACKET)
  await scene.guest.until(() => socket.state === 'open' && programs.length === 1)
  return { ...scene, socket, program: programs[0]! }
}

describe.skipIf(!built)('SEQPACKET sockets of Unix, joined with a guest', () => {
  // Linux drops MSG_EOR on Unix sockets: no receiver sees it.
  it('messages both ways, whole, and the end of each', async () => {
    const { guest, device, socket, program } = await joined()
    const lengths = [1, 300, 4096, 60_000]
    for (const length of lengths) socket.sendMessage(new Uint8Array(length).fill(length & 0xff), { eor: length === 300 })
    const got: [number, boolean][] = []
    const answering = (async () => {
      for (let message = await program.receive(); message !== undefined; message = await program.receive()) {
        got.push([message.data.length, message.eor])
        await program.send(message.data, { eor: message.eor })
      }
      await program.send(bytes('that is all'))
      program.end()
    })()
    await guest.until(() => socket.messages.length === lengths.length)
    socket.shutdown(2)
    await guest.until(() => socket.end === 'shutdown')
    await answering
    expect(got).toEqual(lengths.map((length) => [length, false]))
    expect(socket.messages.map(({ data, eor }) => [data.length, eor])).toEqual([...got, [11, false]])
    expect(Buffer.from(socket.messages[3]!.data)).toEqual(Buffer.alloc(60_000, 60_000 & 0xff))
    socket.close()
    await guest.until(() => device.connections === 0)
    await program.closed
    expect(program.errored).toBeNull()
  })

  it('a program that closes gives the guest everything and the end', async () => {
    const { guest, device, socket, program } = await joined()
    await program.send(bytes('one'))
    await program.send(bytes('two'))
    program.destroy()
    await guest.until(() => device.connections === 0)
    expect(socket.messages.map(({ data }) => new TextDecoder().decode(data))).toEqual(['one', 'two'])
    expect(socket.end).toBe('shutdown')
  })
})

describe.skipIf(!built)('the draft of hybrid vsock for messages, in front of a device', () => {
  /** A program on the host that has dialled port 5000 of the guest. */
  async function dialled(refuses = false) {
    const scene = await world()
    const path = join(folder, 'vm')
    const server = await listenHybrid({
      path,
      handshakeTimeoutMs: 30_000,
      route: (port, { signal }) => scene.device.connect(port, { signal }),
      routeSeqpacket: (port, { signal }) => scene.device.connectSeqpacket(port, { signal }),
    })
    cleanups.push(() => server.close())
    const accepted = scene.guest.accepted((socket) => refuses && socket.reset())
    const fate: { program?: SeqpacketSocket; code?: unknown } = {}
    void connectSeqpacket(`hvsock+seq://${path}:5000`, { timeoutMs: 20_000 }).then(
      (it) => (fate.program = it),
      (error: NodeJS.ErrnoException) => (fate.code = error.code),
    )
    const socket = await accepted
    await scene.guest.until(() => fate.program !== undefined || fate.code !== undefined)
    return { ...scene, socket, ...fate }
  }

  it('a program that dials the guest exchanges messages with it', async () => {
    const { guest, device, socket, program } = await dialled()
    expect(socket.type).toBe(TYPE_SEQPACKET)
    await program!.send(bytes('ping'))
    await guest.until(() => socket.messages.length === 1)
    expect(socket.messages[0]!.data).toEqual(Buffer.from('ping'))
    socket.sendMessage(bytes('pong'))
    socket.close()
    await guest.until(() => device.connections === 0)
    expect((await program!.receive())?.data).toEqual(bytes('pong'))
    expect(await program!.receive()).toBeUndefined()
  })

  it('a guest where nothing listens is a refusal', async () => {
    const { code } = await dialled(true)
    expect(code).toBe('ECONNREFUSED')
  })
})
