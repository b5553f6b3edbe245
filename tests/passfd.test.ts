// A passed descriptor between two peers: how its stream ends. The near peer's connection is passed on and closed at once, so that the
// hybrid server alone carries it.
import { existsSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { type ListenHybridOptions, passDescriptor } from '@upcall/vsock'
import { describe, it } from 'vitest'
import { endCases, type PassageKind, runEndCase } from './support/ends.js'
import { hybridPassage } from './support/passage.js'

// The build of this checkout, for descriptors alone: nothing here connects over AF_VSOCK.
const addon = fileURLToPath(new URL('../packages/vsock/build/Release/upcall_vsock.node', import.meta.url))
const built = existsSync(addon)
if (built) process.env.UPCALL_VSOCK_ADDON = addon

function passed(name: string, options: Partial<ListenHybridOptions>): PassageKind {
  return {
    name,
    greeting: '',
    halfClose: options.profile === undefined,
    closesAtOnce: true,
    breaks: true,
    async open({ near, far }) {
      const path = `${near}.vm`
      const { server, ...passage } = await hybridPassage(path, far, options)
      const dialer = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => void pass(path, socket))
      await new Promise<void>((resolve) => dialer.listen(near, resolve))
      const close = async () => {
        dialer.close()
        await server.close()
      }
      return { ...passage, close }
    },
  }
}

async function pass(path: string, socket: Socket): Promise<void> {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
  const passing = passDescriptor(`hvsock://${path}:52`, fd, { timeoutMs: 30_000 })
  // It has been duplicated.
  socket.destroy()
  await passing
}

const kinds = [passed('passed descriptor', {}), passed('passed descriptor, as Dragonball', { profile: 'dragonball' })]

describe.skipIf(!built).each(kinds)('$name', (kind) => {
  it.concurrent.each(endCases(kind))('$name', { timeout: 90_000 }, (row) => runEndCase(kind, row))
})
