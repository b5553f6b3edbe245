// A descriptor in front of a vhost-user device: what is passed is joined with the guest, and the reply has the port that the guest sees.
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { listenHybrid, passDescriptor } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { type World, world } from '../packages/vhost-user/testing/ends.js'
import { binding, cleanups, folder } from '../packages/vhost-user/testing/scene.js'

// The build of this checkout, for descriptors alone: nothing here connects over AF_VSOCK.
const addon = fileURLToPath(new URL('../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))
const built = existsSync(addon) && binding !== undefined
if (built) process.env.UPCALL_VSOCK_ADDON = addon

/** A guest behind a hybrid socket, as Dragonball has it. */
async function dragonball(): Promise<World & { address: string }> {
  const it = await world()
  const path = join(folder, 'vm.sock')
  const server = await listenHybrid({
    path,
    profile: 'dragonball',
    handshakeTimeoutMs: 30_000,
    route: (port, { signal }) => it.device.connect(port, { signal }),
  })
  cleanups.push(() => server.close())
  return { ...it, address: `hvsock://${path}:1027` }
}

async function pass({ guest, address }: World & { address: string }, fd: number) {
  const accepted = guest.accepted()
  let hostPort: number | undefined
  const passing = passDescriptor(address, fd, { timeoutMs: 30_000 }).then((passed) => {
    hostPort = passed.hostPort
  })
  closeSync(fd)
  const socket = await accepted
  await guest.until(() => hostPort !== undefined)
  await passing
  return { socket, hostPort }
}

describe.skipIf(!built)('passfd in front of a device', () => {
  it('a file to the guest, by the port that the guest sees', async () => {
    const it = await dragonball()
    writeFileSync(join(folder, 'file'), Buffer.alloc(300_000, 'x'))
    const { socket, hostPort } = await pass(it, openSync(join(folder, 'file'), 'r'))
    expect(hostPort).toBe(socket.hostPort)
    await it.guest.until(() => socket.end !== undefined)
    expect([socket.received, socket.end]).toEqual([300_000, 'shutdown'])
    socket.close()
    await it.guest.until(() => it.device.connections === 0)
  })

  it("the guest's bytes to a file, to the last one", async () => {
    const it = await dragonball()
    const file = join(folder, 'file')
    const { socket } = await pass(it, openSync(file, 'w'))
    socket.write(200_000)
    socket.close()
    await it.guest.until(() => it.device.connections === 0 && readFileSync(file).length === 200_000)
  })

  it('a guest without a listener: refused, and the file is unread', async () => {
    const it = await dragonball()
    const file = join(folder, 'file')
    writeFileSync(file, 'unread')
    const fd = openSync(file, 'r')
    it.guest.onConnection = (socket) => socket.reset()
    let code = ''
    passDescriptor(it.address, fd, { timeoutMs: 30_000 }).catch((error) => {
      code = error.code
    })
    await it.guest.until(() => code !== '')
    expect([code, readFileSync(fd, 'latin1')]).toEqual(['ECONNREFUSED', 'unread'])
    closeSync(fd)
  })
})
