import { createServer, type Socket } from 'node:net'
import { withSocketPath } from './hybrid.js'

export interface MuteVmm {
  readonly address: string
  /** Connections that wait for their reply. */
  readonly dialers: ReadonlySet<Socket>
}

/** A VMM that takes connections and does not answer, as with a guest that has not booted. */
export function withMuteVmm(use: (vmm: MuteVmm) => Promise<void>): Promise<void> {
  return withSocketPath(async (path) => {
    const dialers = new Set<Socket>()
    const server = createServer((socket) => {
      dialers.add(socket.resume().on('error', () => {}))
      socket.once('close', () => dialers.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    try {
      await use({ address: `hvsock://${path}:80`, dialers })
    } finally {
      for (const socket of dialers) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    }
  })
}
