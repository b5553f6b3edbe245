import { closeSync, existsSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, inherited, openDescriptors, sockaddrOf } from '../../testing/addon.js'
import { bytes, nextOf, SeqpacketRig, textsOf } from '../../testing/seqpacket.js'
import { listen } from '../listen.js'
import type { Binding } from '../native/binding.js'
import * as loader from '../native/loader.js'
import { AF_VSOCK, encodeSockaddrVm } from '../native/sockaddr.js'
import { listenSeqpacket } from './listen.js'

vi.mock('../native/loader.js', { spy: true })

const addon = addonIfBuilt()
let rig: SeqpacketRig

beforeEach(() => {
  use(addon)
  rig = new SeqpacketRig()
})
afterEach(() => rig.close())

function use(binding: Binding | undefined): void {
  vi.mocked(loader.loadBinding).mockImplementation(() => {
    if (binding === undefined) throw new loader.AddonError('@upcall/vsock', 'it is not here', 'Get it.', [])
    return binding
  })
}

const messages = (path: string, listens = true) => {
  const descriptor = addon!.typedSocket(addon!.AF_UNIX, addon!.SOCK_SEQPACKET)
  addon!.bind(descriptor, sockaddrOf(path))
  if (listens) addon!.listen(descriptor, 16)
  return descriptor
}

describe.skipIf(!addon)('a message socket that another program opened', () => {
  it.each([true, false])(
    'is listened on (listening already: %s); the server owns it, and its maker the file',
    async (listens) => {
      const before = openDescriptors()
      const server = await listenSeqpacket({ fd: inherited(() => messages(rig.path, listens)) })
      expect(server.address).toEqual({ transport: 'unix', path: rig.path, type: 'seqpacket' })
      const [near, far] = await Promise.all([rig.dial(), nextOf(server)])
      await near.send(bytes('one'))
      await near.send(bytes('two'))
      near.end()
      expect(await textsOf(far)).toEqual(['one', 'two'])
      near.destroy()
      far.destroy()
      await server.close()
      expect(openDescriptors()).toBe(before)
      expect(existsSync(rig.path)).toBe(true)
    },
  )

  it('is refused where this process uses it already, and goes on', async () => {
    const fd = inherited(() => messages(rig.path))
    await using server = await listenSeqpacket({ fd })
    await expect(listenSeqpacket({ fd })).rejects.toMatchObject({ code: 'EEXIST', op: 'listen', subject: `fd ${fd}` })
    const [near, far] = await Promise.all([rig.dial(), nextOf(server)])
    near.end()
    expect(await textsOf(far)).toEqual([])
    far.destroy()
  })

  it('is told from what cannot be used, which stays open', async () => {
    const listens = inherited(() => messages(rig.path))
    const stream = inherited(() => {
      const descriptor = addon!.socket(addon!.AF_UNIX)
      addon!.bind(descriptor, sockaddrOf(`${rig.path}.stream`))
      return descriptor
    })
    const unbound = inherited(() => addon!.typedSocket(addon!.AF_UNIX, addon!.SOCK_SEQPACKET))
    const before = openDescriptors()
    await expect(listenSeqpacket({ fd: stream })).rejects.toMatchObject({
      code: 'ESOCKTNOSUPPORT',
      what: 'the descriptor is a stream socket, not a seqpacket socket',
      next: 'In a unit of systemd, write ListenSequentialPacket=.',
    })
    await expect(listen({ fd: listens })).rejects.toMatchObject({
      code: 'ESOCKTNOSUPPORT',
      what: 'the descriptor is a seqpacket socket, not a stream socket',
      next: 'In a unit of systemd, write ListenStream=.',
    })
    await expect(listenSeqpacket({ fd: unbound })).rejects.toMatchObject({ code: 'EINVAL', subject: `fd ${unbound}` })
    await expect(listenSeqpacket({ fd: 9_999 })).rejects.toMatchObject({ code: 'EBADF' })
    await expect(listenSeqpacket({ fd: -1 })).rejects.toThrow('fd: must be an integer from 0 to 2147483647, got -1')
    await expect(listenSeqpacket({ fd: listens }, { mode: 0o600 })).rejects.toThrow(/^mode: must be left out/)
    await expect(listenSeqpacket({ fd: listens }, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
    use(undefined)
    await expect(listenSeqpacket({ fd: listens })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: `listen unix+seq:${rig.path}: it is not here. Get it.`,
    })
    expect(openDescriptors()).toBe(before)
    for (const fd of [listens, stream, unbound]) closeSync(fd)
  })

  it.runIf(hasVsock())('may be AF_VSOCK', async () => {
    const fd = inherited(() => {
      const descriptor = addon!.typedSocket(AF_VSOCK, addon!.SOCK_SEQPACKET)
      addon!.bind(descriptor, encodeSockaddrVm({ cid: 0xffffffff, port: 0xffffffff }))
      return descriptor
    })
    const server = await listenSeqpacket({ fd }, { vsock: { bufferSize: 65_536 } })
    expect(server.address).toMatchObject({ transport: 'vsock', cid: 0xffffffff, type: 'seqpacket' })
    expect(server.address).not.toMatchObject({ port: 0xffffffff })
    await server.close()
    expect(() => closeSync(fd)).toThrow('EBADF')
  })
})

/** A socket that is opened and closed, no more. */
function hasVsock(): boolean {
  try {
    addon?.close(addon.typedSocket(AF_VSOCK, addon.SOCK_SEQPACKET))
    return addon !== undefined
  } catch {
    return false
  }
}
