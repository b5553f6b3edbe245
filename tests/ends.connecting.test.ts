import { createServer, type Socket } from 'node:net'
import { createSocket } from '@upcall/vsock'
import { describe, it } from 'vitest'
import { endCases, type PassageKind, runEndCase } from './support/ends.js'
import { told } from './support/passage.js'

const GREETING = 'DIAL\n'

/** A program that joins each client to a socket of `createSocket`, and writes to that at once, while it connects. */
const joined: PassageKind = {
  name: 'a socket of createSocket that connects',
  greeting: GREETING,
  halfClose: true,
  breaks: true,
  async open({ near, far }) {
    let guest: Socket | undefined
    const { asked, onAsked, verdict, judge } = told()
    const server = createServer({ allowHalfOpen: true }, (client) => {
      client.once('data', (first: Buffer) => {
        client.pause()
        client.unshift(first.subarray(GREETING.length))
        const socket = createSocket(`unix:${far}`, { allowHalfOpen: true, timeoutMs: 30_000, retry: { maxDelayMs: 20 } })
        guest = socket
        socket.once('connect', () => client.write('OK\n'))
        socket.on('error', (error) => void client.destroy(error))
        client.on('error', (error) => void socket.destroy(error))
        socket.once('close', () => judge(socket.errored ? 'broken' : 'ok'))
        client.pipe(socket).pipe(client)
        onAsked()
      })
    })
    await new Promise<void>((resolve) => server.listen(near, resolve))
    return {
      asked,
      verdict,
      breakFar: () => guest?.destroy(new Error('the program broke it')),
      close: () => new Promise((resolve) => server.close(resolve)),
    }
  },
}

// The answer to a client that has closed by then fails, and `pipe` gives up what that client has said.
const rows = endCases(joined).filter(
  ({ side, act, moment }) => side === 'far' || act !== 'close' || moment === 'after' || moment === 'waiting',
)

describe(joined.name, () => {
  it.concurrent.each(rows)('$name', { timeout: 90_000 }, (row) => runEndCase(joined, row))
})
