import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, listen } from '@upcall/vsock'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../../../../packages/vmm/testing/rig.js'
import { startQemuShim } from './shim.js'

/** Comes no further than to a QEMU that is not there. */
function start(directory: string, monitor: string) {
  return startQemuShim({ uds: join(directory, 'vm.sock'), monitor, program: '/no/such/qemu' })
}

describe("the path of QEMU's own monitor", () => {
  it('is not taken from a listener', async () => {
    using directory = temporaryDirectory()
    const path = join(directory.path, 'monitor.sock')
    await using server = await listen({ transport: 'unix', path })
    await expect(start(directory.path, path)).rejects.toMatchObject({ code: 'EADDRINUSE' })
    const socket = await connect(server.address)
    socket.destroy()
  })

  it('is not a file', async () => {
    using directory = temporaryDirectory()
    const path = join(directory.path, 'precious')
    writeFileSync(path, 'data')
    await expect(start(directory.path, path)).rejects.toThrow(path)
    expect(readFileSync(path, 'utf8')).toBe('data')
  })

  it('is left as it was found if nothing comes of it', async () => {
    using directory = temporaryDirectory()
    const path = join(directory.path, 'monitor.sock')
    await expect(start(directory.path, path)).rejects.toMatchObject({ code: 'TOOL_MISSING' })
    expect(existsSync(path)).toBe(false)
  })
})
