// The program of the default guest image: the upcall service of a stock Linux on its port, and beside it what a VMM likes to know of
// its guest. Bundled into one file, since it is all that the guest gets.

import { execFile } from 'node:child_process'
import { deviceManagerGuest, linuxGuest, linuxReport } from '@upcall/device-manager/guest'
import { messageFor } from '@upcall/foundation/error'
import { readLine } from '@upcall/foundation/read-line'
import { UpcallServer } from '@upcall/server'
import { listen, type VsockSocket } from '@upcall/vsock'
import { UPCALL_PORT } from '@upcall/wire'
import { AGENT_PORT, type Answer, type Ask, ECHO_PORT, type Executed, MAX_OUTPUT } from './messages.js'

const upcalls = new UpcallServer({ services: [deviceManagerGuest(linuxGuest())] })
await serve(UPCALL_PORT, (socket) => void upcalls.accept(socket, { remote: 'VMM' }))
await serve(AGENT_PORT, (socket) => void answer(socket))
await serve(ECHO_PORT, (socket) => void socket.pipe(socket))
console.log('serving')

async function serve(port: number, onConnection: (socket: VsockSocket) => void): Promise<void> {
  const server = await listen(`vsock://any:${port}`, { allowHalfOpen: true })
  server.on('connection', (socket) => {
    // 'close' follows, which the user of the socket hears.
    socket.on('error', () => {})
    onConnection(socket)
  })
}

async function answer(socket: VsockSocket): Promise<void> {
  let reply: Answer<unknown>
  try {
    reply = { ok: await obey(JSON.parse(await readLine(socket, { longest: 64 * 1024, timeoutMs: 10_000 })) as Ask) }
  } catch (error) {
    reply = { error: messageFor(error) }
  }
  socket.end(`${JSON.stringify(reply)}\n`)
}

async function obey(ask: Ask): Promise<unknown> {
  if (ask.ask === 'report') return linuxReport()
  if (ask.ask === 'execute') return execute(ask.argv, ask.timeoutMs)
  throw new Error(`ask: ${JSON.stringify(ask)} is not known; there are report and execute`)
}

function execute([program = '', ...args]: readonly string[], timeout: number): Promise<Executed> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout, maxBuffer: MAX_OUTPUT, encoding: 'utf8' }, (error, stdout, stderr) => {
      const status = error ? error.code : 0
      if (typeof status === 'string') reject(error)
      else resolve({ status: status ?? null, stdout, stderr })
    })
  })
}
