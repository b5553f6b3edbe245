import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it, vi } from 'vitest'
import { addonIfBuilt, openDescriptors, standInForVsock } from '../../testing/addon.js'
import { connect } from '../connect.js'
import { listen } from '../listen.js'
import * as loader from './loader.js'

vi.mock('./loader.js', { spy: true })

const addon = addonIfBuilt()
const COUNT = 20_000
const AT_ONCE = 50

describe.runIf(addon)('many connections', () => {
  it(`leaves no descriptor open after ${COUNT}, accepted ones, refused ones and aborted ones`, { timeout: 60_000 }, async () => {
    if (!addon) return
    const { binding } = standInForVsock(addon)
    vi.spyOn(loader, 'loadBinding').mockReturnValue(binding)
    const server = await listen('vsock://local:any')
    server.on('connection', (socket) => socket.on('error', () => {}).pipe(socket))
    const round = async (i: number) => {
      if (i % 20 === 0) return expect(connect('vsock://local:1')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
      if (i % 20 === 1)
        return expect(connect(server.address, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' })
      const socket = await connect(server.address)
      const closed = new Promise((resolve) => socket.once('close', resolve))
      if (i % 2) socket.end('x').resume()
      else socket.destroy()
      return closed
    }
    // What stays open anyway is there from the first connection on.
    await round(2)
    await turn()
    const before = openDescriptors()
    for (let done = 0; done < COUNT; done += AT_ONCE) await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => round(i)))
    while (server.connections.size > 0) await turn()
    await turn()
    expect(openDescriptors()).toBeLessThanOrEqual(before)
    await server.close()
  })
})
