import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors, sockaddrUnix } from '../testing/addon.js'
import { bindDatagram, type VsockDatagramSocket } from './datagram.js'
import type { Binding, Descriptor } from './native/binding.js'
import * as loader from './native/loader.js'
import { decodeSockaddrVm, encodeSockaddrVm } from './native/sockaddr.js'

// VMCI made of AF_UNIX: what the kernel answered in a guest. The real one: e2e/guest/vsock/datagram.mjs.

vi.mock('./native/loader.js', { spy: true })

const addon = addonIfBuilt()
const sockets: VsockDatagramSocket[] = []
let next = 1024

function standIn(binding: Binding): Binding {
  const bound = new Map<Descriptor, number>()
  const unix = (port: number) => sockaddrUnix(`upcall-datagram-${process.pid}-${port}`)

  return {
    ...binding,
    typedSocket: (_family, type) => binding.typedSocket(binding.AF_UNIX, type),
    bind(descriptor, sockaddr) {
      const asked = decodeSockaddrVm(sockaddr).port
      const port = asked === 0xffff_ffff ? next++ : asked
      binding.bind(descriptor, unix(port))
      bound.set(descriptor, port)
    },
    getsockname: (descriptor) => encodeSockaddrVm({ cid: 0xffff_ffff, port: bound.get(descriptor)! }),
    sendMessage: (descriptor, bytes, eor, to) =>
      binding.sendMessage(descriptor, bytes, eor, to && unix(decodeSockaddrVm(to).port)),
    receiveMessage(descriptor, limit) {
      const message = binding.receiveMessage(descriptor, limit)
      const port = Number(/-(\d+)$/.exec(Buffer.from(message?.from ?? []).toString('latin1'))?.[1])
      return message && { ...message, from: encodeSockaddrVm({ cid: 2, port }) }
    },
  }
}

beforeEach(() => {
  if (addon) vi.mocked(loader.loadBinding).mockReturnValue(standIn(addon))
})
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close()
})

async function bind(address = 'vsock://any:any', signal?: AbortSignal): Promise<VsockDatagramSocket> {
  const socket = await bindDatagram(address, { signal })
  sockets.push(socket)
  return socket
}

const failing = (code: string) => () => {
  throw Object.assign(new Error(code), { code })
}

describe.skipIf(!addon)('bindDatagram', () => {
  it('gives each datagram with its sender, empty ones, too', async () => {
    const [one, other] = [await bind(), await bind('vsock://any:5000')]
    expect(other.address).toEqual({ transport: 'vsock', cid: 0xffff_ffff, port: 5000 })
    const got: unknown[] = []
    other.on('message', (data, from) => got.push([Buffer.from(data).toString(), from]))
    one.send(Buffer.from('hello'), 'vsock://2:5000')
    one.send(new Uint8Array(0), { transport: 'vsock', cid: 2, port: 5000 })
    await vi.waitFor(() => expect(got).toHaveLength(2), 10_000)
    const { port } = one.address
    expect(got).toEqual([
      ['hello', { cid: 2, port, size: 5 }],
      ['', { cid: 2, port, size: 0 }],
    ])
  })

  it.each(['ENODEV', 'EOPNOTSUPP'])('says what virtio lacks, and what there is instead (%s)', async (errno) => {
    vi.mocked(loader.loadBinding).mockReturnValue({ ...addon!, typedSocket: failing(errno) })
    await expect(bind()).rejects.toMatchObject({
      code: 'EOPNOTSUPP',
      op: 'bind',
      what: `no vsock transport of this kernel carries datagrams (${errno})`,
      next: expect.stringContaining('For messages there is connectSeqpacket()'),
    })
  })

  it('explains what the kernel says to bind and send', async () => {
    await bind('vsock://any:5001')
    await expect(bind('vsock://any:5001')).rejects.toMatchObject({ code: 'EADDRINUSE', op: 'bind' })
    const socket = await bind()
    for (const code of ['EMSGSIZE', 'EHOSTUNREACH', 'EINVAL']) {
      vi.mocked(loader.loadBinding).mockReturnValue({ ...standIn(addon!), sendMessage: failing(code) })
      const odd = await bind()
      expect(() => odd.send(new Uint8Array(1), 'vsock://2:1')).toThrow(expect.objectContaining({ code, op: 'send' }))
    }
    socket.close()
    expect(() => socket.send(new Uint8Array(1), 'vsock://2:1')).toThrow(expect.objectContaining({ code: 'EBADF' }))
  })

  it('closes by close() and by its signal, once, and leaves no descriptor', async () => {
    const before = openDescriptors()
    const stop = new AbortController()
    const [one, other] = [await bind(), await bind('vsock://any:any', stop.signal)]
    const closed = vi.fn()
    for (const socket of [one, other]) socket.on('close', closed)
    one.close()
    one.close()
    stop.abort()
    await vi.waitFor(() => expect(closed).toHaveBeenCalledTimes(2), 10_000)
    expect(openDescriptors()).toBe(before)
    await expect(bind('vsock://any:any', stop.signal)).rejects.toMatchObject({ code: 'ABORTED', op: 'bind' })
  })

  it('refuses what is wrong', async () => {
    await expect(bind('unix:/x')).rejects.toThrow(TypeError)
    const socket = await bind()
    expect(() => socket.send('text' as never, 'vsock://2:1')).toThrow(TypeError)
    expect(() => socket.send(new Uint8Array(1), 'unix:/x')).toThrow(TypeError)
  })
})
